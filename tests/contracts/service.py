"""The service under test: `bursar api` and `bursar worker` as processes of their own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, LiteralString

import httpx2
import psycopg

from bursar.local import processes
from bursar.local.places import any_free_port
from bursar.local.postgres import Postgres
from ledger import db
from ledger.audit import audit
from ledger.commands import LEDGER_CLIENT
from ledger.inbox import PARTITION_LOCKS
from ledger.keys import Scope, create_key
from ledger.tenants import DEFAULT_TENANT, create_tenant
from tests import servers
from tests.contracts.answers import Contract

READY_S = 40.0  # a Python start takes a second or two; a busy machine several times that
STOP_SIGNALS = ((signal.SIGTERM, 10.0),)


@contextlib.contextmanager
def running(postgres: Postgres, template: str, **environment: str) -> Generator["Service"]:
    """A service of one's own, with these settings. In the end its books balance, and its logs hold no surprise."""
    with (
        servers.fresh_database(postgres, template=template) as database_url,
        servers.running_valkey() as valkey,
        servers.temporary_folder() as folder,
    ):
        service = Service(folder, database_url=database_url, redis_url=valkey.url, environment=environment)
        try:
            service.start()
            yield service
            service.assert_sound()
        finally:
            service.stop()


class Service:
    """One api and one worker on a migrated database; their logs are in `folder`."""

    def __init__(
        self, folder: Path, *, database_url: str, redis_url: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.environment = environment or {}
        self.database_url = database_url
        self.redis_url = redis_url
        self.port = any_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.contract = Contract()
        self._sql = psycopg.connect(database_url, autocommit=True)
        self._api: subprocess.Popen[bytes] | None = None
        self._worker: subprocess.Popen[bytes] | None = None
        self._courier: subprocess.Popen[bytes] | None = None

    # --- processes -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._worker = self._spawn("worker")
        self.start_api()

    def start_api(self) -> None:
        """Returns once it is ready."""
        self._api = self._spawn("api")
        assert processes.wait_until(self._is_ready, timeout_s=READY_S), self.log("api")[-3000:]
        self.contract.load(httpx2.get(f"{self.url}/openapi.json").json())

    def start_courier(self) -> None:
        self._courier = self._spawn("worker", "--webhooks")

    def stop_api(self) -> None:
        assert self._api is not None
        processes.stop(self._api, signals=STOP_SIGNALS)

    def stop(self) -> None:
        """At once: nobody needs the data any more."""
        for process in (self._api, self._worker, self._courier):
            if process is not None:
                processes.kill_group(process)
        self._sql.close()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def _is_ready(self) -> bool:
        assert self._api is not None
        assert self._api.poll() is None, self.log("api")[-3000:]
        with contextlib.suppress(httpx2.HTTPError):
            return httpx2.get(f"{self.url}/readyz", timeout=2).status_code == 200
        return False

    def _spawn(self, *command: str) -> subprocess.Popen[bytes]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BURSAR_", "PG"))}
        own = {
            "BURSAR_DATABASE_URL": self.database_url,
            "BURSAR_REDIS_URL": self.redis_url,
            "BURSAR_HOST": "127.0.0.1",
            "BURSAR_PORT": str(self.port),
            "BURSAR_LOG_FORMAT": "json",
            **self.environment,
        }
        argv = [sys.executable, "-m", "bursar", *command]
        log = self.folder / f"{''.join(command)}.log"
        return processes.spawn(argv, log=log, env=inherited | own, at_owners_death=signal.SIGTERM)

    # --- behind the scenes ---------------------------------------------------------------------------------------

    def new_key(self, client: str, *scopes: Scope, tenant: str = DEFAULT_TENANT) -> str:
        """An API key of this client; of all scopes unless some are named."""
        engine = db.engine(self.database_url, application="test-keys")
        try:
            create_tenant(engine, tenant)
            return create_key(engine, env="test", client=client, scopes=scopes or [Scope.ADMIN], tenant=tenant)
        finally:
            engine.dispose()

    def one(self, query: LiteralString, *values: object) -> Any:
        """The one value of the one row."""
        ((value,),) = self._sql.execute(query, values or None).fetchall()
        return value

    def stored(self) -> int:
        """Commands ever accepted from clients, and how far their numbers have come is not asked: a refusal may cost a
        number."""
        return self.one("SELECT count(*) FROM commands WHERE client_id <> %s", LEDGER_CLIENT)

    def settle(self) -> None:
        """Returns when nothing is pending."""
        assert processes.wait_until(lambda: self.one("SELECT count(*) FROM pending") == 0, timeout_s=20)

    @contextlib.contextmanager
    def drains_held(self) -> Generator[None]:
        """No command gets its outcome meanwhile, as if every worker were down: we hold each partition's lock."""
        self.settle()
        with psycopg.connect(self.database_url, autocommit=True) as holder:
            holder.execute("SELECT pg_advisory_lock(%s, partition) FROM partitions", (PARTITION_LOCKS,))
            yield

    def metric(self, name: str) -> float:
        """A figure of /metrics, as in `bursar_commands_total{result="accepted"}`."""
        exposition = httpx2.get(f"{self.url}/metrics").text
        (found,) = re.findall(rf"^{re.escape(name)} (\S+)$", exposition, re.MULTILINE)
        return float(found)

    def wait_for_metric(self, name: str, value: float, *, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while (found := self.metric(name)) != value:
            assert time.monotonic() < deadline, f"{name} is {found} after {within_s} s, not {value}"
            time.sleep(0.1)

    def assert_sound(self) -> None:
        """The books balance, and neither process met anything that it did not expect."""
        self.settle()
        engine = db.engine(self.database_url, application="test-audit")
        try:
            broken = [finding for finding in audit(engine) if not finding.holds]
        finally:
            engine.dispose()
        assert not broken, broken
        for name in ("api", "worker"):
            surprises = [
                line for line in self.log(name).splitlines() if "Traceback" in line or '"level": "error"' in line
            ]
            assert not surprises, f"{name}: {surprises[0][:2000]}"
