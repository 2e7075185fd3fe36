"""Settings, from environment variables that start with BURSAR_."""

from functools import lru_cache
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read once per process. Secrets are `SecretStr`: they do not print."""

    model_config = SettingsConfigDict(env_prefix="BURSAR_", extra="ignore")

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

    partitions: int | None = Field(
        None, description="Only read by the first migration (8 unless set); later the database knows.", ge=1, le=256
    )

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"


@lru_cache(maxsize=1)
def settings() -> Settings:
    """This process's settings. Raises pydantic's ValidationError, which names the variable that is missing or wrong."""
    return Settings()  # pyright: ignore[reportCallIssue]  # the fields come from the environment
