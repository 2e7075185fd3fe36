"""The servers under test: our own, started from nothing and deleted afterwards, or ones that run already."""

import http.client
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bursar.local import processes
from bursar.local.places import any_free_port
from bursar.local.postgres import Postgres
from bursar.local.valkey import Valkey
from ledger import db, keys
from ledger.audit import audit as books_audit
from runtime import base64url

READY_S = 60.0  # a Python start takes a second or two; a busy machine several times that
MIGRATE_S = 120.0  # an empty database takes a second
STOP_SIGNALS = ((signal.SIGTERM, 15.0),)  # time enough to end a drain; then SIGKILL, which loses nothing
HTTP_S = 10.0
POLL_S = 0.1
METRICS_PORTS = 8  # one for each worker process, and some that others may have taken


class StackError(Exception):
    """The servers under test cannot be used; the sentence says why."""


class Target:
    """Where the load goes: an api, a key for it, and where known the database behind it."""

    def __init__(self, *, url: str, api_key: str, database_url: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise StackError(f"{url} is no address the load generators can reach: they speak plain http only")
        self.host = parts.hostname
        self.port = parts.port or 80
        self.api_key = api_key
        self.database_url = database_url

    def request(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """One JSON request outside of any load: (status, body). Raises StackError when nobody answers."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=HTTP_S)
        headers = {"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise StackError(f"{method} {path} at {self.host}:{self.port} failed: {error}") from error
        finally:
            connection.close()

    def make_asset(self, code: str) -> None:
        """An asset of the bench's own. One that is there already serves as well."""
        status, answer = self.request("POST", "/v1/assets", {"code": code, "name": "Bench credits", "scale": 0})
        if status not in (200, 201, 409):
            raise StackError(f"the asset {code} could not be made: {status} {answer}")


class OwnStack:
    """PostgreSQL, Valkey, one api and workers of our own under `folder`, on free ports."""

    def __init__(self, folder: Path, *, workers: int) -> None:
        self.folder = folder
        # Commit times tell exactly when an outcome became visible; they cost a few bytes a transaction, and the
        # floor is measured under the same setting.
        self.postgres = Postgres(folder / "postgres", settings={"track_commit_timestamp": "on"})
        self.valkey = Valkey(folder / "valkey")
        self.workers = workers
        self._api: subprocess.Popen[bytes] | None = None
        self._workers: list[subprocess.Popen[bytes]] = []
        self._courier: subprocess.Popen[bytes] | None = None
        self._secrets_key = base64url.encode(secrets.token_bytes(base64url.KEY_BYTES))
        self._port = 0
        self._metrics_port = 0  # the first of METRICS_PORTS

    def start_databases(self) -> None:
        self.postgres.start()
        self.valkey.start()
        self._port, self._metrics_port = any_free_port(), any_free_port()
        self._migrate()

    def start_services(self) -> Target:
        """The api and the workers. Returns once the api is ready; what is accepted early is drained later."""
        api_key = _make_key(self.postgres.url)
        self._api = self._spawn("api", "api")
        target = Target(url=f"http://127.0.0.1:{self._port}", api_key=api_key, database_url=self.postgres.url)
        self._wait_ready(target, self._api)
        self.start_workers(self.workers)
        return target

    def start_workers(self, count: int) -> None:
        first = len(self._workers) + 1
        self._workers += [self._spawn("worker", f"worker-{number}") for number in range(first, first + count)]

    def stop_workers(self) -> None:
        for worker in self._workers:
            processes.stop(worker, signals=STOP_SIGNALS)
        self._workers.clear()

    def start_courier(self) -> None:
        self._courier = self._spawn("worker", "courier", "--webhooks")

    def stop_courier(self) -> None:
        if self._courier is not None:
            processes.stop(self._courier, signals=STOP_SIGNALS)
            self._courier = None

    def roots(self) -> Mapping[str, list[int]]:
        """The processes of each role, by the one that started the others."""
        return {
            "api": _pids([self._api]),
            "worker": _pids(self._workers),
            "courier": _pids([self._courier]),
            "postgres": _pids([self.postgres.process]),
            "valkey": _pids([self.valkey.process]),
        }

    def worker_metrics(self) -> list[str]:
        """Where a worker process may show its metrics: nobody may be there."""
        return [f"http://127.0.0.1:{self._metrics_port + number}/metrics" for number in range(METRICS_PORTS)]

    def dead(self) -> list[str]:
        """Which servers have ended though nobody stopped them."""
        named = {"api": self._api} | {f"worker {n}": worker for n, worker in enumerate(self._workers, start=1)}
        named |= {"courier": self._courier}
        named |= {"postgres": self.postgres.process, "valkey": self.valkey.process}
        return [name for name, process in named.items() if process is not None and process.poll() is not None]

    def stop(self, *, keep: bool = False) -> None:
        """Stop everything, whatever state it is in, and delete its data unless they are to be kept."""
        self.stop_workers()
        self.stop_courier()
        if self._api is not None:
            processes.stop(self._api, signals=STOP_SIGNALS)
        self.valkey.kill()
        if keep:
            self.postgres.stop()
        else:
            self.postgres.delete()

    def log_tail(self) -> str:
        """The last words of the services, for whoever must find out why they failed."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in logs)

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BURSAR_", "PG"))}
        return kept | {
            "BURSAR_DATABASE_URL": self.postgres.url,
            "BURSAR_REDIS_URL": self.valkey.url,
            "BURSAR_HOST": "127.0.0.1",
            "BURSAR_PORT": str(self._port),
            "BURSAR_SECRETS_KEY": self._secrets_key,
            "BURSAR_WEBHOOK_ALLOWED_HOSTS": "127.0.0.1",
            "BURSAR_METRICS_PORTS": f"{self._metrics_port}-{self._metrics_port + METRICS_PORTS - 1}",
            "BURSAR_LOG_LEVEL": "warning",
            "BURSAR_LOG_FORMAT": "json",
            processes.STACK_MARK: str(self.folder),
        }

    def _spawn(self, command: str, log: str, *options: str) -> subprocess.Popen[bytes]:
        return processes.spawn(
            [sys.executable, "-m", "bursar", command, *options],
            log=self.folder / f"{log}.log",
            env=self._environment(),
            at_owners_death=signal.SIGTERM,
        )

    def _migrate(self) -> None:
        ran = subprocess.run(
            [sys.executable, "-m", "bursar", "migrate"],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=MIGRATE_S,
            check=False,
        )
        if ran.returncode != 0:
            raise StackError(f"bursar migrate failed ({ran.returncode}):\n{ran.stdout[-1500:]}{ran.stderr[-1500:]}")

    def _wait_ready(self, target: Target, api: subprocess.Popen[bytes]) -> None:
        deadline_s = time.monotonic() + READY_S
        while time.monotonic() < deadline_s and api.poll() is None:
            try:
                status, _ = target.request("GET", "/readyz")
            except StackError:
                status = 0
            if status == 200:
                return
            time.sleep(POLL_S)
        raise StackError(f"the api did not become ready\n{self.log_tail()}")


def audit(database_url: str) -> str:
    """What `bursar audit` finds on this database: `clean`, or each invariant that does not hold."""
    engine = db.engine(database_url, application="bursar-bench-audit", statement_timeout_ms=0)
    try:
        broken = [finding for finding in books_audit(engine) if not finding.holds]
    finally:
        engine.dispose()
    return "; ".join(f"broken: {finding.name}: {finding.breaches[:3]}" for finding in broken) or "clean"


def _make_key(database_url: str) -> str:
    engine = db.engine(database_url, application="bursar-bench")
    try:
        return keys.create_key(engine, env="bench", client="bench", scopes={keys.Scope.ADMIN})
    finally:
        engine.dispose()


def _pids(started: list[subprocess.Popen[bytes] | None] | list[subprocess.Popen[bytes]]) -> list[int]:
    return [process.pid for process in started if process is not None]
