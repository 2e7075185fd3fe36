"""deploy/pgbouncer: a real PgBouncer between an api, a worker and PostgreSQL, and what its other mode would break."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from bursar.local import processes
from bursar.local.places import any_free_port
from bursar.local.postgres import Postgres
from ledger import db
from ledger.deliveries import ENDPOINT_LOCKS
from tests import servers
from tests.crash.checks import assert_audit_clean
from tests.crash.service import Service, wait_for
from tests.crash.wire import Connection
from tests.deploy.places import REPOSITORY, system_program

INI = REPOSITORY / "deploy/pgbouncer/pgbouncer.ini"


class Bouncer:
    """deploy/pgbouncer/pgbouncer.ini, but for where things are; and `shared`, a database in transaction mode."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self._program = system_program("pgbouncer", package="pgbouncer")
        self.port = any_free_port()
        server = conninfo_to_dict(database_url)
        self._user, self._password = server["user"], server["password"]
        users = folder / "users.txt"
        users.write_text(f'"{self._user}" "{self._password}"\n')
        users.chmod(0o644)  # in a folder of this test alone; PgBouncer reads it as its own user
        place = f"host={server['host']} port={server['port']} dbname={server['dbname']}"
        text = INI.read_text()
        for pattern, replacement in (
            (r"(?m)^bursar = .*$", f"bursar = {place}\nshared = {place} pool_mode=transaction pool_size=1"),
            (r"(?m)^listen_addr = .*$", "listen_addr = 127.0.0.1\nunix_socket_dir ="),
            (r"(?m)^listen_port = .*$", f"listen_port = {self.port}"),
            (r"(?m)^auth_file = .*$", f"auth_file = {users}" + ("\nuser = nobody" if os.geteuid() == 0 else "")),
        ):
            text, times = re.subn(pattern, replacement, text)
            assert times == 1, pattern
        (folder / "pgbouncer.ini").write_text(text)
        self.log = folder / "pgbouncer.log"
        arguments = [self._program, str(folder / "pgbouncer.ini")]
        self._process = processes.spawn(arguments, log=self.log, at_owners_death=signal.SIGTERM)
        wait_for(self._answers, "PgBouncer to answer")

    def url_of(self, database: str) -> str:
        return f"postgresql://{self._user}:{self._password}@127.0.0.1:{self.port}/{database}"

    def _answers(self) -> bool:
        assert self._process.poll() is None, processes.tail(self.log)
        try:
            psycopg.connect(self.url_of("bursar"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        processes.stop(self._process, signals=[(signal.SIGTERM, 5.0)])


@pytest.fixture(scope="module")
def bouncer(postgres: Postgres, template: str) -> Iterator[Bouncer]:
    with servers.temporary_folder() as folder, servers.fresh_database(postgres, template=template) as url:
        bouncer = Bouncer(folder, url)
        yield bouncer
        bouncer.stop()


def both_own_an_endpoint(url: str) -> bool:
    """Whether two couriers' sessions both get the lock of one endpoint."""
    query = "SELECT pg_try_advisory_lock(%s::int, 1)"
    with psycopg.connect(url, autocommit=True) as one, psycopg.connect(url, autocommit=True) as other:
        answers = [each.execute(query, (ENDPOINT_LOCKS,)).fetchone() for each in (one, other)]
    return answers == [(True,), (True,)]


def test_an_endpoint_has_one_courier_in_session_mode_and_two_in_the_other(bouncer: Bouncer) -> None:
    assert not both_own_an_endpoint(bouncer.url_of("bursar"))
    assert both_own_an_endpoint(bouncer.url_of("shared")), "then the page's first row is wrong"


def test_a_session_has_its_limits_and_leaves_none_behind(bouncer: Bouncer) -> None:
    query = "SELECT current_setting('lock_timeout'), current_setting('enable_seqscan'), current_setting('jit')"
    with db.connect(bouncer.url_of("bursar"), application="test") as drain:
        assert drain.execute(query).fetchone() == ("5s", "off", "off")
    engine = db.engine(bouncer.url_of("bursar"), application="test")
    with engine.connect() as reads:
        assert reads.exec_driver_sql(query).one() == ("5s", "on", "off")
    engine.dispose()


@pytest.mark.timeout(120)
def test_an_api_and_a_worker_behind_it(bouncer: Bouncer, postgres: Postgres, tmp_path: Path) -> None:
    service = Service(tmp_path, postgres, bouncer.url_of("bursar"))
    try:
        service.workers = service.workers[:1]
        service.heal()
        tenant = service.new_tenant("gold")
        connection = Connection(service.api.port, tenant.key)
        body = {"type": "top_up", "wallet": "alice", "asset": "gold", "amount": "5"}
        headers = {"Idempotency-Key": "k-1", "Prefer": "wait=10"}
        answer = connection.request("POST", "/v1/commands", body, **headers)
        wallet = connection.request("GET", "/v1/wallets/alice")
        connection.close()
        assert answer.body["outcome"]["code"] == "applied", answer
        assert answer.body["outcome"]["task"] is not None, "drained for a doorbell"
        assert wallet.body["accounts"][0]["posted"] == "5"
        assert_audit_clean(service)
    finally:
        service.end()
