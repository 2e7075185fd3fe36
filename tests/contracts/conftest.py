"""One service for the whole folder, and callers of it. Tests share it, so they name their wallets and keys anew."""

from collections.abc import Callable, Generator

import pytest

from bursar.local.postgres import Postgres
from tests.contracts.caller import GOLD, Caller, unique
from tests.contracts.service import Service, running


@pytest.fixture(scope="package")
def service(postgres: Postgres, template: str) -> Generator[Service]:
    """In the end its books must balance and its logs must hold no surprise, whatever the tests did to it."""
    with running(postgres, template) as service:
        yield service


@pytest.fixture(scope="package")
def new_caller(service: Service) -> Generator[Callable[..., Caller]]:
    """Callers of clients and tenants of one's choice."""
    made: list[Caller] = []

    def make(client: str, *, tenant: str = "default") -> Caller:
        caller = Caller(service, service.new_key(client, tenant=tenant))
        made.append(caller)
        asset = {"code": GOLD, "name": "Gold", "scale": 0}
        assert caller.http.post("/v1/assets", json=asset).status_code in (200, 201)
        return caller

    yield make
    for caller in made:
        caller.http.close()


@pytest.fixture(scope="package")
def game(new_caller: Callable[..., Caller]) -> Caller:
    """The client that most tests speak for."""
    return new_caller("a game")


@pytest.fixture(scope="package")
def shop(new_caller: Callable[..., Caller]) -> Caller:
    """Another client of the same tenant."""
    return new_caller("a shop")


@pytest.fixture(scope="package")
def stranger(new_caller: Callable[..., Caller]) -> Caller:
    """A client of another tenant."""
    return new_caller("a stranger", tenant="elsewhere")


@pytest.fixture
def wallet() -> str:
    """The name of a wallet that was never opened."""
    return unique("player")


@pytest.fixture
def rich(game: Caller) -> str:
    """A wallet with 100 gold."""
    return game.new_wallet(100)
