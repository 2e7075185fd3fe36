"""docker-compose.yml: what would break, or open a door, without anyone noticing."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from bursar.cli import app
from runtime.celery_app import make_celery
from runtime.settings import Settings
from tests.deploy.places import REPOSITORY, tool

TEXT = (REPOSITORY / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
PROXY: dict[str, Any] = yaml.safe_load((REPOSITORY / "deploy/compose.proxy.yml").read_text())["services"]["proxy"]
OURS = {name: service for name, service in SERVICES.items() if "bursar" in service["image"]}

# `${NAME:?sentence}`: Compose refuses to start without it, and says why.
REQUIRED = re.compile(r"\$\{(\w+):\?[^}]+\}")
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH|_KEY$", re.IGNORECASE)
SECONDS = {"s": 1, "m": 60}


def seconds(text: str) -> int:
    return int(text[:-1]) * SECONDS[text[-1]]


def environment(service: dict[str, Any]) -> dict[str, str]:
    return service.get("environment", {})


@pytest.mark.parametrize("file", ["docker-compose.yml", "deploy/compose.proxy.yml"])
def test_it_is_a_compose_file_by_the_specification(file: str) -> None:
    check = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", file]
    subprocess.run(check, cwd=REPOSITORY, check=True, capture_output=True, timeout=30)


def test_it_keeps_to_what_docker_compose_1_29_knows() -> None:
    assert set(yaml.safe_load(TEXT)) <= {"services", "volumes", "networks"} | {
        key for key in yaml.safe_load(TEXT) if key.startswith("x-")
    }
    assert "start_interval" not in TEXT


def test_the_services_are_the_six_that_bursar_is() -> None:
    assert set(SERVICES) == {"postgres", "redis", "migrate", "api", "worker", "webhooks", "flower"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_secret_comes_from_outside_and_has_no_default(name: str) -> None:
    for variable, value in environment(SERVICES[name]).items():
        if SECRET_NAME.search(variable):
            assert REQUIRED.search(value), f"{name}: {variable} is {value}"
        for password in re.findall(r"://[^:/@]*:([^@]*)@", value):
            assert REQUIRED.fullmatch(password), f"{name}: {variable} carries a password of its own"


def test_no_secret_has_a_default_anywhere() -> None:
    defaults = re.findall(r"\$\{(\w+)(?::?-)[^}]*\}", TEXT)
    assert defaults
    assert not [variable for variable in defaults if SECRET_NAME.search(variable)]


def test_make_env_writes_just_the_secrets_that_are_required(tmp_path: Path) -> None:
    made = tmp_path / "env"
    subprocess.run([REPOSITORY / "deploy/make-env", made], check=True, capture_output=True, timeout=10)
    assert set(re.findall(r"^(\w+)=", made.read_text(), re.MULTILINE)) == set(REQUIRED.findall(TEXT))


@pytest.mark.parametrize("name", OURS)
def test_its_command_is_one_that_bursar_has(name: str) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert SERVICES[name]["command"][0] in commands


@pytest.mark.parametrize("name", OURS)
def test_every_setting_it_gives_is_read_by_someone(name: str) -> None:
    known = {f"BURSAR_{field}".upper() for field in Settings.model_fields} | {
        variable
        for source in (REPOSITORY / "bursar").rglob("*.py")
        for variable in re.findall(r"BURSAR_[A-Z_]+", source.read_text())
    }
    assert {variable for variable in environment(SERVICES[name]) if variable.startswith("BURSAR_")} <= known


def test_only_loopback_is_published() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert not any(service.get("network_mode") for service in SERVICES.values())


@pytest.mark.parametrize("name", SERVICES)
def test_it_can_do_no_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")
    assert not service.get("cap_add")
    assert name in OURS or service["user"].split(":")[0] not in ("", "0", "root")  # ours: see test_dockerfile


@pytest.mark.parametrize("name", SERVICES)
def test_it_is_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["logging"]["options"]["max-size"]
    assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"migrate"}))
def test_its_health_is_checked_within_its_own_interval(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert seconds(check["timeout"]) < seconds(check["interval"])


def test_nothing_of_ours_starts_before_the_schema_is_there_and_nothing_waits_for_redis() -> None:
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("api", "worker", "webhooks", "flower"):
        needs = {service: need["condition"] for service, need in SERVICES[name]["depends_on"].items()}
        assert needs == {
            "postgres": "service_healthy",
            "migrate": "service_completed_successfully",
            "redis": "service_started",
        }


def test_one_service_builds_the_image_that_all_of_ours_run() -> None:
    assert [name for name in OURS if "build" in OURS[name]] == ["migrate"]
    assert len({service["image"] for service in OURS.values()}) == 1


def test_a_worker_has_time_for_its_soft_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BURSAR_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("BURSAR_REDIS_URL", "redis://127.0.0.1:1/0")
    soft_s: float = make_celery(Settings(), partitions=1).conf.worker_soft_shutdown_timeout  # pyright: ignore[reportCallIssue]
    assert 0 < 2 * soft_s <= seconds(SERVICES["worker"]["stop_grace_period"])


def test_the_api_has_time_for_the_requests_under_way() -> None:
    from api.serve import SHUTDOWN_S

    assert seconds(SERVICES["api"]["stop_grace_period"]) >= 2 * SHUTDOWN_S


def test_the_data_lies_in_named_volumes() -> None:
    """Where an image keeps its data is its own affair: elsewhere, all is well until the container is made anew."""
    major = int(re.search(r"postgres:(\d+)", SERVICES["postgres"]["image"])[1])  # type: ignore[index]
    folder = "/var/lib/postgresql" if major >= 18 else "/var/lib/postgresql/data"
    assert f"postgres:{folder}" in SERVICES["postgres"]["volumes"]
    assert "redis:/data" in SERVICES["redis"]["volumes"]
    assert {"postgres", "redis"} == set(yaml.safe_load(TEXT)["volumes"])


def test_redis_writes_down_what_it_is_told_asks_who_is_there_and_evicts_nothing() -> None:
    configuration = SERVICES["redis"]["command"][-1]
    for line in ("appendonly yes", "maxmemory-policy noeviction", "requirepass $$REDISCLI_AUTH", "dir /data"):
        assert line in configuration.splitlines()


@pytest.mark.parametrize("name", SERVICES)
def test_its_image_is_pinned_by_a_tag(name: str) -> None:
    default = re.fullmatch(r"\$\{\w+:-([^}]+)\}", SERVICES[name]["image"])
    assert default
    assert re.search(r":(?!latest)[\w.-]+$", default[1])


# --- several apis, with nginx before them -----------------------------------------------------------------------------


def test_apis_and_workers_may_be_many() -> None:
    """A name or a fixed port of its own would keep the second container from starting; a range leaves each its port."""
    for name in ("api", "worker", "webhooks"):
        assert "container_name" not in SERVICES[name]
        assert "hostname" not in SERVICES[name]
    assert SERVICES["api"]["ports"] == ["127.0.0.1:${BURSAR_PORT:-8000}:8000"]
    assert "ports" not in SERVICES["worker"] | SERVICES["webhooks"]


def test_the_proxy_is_the_only_open_door_and_can_do_no_more_than_it_must() -> None:
    assert PROXY["ports"] == ["${BURSAR_TLS_PORT:-443}:443"]
    assert PROXY["read_only"] is True
    assert PROXY["cap_drop"] == ["ALL"]
    assert PROXY["security_opt"] == ["no-new-privileges:true"]
    assert PROXY["user"].split(":")[0] not in ("", "0", "root")
    assert all(volume.endswith(":ro") for volume in PROXY["volumes"])
    assert PROXY["mem_limit"]
    assert PROXY["pids_limit"]
    assert PROXY["logging"]["options"]["max-size"]


def test_the_proxy_finds_its_files_and_every_api() -> None:
    folder = REPOSITORY / "deploy/nginx"
    mounted = [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).split(":") for volume in PROXY["volumes"]]
    assert [(source, target) for source, target, _ in mounted] == [
        ("./deploy/nginx", "/etc/nginx/bursar"),
        ("./deploy/nginx/upstream-compose.conf", "/etc/nginx/bursar/upstream.conf"),
        ("./deploy/nginx/tls", "/etc/nginx/bursar/tls"),
    ]
    assert "server api:8000 resolve" in (folder / "upstream-compose.conf").read_text()
    tag = re.search(r":(\d+)\.(\d+)", PROXY["image"])
    assert tag
    assert (int(tag[1]), int(tag[2])) >= (1, 28), "`resolve` in an upstream came with 1.27.3"
    from api.routes.commands import WAIT_MAX_S

    assert seconds(PROXY["stop_grace_period"]) > WAIT_MAX_S
