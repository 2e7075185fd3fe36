"""deploy/render.yaml: its names lead somewhere, and the code has the commands and settings that it gives."""

import re
from typing import Any

import pytest
import typer.main
import yaml

from api import serve
from bursar.cli import app
from runtime import base64url
from runtime.settings import Settings
from tests.deploy.places import REPOSITORY
from worker import sending

BLUEPRINT: dict[str, Any] = yaml.safe_load((REPOSITORY / "deploy/render.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = {service["name"]: service for service in BLUEPRINT["services"]}
OURS = {name: service for name, service in SERVICES.items() if service.get("runtime") == "docker"}


def variables(service: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By name, those of its groups among them."""
    groups = {group["name"]: group["envVars"] for group in BLUEPRINT["envVarGroups"]}
    own = [each for each in service["envVars"] if "key" in each]
    of_groups = [each for shared in service["envVars"] if "fromGroup" in shared for each in groups[shared["fromGroup"]]]
    return {each["key"]: each for each in (*of_groups, *own)}


@pytest.mark.parametrize("name", OURS)
def test_its_command_and_its_settings_exist(name: str) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    [program, command, *_] = OURS[name]["dockerCommand"].split()
    assert program == "bursar"
    assert command in commands
    known = {f"BURSAR_{field}".upper() for field in Settings.model_fields} | {"PORT"}
    assert variables(OURS[name]).keys() <= known
    assert (REPOSITORY / OURS[name]["dockerfilePath"]).is_file()


@pytest.mark.parametrize("name", OURS)
def test_it_finds_the_servers_by_their_names(name: str) -> None:
    given = variables(OURS[name])
    database = given["BURSAR_DATABASE_URL"]["fromDatabase"]
    redis = given["BURSAR_REDIS_URL"]["fromService"]
    assert database == {"name": BLUEPRINT["databases"][0]["name"], "property": "connectionString"}
    assert SERVICES[redis["name"]]["type"] == redis["type"] == "keyvalue"


def test_nothing_but_the_api_is_open_and_no_secret_stands_here() -> None:
    assert [name for name, service in SERVICES.items() if service["type"] == "web"] == ["bursar-api"]
    assert BLUEPRINT["databases"][0]["ipAllowList"] == SERVICES["bursar-redis"]["ipAllowList"] == []
    for service in OURS.values():
        for variable in variables(service).values():
            assert "value" not in variable or not re.search(r"_KEY$|_URL$|PASSWORD", variable["key"])


def test_the_keys_are_such_as_render_generates() -> None:
    """256 bits in base64, by its reference; the api and the courier have to get the same one, so it is in the group."""
    assert len(base64url.key_bytes("q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=")) == 32
    assert {"BURSAR_SECRETS_KEY"} == {
        each["key"] for group in BLUEPRINT["envVarGroups"] for each in group["envVars"] if "generateValue" in each
    }
    for name in ("bursar-api", "bursar-webhooks"):
        assert {"fromGroup": "bursar"} in OURS[name]["envVars"]


def test_it_listens_where_render_looks_and_has_time_to_stop() -> None:
    api = OURS["bursar-api"]
    given = variables(api)
    assert given["PORT"]["value"] == given["BURSAR_PORT"]["value"]
    assert given["BURSAR_HOST"]["value"] == "0.0.0.0"
    assert api["healthCheckPath"] == "/readyz"
    assert api["maxShutdownDelaySeconds"] >= 2 * serve.SHUTDOWN_S
    assert OURS["bursar-webhooks"]["maxShutdownDelaySeconds"] >= 2 * sending.DEADLINE_S
