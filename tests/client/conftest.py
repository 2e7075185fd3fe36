"""One service for the whole folder, api and worker as processes; and a server that behaves as badly as it is told."""

from collections.abc import Generator

import pytest

from bursar.client import Client
from bursar.local.postgres import Postgres
from tests.client.hostile import Hostile
from tests.contracts.caller import GOLD, Caller
from tests.contracts.service import Service, running


@pytest.fixture(scope="package")
def service(postgres: Postgres, template: str) -> Generator[Service]:
    """In the end its books must balance."""
    with running(postgres, template) as service:
        yield service


@pytest.fixture(scope="package")
def key(service: Service) -> str:
    """An API key that opens everything; there are the assets `gold` and `gold_coins`."""
    made = service.new_key("a game server")
    caller = Caller(service, made)
    for code in (GOLD, "gold_coins"):
        assert caller.http.post("/v1/assets", json={"code": code, "name": code, "scale": 0}).status_code == 201
    caller.http.close()
    return made


@pytest.fixture
def client(service: Service, key: str) -> Generator[Client]:
    with Client(service.url, key) as client:
        yield client


@pytest.fixture
def hostile() -> Generator[Hostile]:
    with Hostile() as server:
        yield server
