"""Settings, from environment variables that start with BURSAR_."""

from functools import lru_cache
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from runtime import base64url
from runtime.egress import AllowedHosts


class Settings(BaseSettings):
    """Read once per process. Secrets are `SecretStr`: they do not print."""

    model_config = SettingsConfigDict(env_prefix="BURSAR_", extra="ignore", hide_input_in_errors=True)

    database_url: SecretStr = Field(description="postgresql://user:password@host:port/database")
    redis_url: SecretStr = Field(description="redis://:password@host:port/0, any Redis-protocol server")

    host: str = Field("127.0.0.1", description="Where the api listens. Loopback unless told otherwise.")
    port: int = Field(8000, ge=0, le=65535, description="The api's port.")

    env: str = Field("live", pattern="^[a-z]{1,12}$", description="Stands in new API keys: bursar_<env>_…")
    max_backlog: int = Field(
        1_000_000,
        ge=1,
        description="Pending commands past which the intake answers 429 backlogged: two minutes of one worker's work.",
    )

    feed_retention_days: int = Field(
        30,
        ge=1,
        le=36_500,
        description="How far back a cursor of GET /v1/outcomes may lie. Nothing is deleted.",
    )

    partitions: int | None = Field(
        None, description="Only read by the first migration (8 unless set); later the database knows.", ge=1, le=256
    )

    receipt_key: SecretStr | None = Field(
        None, description="Signs receipts: an Ed25519 private key, 32 bytes in base64. Without it there are none."
    )
    receipt_former_keys: str | None = Field(
        None, description="Public keys that signed receipts before, in base64, with commas between."
    )

    webhook_allowed_hosts: str | None = Field(
        None,
        description="Receivers of webhooks that need not be public: names, addresses, networks, with commas between.",
    )
    secrets_key: SecretStr | None = Field(
        None, description="Seals webhook secrets: 32 random bytes in base64. Without it there are no webhooks."
    )
    secrets_former_keys: SecretStr | None = Field(
        None, description="Keys that sealed before and still open, in base64, with commas between."
    )
    webhook_retention_days: int = Field(
        90, ge=7, le=36_500, description="How long deliveries and their attempts are kept after they are over."
    )

    metrics_ports: str | None = Field(
        None, description="Where each worker process shows its metrics: a port, or a range as in 9101-9108."
    )
    flower_url: str | None = Field(
        None, pattern=r"^https?://[^\s\"'<>@]+$", description="Where people reach Flower: the dashboard links to it."
    )

    otlp_endpoint: str | None = Field(
        None,
        pattern="^https?://",
        description="Where traces go: an OpenTelemetry collector, as in http://collector:4318.",
    )
    trace_ratio: float = Field(
        1.0, ge=0, le=1, description="The share of requests without a traceparent of their own that are traced."
    )

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"

    @field_validator("receipt_key")
    @classmethod
    def _receipt_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            _require_key(value.get_secret_value())
        return value

    @field_validator("receipt_former_keys")
    @classmethod
    def _receipt_former_keys(cls, value: str | None) -> str | None:
        for key in (value or "").replace(",", " ").split():
            _require_key(key)
        return value

    @field_validator("webhook_allowed_hosts")
    @classmethod
    def _webhook_allowed_hosts(cls, value: str | None) -> str | None:
        AllowedHosts.parse(value or "")
        return value

    @field_validator("metrics_ports")
    @classmethod
    def _metrics_ports(cls, value: str | None) -> str | None:
        if value is not None:
            port_range(value)
        return value

    @field_validator("secrets_key", "secrets_former_keys")
    @classmethod
    def _secrets_keys(cls, value: SecretStr | None) -> SecretStr | None:
        for key in (value.get_secret_value() if value is not None else "").replace(",", " ").split():
            _require_key(key, remedy="`openssl rand -base64 32` makes one")
        return value


def _require_key(text: str, *, remedy: str = "`bursar receipts new-key` makes a pair") -> None:
    try:
        base64url.key_bytes(text)
    except ValueError as error:
        raise ValueError(f"{error}; {remedy}") from None


def port_range(ports: str) -> range:
    """`9101` or `9101-9108`. Raises ValueError."""
    first, _, last = ports.partition("-")
    try:
        found = range(int(first), int(last or first) + 1)
    except ValueError:
        found = range(0)
    if not found or found[0] < 1 or found[-1] > 65_535:
        raise ValueError("takes a TCP port, or a range of them as in 9101-9108")
    return found


@lru_cache(maxsize=1)
def settings() -> Settings:
    """This process's settings. Raises pydantic's ValidationError, which names the variable that is missing or wrong."""
    return Settings()  # pyright: ignore[reportCallIssue]  # the fields come from the environment
