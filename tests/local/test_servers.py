"""PostgreSQL and Valkey of our own: what they survive, and what they say when they cannot."""

import errno
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Generator
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
import redis

from bursar.local.errors import LocalError, sentence_for
from bursar.local.home import FREE_DISK_BYTES, Home
from bursar.local.places import write_private
from bursar.local.postgres import Postgres
from bursar.local.valkey import Valkey
from tests import servers


@pytest.fixture
def folder() -> Generator[Path]:
    with servers.temporary_folder() as path:
        yield path


@pytest.fixture
def server() -> Generator[Postgres]:
    with servers.running_postgres() as running:
        yield running


@pytest.fixture
def stopped(folder: Path) -> Generator[Postgres]:
    """A server that ran once and was stopped."""
    once = Postgres(folder / "postgres")
    once.start()
    once.stop()
    yield once
    once.delete()


def data_of(server: Postgres) -> Path:
    return server.folder / "cluster" / "data"


def note_something(server: Postgres) -> None:
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE notes AS SELECT 'kept' AS note")


def noted(server: Postgres) -> str:
    with psycopg.connect(server.url) as connection:
        row = connection.execute("SELECT note FROM notes").fetchone()
    assert row is not None
    return row[0]


def test_commits_are_durable_and_come_back_after_a_crash_on_the_same_port(server: Postgres) -> None:
    with psycopg.connect(server.url) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert connection.execute(f"SHOW {setting}".encode()).fetchone() == ("on",)
    note_something(server)
    port = server.port
    server.kill()
    server.start()
    assert (noted(server), server.port) == ("kept", port)
    server.stop_immediately()
    server.start()
    assert noted(server) == "kept"


def test_only_the_password_opens_it_and_only_we_can_read_the_password(server: Postgres) -> None:
    assert (server.folder / "password").stat().st_mode & 0o777 == 0o600
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(re.sub(":[0-9a-f]+@", ":guess@", server.url))
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(re.sub(":[0-9a-f]+@", "@", server.url))


def test_a_stale_pid_file_with_a_living_process_in_it_does_not_stop_a_start(server: Postgres) -> None:
    note_something(server)
    data = data_of(server)
    live = (data / "postmaster.pid").read_text()
    server.kill()
    sleeper = subprocess.Popen(["sleep", "60"], user=(data.stat().st_uid if os.geteuid() == 0 else None))
    try:
        (data / "postmaster.pid").write_text(re.sub(r"^\d+", str(sleeper.pid), live))
        shutil.chown(data / "postmaster.pid", data.stat().st_uid, data.stat().st_gid)
        server.start()
        assert noted(server) == "kept"
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_second_server_on_the_same_data_is_refused_and_the_first_lives_on(server: Postgres) -> None:
    note_something(server)
    with pytest.raises(LocalError, match="already runs"):
        Postgres(server.folder).start()
    assert noted(server) == "kept"


def test_a_half_made_data_folder_is_made_anew(stopped: Postgres) -> None:
    (data_of(stopped) / "global" / "pg_control").unlink()
    data_of(stopped).rename(data_of(stopped).with_name("data.unfinished"))
    stopped.start()
    assert stopped.run_sql("SELECT 1") == [(1,)]


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda data: (data / "PG_VERSION").write_text("17\n"), "data of PostgreSQL 17"),
        (lambda data: (data / "PG_VERSION").unlink(), "a broken data folder"),
        (lambda data: (data / "global" / "pg_control").unlink(), "a broken data folder"),
        (lambda data: (data / "global" / "pg_control").write_bytes(b"\0" * 8192), "Its last words"),
    ],
)
def test_data_that_cannot_be_used_are_refused_with_a_sentence_and_left_alone(
    stopped: Postgres, harm: Callable[[Path], object], sentence: str
) -> None:
    harm(data_of(stopped))
    before = sorted(path.name for path in data_of(stopped).iterdir())
    with pytest.raises(LocalError, match=sentence):
        stopped.start()
    assert not stopped.running
    assert sorted(path.name for path in data_of(stopped).iterdir()) == before


def test_a_password_of_other_data_is_named(stopped: Postgres) -> None:
    write_private(stopped.folder / "password", "another")
    with pytest.raises(LocalError, match="belongs to other data"):
        stopped.start()
    assert not stopped.running


def test_a_remembered_port_that_somebody_took_is_replaced(stopped: Postgres) -> None:
    port = stopped.port
    with socket.create_server(("127.0.0.1", port)):
        stopped.start()
        assert stopped.port != port
        assert stopped.run_sql("SELECT 1") == [(1,)]


def test_it_starts_in_a_folder_that_only_we_can_enter(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    server = Postgres(closed / ("long" * 20) / "postgres")  # longer than a unix socket's path may be
    try:
        server.start()
        note_something(server)
        server.stop()
        server.start()
        assert noted(server) == "kept"
    finally:
        server.delete()


def test_a_server_left_over_is_found_and_stopped(server: Postgres) -> None:
    process = server.process
    assert process is not None
    assert Postgres(server.folder).stop_leftover() == process.pid
    assert process.wait(10) == 0  # a fast stop, not a kill
    assert Postgres(server.folder).stop_leftover() is None


@pytest.fixture
def valkey_in(folder: Path) -> Generator[Valkey]:
    server = Valkey(folder / "valkey")
    server.start()
    yield server
    server.kill()


def test_valkey_keeps_its_queues_through_a_kill_and_asks_for_a_password(valkey_in: Valkey) -> None:
    with redis.Redis.from_url(valkey_in.url) as client:
        client.set("bell", "rung")
        client.execute_command("WAITAOF", 1, 0, 5000)
    with redis.Redis(port=valkey_in.port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.get("bell")
    valkey_in.kill()
    valkey_in.start()
    with redis.Redis.from_url(valkey_in.url) as client:
        assert client.get("bell") == b"rung"
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_valkey_sets_an_unreadable_file_aside_and_starts_empty(valkey_in: Valkey) -> None:
    valkey_in.stop()
    for part in (valkey_in.folder / "data" / "appendonlydir").iterdir():
        part.write_bytes(b"*not an append-only file\r\n" * 40)
    valkey_in.start()
    assert "unreadable" in valkey_in.note
    assert list(valkey_in.folder.glob("data.broken-*"))
    with redis.Redis.from_url(valkey_in.url) as client:
        assert client.ping()


def test_a_full_disk_and_a_forbidden_folder_are_named() -> None:
    assert "disk is full" in sentence_for(OSError(errno.ENOSPC, "no space", "/data/x"), doing="PostgreSQL")
    assert "No permission" in sentence_for(OSError(errno.EACCES, "denied", "/data/x"), doing="PostgreSQL")


def test_a_start_needs_some_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=FREE_DISK_BYTES - 1))
    with pytest.raises(LocalError, match="The disk is full: 255 MB are free"):
        Home(folder / "home").claim()


def test_logs_stay_bounded_under_a_writer_that_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bursar.local.home.LOG_BYTES", 1000)
    home = Home(folder / "home")
    home.claim()
    with home.log("api").open("ab", buffering=0) as writer:
        writer.write(b"old\n" * 300)
        home.bound_logs()
        writer.write(b"new\n")
        assert home.log("api").read_bytes() == b"new\n"
        assert home.log("api").with_suffix(".log.1").read_bytes() == b"old\n" * 300
    home.release()
