"""What every test may ask for: real servers, a migrated database of its own, an empty Redis."""

from collections.abc import Iterator

import pytest
import redis

from bursar.local.postgres import Postgres
from bursar.local.valkey import Valkey
from tests import servers


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The PostgreSQL that all tests share. Whoever wants to kill one takes `own_postgres`."""
    with servers.running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def template(postgres: Postgres) -> str:
    """The name of a migrated database to copy from."""
    return servers.make_template(postgres)


@pytest.fixture
def database_url(postgres: Postgres, template: str) -> Iterator[str]:
    """A migrated database for one test."""
    with servers.fresh_database(postgres, template=template) as url:
        yield url


@pytest.fixture(scope="module")
def module_database_url(postgres: Postgres, template: str) -> Iterator[str]:
    """A migrated database for the tests of one module, which must not disturb each other."""
    with servers.fresh_database(postgres, template=template) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres: Postgres) -> Iterator[str]:
    """A database without any table, for tests of the migrations themselves."""
    with servers.fresh_database(postgres) as url:
        yield url


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """The Redis-protocol server that all tests share. Whoever wants to kill one takes `own_valkey`."""
    with servers.running_valkey() as server:
        yield server


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """The shared server, emptied."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    return valkey.url


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A migrated PostgreSQL for one test, to kill and to start again; `own_postgres.url` is its database."""
    with servers.running_postgres() as server:
        servers.migrate(server.url)
        yield server


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A Valkey for one test, to kill and to start again."""
    with servers.running_valkey() as server:
        yield server
