"""One service for all of these tests: each finds it whole, and after one that failed it is built anew."""

from collections.abc import Generator

import pytest

from bursar.local.postgres import Postgres
from tests import servers
from tests.crash.service import Service


class House:
    """Where the service lives between tests."""

    def __init__(self) -> None:
        self.service: Service | None = None


_failed = pytest.StashKey[bool]()


@pytest.fixture(scope="package")
def crashing_postgres() -> Generator[Postgres]:
    """Shared by these tests, killed by some of them."""
    with servers.running_postgres() as server:
        servers.migrate(server.url)
        yield server


@pytest.fixture(scope="package")
def house() -> Generator[House]:
    house = House()
    yield house
    if house.service is not None:
        house.service.end()


@pytest.fixture
def service(house: House, crashing_postgres: Postgres, request: pytest.FixtureRequest) -> Generator[Service]:
    """An api, two workers, Valkey and PostgreSQL, all running."""
    if house.service is None:
        crashing_postgres.start()
        folder = request.getfixturevalue("tmp_path_factory").mktemp("service")
        house.service = Service(folder, crashing_postgres)
    service = house.service
    service.heal()
    yield service
    if request.node.stash.get(_failed, False):
        service.end()
        house.service = None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
        service = getattr(item, "funcargs", {}).get("service")
        if service is not None:
            report.sections.append(("the service's logs", service.last_words()))
    return report
