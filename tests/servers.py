"""Real servers for the tests: PostgreSQL and Valkey on free ports, with the settings that `make run` uses.

Nothing here needs pytest: `conftest.py` makes fixtures of it, `tests/alembic_check.py` uses it bare.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Generator
from itertools import count
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql

from bursar.local.postgres import Postgres
from bursar.local.valkey import Valkey

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = "migrated"
_numbers = count(1)


@contextlib.contextmanager
def temporary_folder() -> Generator[Path]:
    """A folder that PostgreSQL's own user may pass through when we are root (pytest's tmp_path is 0700)."""
    folder = Path(tempfile.mkdtemp(prefix="bursar-test-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def running_postgres() -> Generator[Postgres]:
    """A PostgreSQL of one's own, empty, to use and to mistreat: kill(), stop_immediately(), start() again."""
    with temporary_folder() as folder:
        server = Postgres(folder / "postgres")
        try:
            server.start()
            yield server
        finally:
            server.delete()


@contextlib.contextmanager
def running_valkey() -> Generator[Valkey]:
    """A Valkey of one's own, empty, to use and to mistreat."""
    with temporary_folder() as folder:
        server = Valkey(folder / "valkey")
        try:
            server.start()
            yield server
        finally:
            server.kill()


def alembic_config(url: str) -> Config:
    """Alembic's configuration of this repository, for the database at `url`."""
    config = Config(str(ROOT / "alembic.ini"))
    config.attributes["url"] = url
    return config


def migrate(url: str, revision: str = "head") -> None:
    """Bring the database at `url` up to `revision`."""
    command.upgrade(alembic_config(url), revision)


def make_template(server: Postgres) -> str:
    """A migrated database to copy from; its name."""
    _administer(server, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
    migrate(server.url_of(TEMPLATE))
    return TEMPLATE


@contextlib.contextmanager
def fresh_database(server: Postgres, *, template: str | None = None) -> Generator[str]:
    """The URL of a new database, a copy of `template` or empty; dropped in the end, whoever is connected."""
    name = f"test_{next(_numbers)}"
    copied = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
        sql.Identifier(name), sql.Identifier(template or "template1")
    )
    _administer(server, copied)
    try:
        yield server.url_of(name)
    finally:
        if server.running:
            dropped = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            _administer(server, dropped)


def _administer(server: Postgres, statement: sql.Composed) -> None:
    with psycopg.connect(server.url_of("postgres"), autocommit=True, connect_timeout=5) as connection:
        connection.execute(statement)
