"""One running service for the tests that need one: its processes take seconds to start."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bursar.local.postgres import Postgres
from tests import servers
from tests.crash.service import Service


@pytest.fixture(scope="package")
def service(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """An api, two workers and Valkey, on a database of their own."""
    with servers.fresh_database(postgres) as url:
        servers.migrate(url)
        service = Service(tmp_path_factory.mktemp("service"), postgres, url)
        try:
            service.heal()
            yield service
        finally:
            service.end()


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that nginx's and PgBouncer's own users may pass through."""
    with servers.temporary_folder() as folder:
        yield folder
