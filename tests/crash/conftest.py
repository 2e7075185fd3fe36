"""One service for all of these tests: each finds it whole, and after one that failed it is built anew."""

import contextlib
from collections.abc import Generator

import pytest

from bursar.local.postgres import Postgres
from tests import servers
from tests.crash.service import Service


class House:
    """Where the service lives between tests."""

    def __init__(self, postgres: Postgres, folders: pytest.TempPathFactory) -> None:
        self._postgres = postgres
        self._folders = folders
        self._service: Service | None = None
        self._cleanup = contextlib.ExitStack()

    def whole_service(self) -> Service:
        if self._service is None:
            self._postgres.start()
            # Not a copy of a template: a sequence that was used there falls back when the server of the copy crashes
            # (PostgreSQL 18, CREATE DATABASE … STRATEGY wal_log).
            url = self._cleanup.enter_context(servers.fresh_database(self._postgres))
            servers.migrate(url)
            self._service = Service(self._folders.mktemp("service"), self._postgres, url)
            self._cleanup.callback(self._service.end)
        self._service.heal()
        return self._service

    def clear(self) -> None:
        """End the service and drop its database."""
        self._service = None
        self._cleanup.close()


_failed = pytest.StashKey[bool]()


@pytest.fixture(scope="package")
def house(tmp_path_factory: pytest.TempPathFactory) -> Generator[House]:
    with servers.running_postgres() as server:
        house = House(server, tmp_path_factory)
        yield house
        house.clear()


@pytest.fixture
def service(house: House, request: pytest.FixtureRequest) -> Generator[Service]:
    """An api, two workers, Valkey and PostgreSQL, all running."""
    yield house.whole_service()
    if request.node.stash.get(_failed, False):
        house.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
        service = getattr(item, "funcargs", {}).get("service")
        if service is not None:
            report.sections.append(("the service's logs", service.last_words()))
    return report
