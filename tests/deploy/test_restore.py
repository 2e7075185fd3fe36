"""The restore drill: a base backup and the archived log of a server in use, brought back to a moment in time."""

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bursar.local.places import private_folder
from bursar.local.postgres import Postgres, programs
from bursar.local.processes import unprivileged_account
from tests import servers
from tests.crash.checks import assert_audit_clean, settle
from tests.crash.service import Service, Tenant, wait_for
from tests.crash.wire import Connection
from tests.deploy.places import REPOSITORY

ASSET = "gold"
WALLETS = 5
STEP = 60  # commands between two steps; above the 32 numbers that PostgreSQL may skip in a sequence when it recovers
SCRIPTS = REPOSITORY / "deploy/backup"


class Poster(threading.Thread):
    """A client that tops up by one, again and again, with keys that it remembers."""

    def __init__(self, service: Service, tenant: Tenant) -> None:
        super().__init__(daemon=True)
        self.accepted: list[str] = []
        self._connection = Connection(service.api.port, tenant.key)
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.wait(0.01):
            key = f"k-{len(self.accepted)}"
            if top_up(self._connection, key) == 202:
                self.accepted.append(key)

    def more(self) -> None:
        goal = len(self.accepted) + STEP
        wait_for(lambda: len(self.accepted) >= goal, f"{STEP} more commands")

    def stop(self) -> None:
        self._end.set()
        self.join(10)
        self._connection.close()


def top_up(connection: Connection, key: str) -> int:
    wallet = f"w-{int(key.removeprefix('k-')) % WALLETS}"
    body = {"type": "top_up", "wallet": wallet, "asset": ASSET, "amount": "1"}
    return connection.request("POST", "/v1/commands", body, **{"Idempotency-Key": key}).status


@pytest.fixture
def archived(folder: Path) -> Iterator[Postgres]:
    """A PostgreSQL that archives its log to `folder`/wal."""
    account = unprivileged_account(folder)
    private_folder(folder / "wal", account)
    script = folder / "archive-wal"  # where PostgreSQL's own user may run it
    shutil.copy(SCRIPTS / "archive-wal", script)
    settings = {"archive_mode": "on", "archive_command": f'{script} "%p" "{folder}/wal/%f"'}
    server = Postgres(folder / "postgres", settings=settings)
    try:
        server.start()
        with (folder / "postgres/cluster/data/pg_hba.conf").open("a") as rules:
            rules.write("host replication bursar 127.0.0.1/32 scram-sha-256\n")
        server.run_sql("SELECT pg_reload_conf()")
        servers.migrate(server.url)
        yield server
    finally:
        server.delete()


def run(script: str, *arguments: object) -> None:
    environment = os.environ | {"PATH": f"{programs()}:{os.environ['PATH']}"}
    done = subprocess.run(
        [SCRIPTS / script, *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def all_archived(server: Postgres) -> None:
    """Returns when all that has been written by now is in the archive."""
    [(name,)] = server.run_sql("SELECT pg_walfile_name(pg_switch_wal())")
    wait_for(
        lambda: server.run_sql("SELECT last_archived_wal FROM pg_stat_archiver")[0][0] == name, "the log to be archived"
    )


def restored(base: Path, wal: Path, folder: Path, lost: Postgres, *, to: object) -> Postgres:
    folder.mkdir(mode=0o711)
    shutil.copy(lost.folder / "password", folder / "password")
    account = unprivileged_account(folder)
    cluster = private_folder(folder / "cluster", account)
    run("restore", base, wal, cluster / "data", to)
    if account is not None:
        subprocess.run(["chown", "-R", f"{account.uid}:{account.gid}", cluster], check=True, timeout=30)
    server = Postgres(folder)
    server.start()
    wait_for(lambda: server.run_sql("SELECT pg_is_in_recovery()") == [(False,)], "the end of the recovery")
    return server


def keys_of(service: Service) -> set[str]:
    return {key for (key,) in service.rows("SELECT idempotency_key FROM commands")}


@pytest.mark.timeout(240)
def test_a_ledger_comes_back_as_it_was_at_a_moment(archived: Postgres, folder: Path, tmp_path: Path) -> None:
    before = Service(tmp_path, archived, archived.url)
    try:
        before.workers = before.workers[:1]
        before.heal()
        tenant = before.new_tenant(ASSET)
        poster = Poster(before, tenant)
        poster.start()
        poster.more()
        run("base-backup", archived.url_of("postgres"), folder / "base")
        poster.more()
        [(moment, seen)] = before.rows("SELECT clock_timestamp(), array_agg(idempotency_key) FROM commands")
        poster.more()
        poster.stop()
        settle(before, tenant)
        connection = Connection(before.api.port, tenant.key)
        cursor = connection.request("GET", "/v1/outcomes").body["next_cursor"]
        connection.close()
        everything = keys_of(before)
        all_archived(archived)
    finally:
        before.end()
    archived.kill()

    server = restored(folder / "base", folder / "wal", folder / "restored", archived, to=moment)
    (tmp_path / "after").mkdir()
    after = Service(tmp_path / "after", server, server.url)
    try:
        came_back = keys_of(after)
        assert set(seen) <= came_back < everything
        assert len(everything - came_back) >= STEP - 1  # one was on its way at that moment
        assert after.run("migrate") == 0
        assert_audit_clean(after)

        after.workers = after.workers[:1]
        after.heal()
        settle(after, tenant)
        connection = Connection(after.api.port, tenant.key)
        told = connection.request("GET", f"/v1/outcomes?after={cursor}")
        assert (told.status, told.body["code"]) == (410, "cursor_expired")
        assert "ahead of this database" in told.body["detail"]

        # Clients that send all again lose nothing and get nothing twice.
        assert {top_up(connection, key) for key in poster.accepted} == {200, 202}
        connection.close()
        settle(after, tenant)
        assert keys_of(after) == set(poster.accepted) == everything
        [(total,)] = after.rows("SELECT sum(a.posted)::int FROM accounts a JOIN wallets w ON w.id = a.wallet_id "
                                "WHERE w.code LIKE 'w-%%'")  # fmt: skip
        assert total == len(poster.accepted)
        assert_audit_clean(after)
    finally:
        after.end()
        server.delete()


def test_the_archive_never_loses_a_file_it_has(tmp_path: Path) -> None:
    segment, kept = tmp_path / "segment", tmp_path / "kept"
    segment.write_text("log")
    archive = [SCRIPTS / "archive-wal", segment, kept]
    assert subprocess.run(archive, check=False, timeout=10).returncode == 0
    assert subprocess.run(archive, check=False, timeout=10).returncode == 0, "the same again, after a crash"
    segment.write_text("of another server")
    assert subprocess.run(archive, check=False, timeout=10).returncode != 0
    assert kept.read_text() == "log"


def test_a_restore_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = subprocess.run(
        [SCRIPTS / "restore", tmp_path, tmp_path, tmp_path / "data"], capture_output=True, check=False, timeout=10
    )
    assert done.returncode != 0
    assert list((tmp_path / "data").iterdir()) == []
