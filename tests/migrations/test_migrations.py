"""Migrations: one step each, back and forth on a database with data, and never a long wait for a lock."""

import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import LiteralString

import psycopg
import pytest
from alembic import command
from alembic.script import ScriptDirectory

from tests.books import Bank
from tests.servers import ROOT, alembic_config, migrate

SCRIPTS = ScriptDirectory.from_config(alembic_config("unused"))
REVISIONS = [script.revision for script in SCRIPTS.walk_revisions()][::-1]
HEAD = REVISIONS[-1]
STEP_TIMEOUT_S = 30


def revision_of(url: str) -> str | None:
    rows = ask(url, "SELECT version_num FROM alembic_version")
    return rows[0][0] if rows else None


def ask(url: str, query: LiteralString) -> list[tuple[str, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def everything_in(url: str) -> list[tuple[str, ...]]:
    """The schema as PostgreSQL knows it: columns, constraints, indexes, triggers, functions, options."""
    return ask(
        url,
        """
        SELECT 'column', table_name || '.' || column_name,
               concat_ws(' ', data_type, is_nullable, column_default, identity_generation)
        FROM information_schema.columns WHERE table_schema = 'public'
        UNION ALL SELECT 'constraint', conname, pg_get_constraintdef(oid) FROM pg_constraint
            WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT 'trigger', tgrelid::regclass || '.' || tgname, pg_get_triggerdef(oid) FROM pg_trigger
            WHERE NOT tgisinternal
        UNION ALL SELECT 'function', proname, pg_get_functiondef(oid) FROM pg_proc
            WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT 'options', relname, array_to_string(reloptions, ' ') FROM pg_class
            WHERE relnamespace = 'public'::regnamespace AND reloptions IS NOT NULL
        ORDER BY 1, 2, 3
        """,
    )


@contextmanager
def held(url: str, lock: LiteralString) -> Generator[None]:
    """Another session's lock, held for as long as the block takes."""
    with psycopg.connect(url) as connection:
        connection.execute(lock)
        yield
        connection.rollback()


def bursar_migrate(url: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bursar", "migrate", *arguments],
        cwd=ROOT,
        env={**os.environ, "BURSAR_DATABASE_URL": url, "BURSAR_REDIS_URL": "redis://unused"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_there_is_one_straight_line_of_migrations() -> None:
    assert SCRIPTS.get_heads() == [HEAD]
    assert SCRIPTS.get_bases() == [REVISIONS[0]]
    assert [int(revision) for revision in REVISIONS] == list(range(1, len(REVISIONS) + 1))


def test_each_migration_says_why_it_is_there() -> None:
    for script in SCRIPTS.walk_revisions():
        assert "Why:" in (script.module.__doc__ or ""), f"{script.revision} does not say why"


def test_from_nothing_to_the_tables_in_code(empty_database_url: str) -> None:
    migrate(empty_database_url)
    assert revision_of(empty_database_url) == HEAD
    command.check(alembic_config(empty_database_url))


def test_every_step_goes_back_to_where_it_came_from(empty_database_url: str) -> None:
    schemas: list[list[tuple[str, ...]]] = []
    for revision in REVISIONS:
        migrate(empty_database_url, "+1")
        assert revision_of(empty_database_url) == revision
        schemas.append(everything_in(empty_database_url))
    for revision, schema in zip(REVISIONS[-2::-1], schemas[-2::-1], strict=True):
        command.downgrade(alembic_config(empty_database_url), "-1")
        assert revision_of(empty_database_url) == revision
        assert everything_in(empty_database_url) == schema
    command.downgrade(alembic_config(empty_database_url), "base")
    left = [name for _, name, _ in everything_in(empty_database_url) if "alembic_version" not in name]
    assert left == []


def test_down_to_nothing_and_up_again_with_data(database_url: str) -> None:
    bank = Bank(database_url)
    bank.top_up("alice", 100)
    bank.spend("alice", 30)
    bank.spend("alice", 999)
    bank.order("transfer", "alice", 1, to_wallet="bob")
    bank.close()
    for _ in REVISIONS:
        command.downgrade(alembic_config(database_url), "-1")
    assert revision_of(database_url) is None
    migrate(database_url)
    bank = Bank(database_url)
    bank.top_up("alice", 5)
    assert bank.available("alice") == 5
    bank.assert_settled()
    bank.close()


def test_one_step_down_and_up_keeps_the_books(database_url: str) -> None:
    bank = Bank(database_url)
    bank.top_up("alice", 100)
    seq = bank.order("spend", "alice", 30)
    command.downgrade(alembic_config(database_url), "-1")
    migrate(database_url)
    assert bank.pending() == [seq]
    bank.drain()
    assert bank.available("alice") == 70
    bank.assert_settled()
    bank.close()


def test_a_lock_that_cannot_be_had_changes_nothing_and_is_said_in_a_sentence(empty_database_url: str) -> None:
    """The step that wants the lock is one transaction: half of its triggers would be worse than none."""
    migrate(empty_database_url, "0004")
    before = everything_in(empty_database_url)
    with held(empty_database_url, "LOCK TABLE entries IN ROW EXCLUSIVE MODE"):
        said, _ = (process := bursar_migrate(empty_database_url)).communicate(timeout=STEP_TIMEOUT_S)
    assert process.returncode == 1
    assert "nothing was changed" in said
    assert "Traceback" not in said
    assert everything_in(empty_database_url) == before
    assert revision_of(empty_database_url) == "0004"
    migrate(empty_database_url)


def test_two_at_once_migrate_once(empty_database_url: str) -> None:
    """Both are started behind a third one's lock, so that they meet."""
    with held(empty_database_url, "SELECT pg_advisory_xact_lock(0x62757273)"):
        both = [bursar_migrate(empty_database_url) for _ in range(2)]
        wait_for_waiting(empty_database_url, 2)
        assert everything_in(empty_database_url) == []
    said = [process.communicate(timeout=STEP_TIMEOUT_S)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert revision_of(empty_database_url) == HEAD
    assert ask(empty_database_url, "SELECT code FROM tenants") == [("default",)]


def wait_for_waiting(url: str, number: int) -> None:
    """Returns once so many sessions wait for an advisory lock."""
    query: LiteralString = """
        SELECT 'waits' FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'
    """
    deadline = time.monotonic() + STEP_TIMEOUT_S
    while len(ask(url, query)) < number:
        assert time.monotonic() < deadline, "nobody waits: several would migrate at once"
        time.sleep(0.05)


def test_the_command_line_goes_down_too(database_url: str) -> None:
    process = bursar_migrate(database_url, "--down", "--to", "0004")
    said, _ = process.communicate(timeout=STEP_TIMEOUT_S)
    assert process.returncode == 0, said
    assert revision_of(database_url) == "0004"


@pytest.mark.parametrize("number", [1, 3, 256])
def test_the_number_of_partitions_is_chosen_once(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setenv("BURSAR_PARTITIONS", str(number))
    migrate(empty_database_url)
    monkeypatch.setenv("BURSAR_PARTITIONS", "5")
    migrate(empty_database_url)
    partitions = ask(empty_database_url, "SELECT partition FROM partitions ORDER BY 1")
    assert partitions == [(partition,) for partition in range(number)]


@pytest.mark.parametrize("number", ["0", "-1", "257"])
def test_a_number_of_partitions_that_cannot_be_is_refused(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    monkeypatch.setenv("BURSAR_PARTITIONS", number)
    with pytest.raises(SystemExit, match="choose 1 to 256"):
        migrate(empty_database_url)
    assert revision_of(empty_database_url) == "0001"
