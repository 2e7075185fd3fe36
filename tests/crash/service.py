"""The whole service as real processes, each of which a test may kill and start again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg
import redis
from pydantic import SecretStr

from bursar.local import processes
from bursar.local.places import any_free_port
from bursar.local.postgres import Postgres
from bursar.local.valkey import Valkey
from ledger import db, keys
from ledger.partitions import partition_of
from runtime import base64url
from runtime.celery_app import DRAIN_TASK, KEY_PREFIX, make_celery, queue_name
from runtime.settings import Settings
from tests.crash.wire import Connection, Unanswered

SECRETS_KEY = base64url.encode(b"k" * base64url.KEY_BYTES)
START_S = 60.0  # a Python start takes two seconds, and many times that on a busy machine
PARTITIONS = 8
LOGS_TOLD, LOG_LINES, LOG_WIDTH = 8, 20, 400  # of a test that failed: what fits on a few screens
_numbers = count(1)


def wait_for(
    holds: Callable[[], object], what: str, *, within_s: float = 30.0, tell: Callable[[], str] = lambda: ""
) -> None:
    """Returns as soon as it holds; fails with `what`, and what `tell` has to say, where it does not in time."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:.0f} s: {what}. {tell()}")
        time.sleep(0.02)


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@dataclass(frozen=True)
class Tenant:
    """A tenant with one client and its key, so that no test sees another's commands."""

    id: int
    client_id: int
    key: str

    def partition(self, wallet: str) -> int:
        return partition_of(self.id, wallet, PARTITIONS)

    def wallets_in(self, partition: int, number: int, *, prefix: str) -> list[str]:
        """The names of some wallets whose commands are drained in this partition."""
        names = (f"{prefix}-{n}" for n in count())
        found = (name for name in names if self.partition(name) == partition)
        return [next(found) for _ in range(number)]


class Program:
    """One `bursar …`: started, killed, started again; a log of each life."""

    def __init__(self, service: "Service", name: str, *arguments: str, **environment: str) -> None:
        self.name = f"{name}-{next(_numbers)}"
        self.service = service
        self._arguments = arguments
        self._environment = environment
        self.lives = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._former: list[subprocess.Popen[bytes]] = []

    def spawn(self) -> None:
        """Start it and do not wait. From the main thread: its end is tied to ours."""
        assert not self.alive, f"{self.name} is running"
        self.lives += 1
        if self._process is not None:
            self._former.append(self._process)
        self._process = processes.spawn(
            [sys.executable, "-m", "bursar", *self._arguments],
            log=self.log,
            env=self.service.environment | self._environment,
            at_owners_death=signal.SIGKILL,
        )

    @property
    def log(self) -> Path:
        return self.service.folder / f"{self.name}.{self.lives}.log"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.name} was never started"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def freeze(self) -> None:
        """It stands still in whatever it was doing, until it is killed, or thawed."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """kill -9 to this process and none of its children; returns when it has ended."""
        self.process.kill()
        self.process.wait(START_S)

    def kill_group(self) -> None:
        """kill -9 to it and to all that it started, in this life and in former ones."""
        for process in (*self._former, *([self._process] if self._process else ())):
            processes.kill_group(process)

    def assert_alive(self) -> None:
        assert self.alive, f"{self.name} has ended by itself:\n{processes.tail(self.log)}"


class Api(Program):
    """`bursar api`, on the same port in each of its lives."""

    def __init__(self, service: "Service", **environment: str) -> None:
        self.port = any_free_port()
        super().__init__(service, "api", "api", BURSAR_PORT=str(self.port), **environment)

    def start(self) -> None:
        self.spawn()
        self.wait_ready()

    def wait_ready(self) -> None:
        wait_for(lambda: not self.alive or self._ready(), f"{self.name} to be ready", within_s=START_S)
        self.assert_alive()

    def _ready(self) -> bool:
        connection = Connection(self.port, "")
        try:
            return connection.request("GET", "/readyz").status == 200
        except Unanswered:
            return False
        finally:
            connection.close()


class Worker(Program):
    """`bursar worker`: Celery's parent, which talks to Redis, and one child, which drains."""

    def __init__(self, service: "Service", partitions: str | None = None) -> None:
        super().__init__(service, "worker", "worker", *(("--partitions", partitions) if partitions else ()))

    def start(self) -> None:
        self.spawn()
        self.wait_ready()

    def wait_ready(self) -> None:
        """It consumes doorbells."""
        wait_for(lambda: not self.alive or self._consumes(), f"{self.name} to be ready", within_s=START_S)
        self.assert_alive()

    def _consumes(self) -> bool:
        return " ready." in self.log.read_text()

    def children(self) -> list[psutil.Process]:
        """Those that live."""
        return [child for child in psutil.Process(self.pid).children() if lives(child)]


class Courier(Program):
    """`bursar worker --webhooks`: one process."""

    def __init__(self, service: "Service") -> None:
        super().__init__(service, "courier", "worker", "--webhooks")

    def start(self) -> None:
        self.spawn()
        self.wait_ready()

    def wait_ready(self) -> None:
        """It has its session."""
        wait_for(lambda: not self.alive or self._has_session(), f"{self.name} to be ready", within_s=START_S)
        self.assert_alive()

    def _has_session(self) -> bool:
        ports = {line.laddr.port for line in psutil.Process(self.pid).net_connections("tcp4")}
        query = "SELECT client_port FROM pg_stat_activity WHERE application_name = 'bursar-courier'"
        return any(port in ports for (port,) in self.service.rows(query))


class Redis(Valkey):
    """One that can stand still."""

    def freeze(self) -> None:
        """Connections stay open and connect; nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        with redis.Redis.from_url(self.url, socket_timeout=5) as client:
            client.flushall()

    def waiting_doorbells(self, partition: int) -> int:
        with redis.Redis.from_url(self.url, socket_timeout=5) as client:
            return client.llen(f"{KEY_PREFIX}{queue_name(partition)}")


class Service:
    """PostgreSQL, Valkey, an api and two workers. `heal` makes it whole again between tests."""

    def __init__(self, folder: Path, postgres: Postgres, database_url: str) -> None:
        self.folder = folder
        self.postgres = postgres
        self.database_url = database_url
        self.redis = Redis(folder / "valkey")
        self.redis.start()
        self._eye: psycopg.Connection[Any] | None = None
        self._programs: list[Program] = []
        self.api = self.add_api()
        self.workers = [self.add_worker(), self.add_worker()]

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BURSAR_", "PG"))}
        return kept | {
            "BURSAR_DATABASE_URL": self.database_url,
            "BURSAR_REDIS_URL": self.redis.url,
            "BURSAR_LOG_FORMAT": "json",
            "BURSAR_SECRETS_KEY": SECRETS_KEY,
            "BURSAR_WEBHOOK_ALLOWED_HOSTS": "127.0.0.0/8",
        }

    def add_api(self, **environment: str) -> Api:
        """One more, not started yet."""
        self._programs.append(api := Api(self, **environment))
        return api

    def add_worker(self, partitions: str | None = None) -> Worker:
        """One more, not started yet. `partitions`: serve only these."""
        self._programs.append(worker := Worker(self, partitions))
        return worker

    def add_courier(self) -> Courier:
        """One more, not started yet."""
        self._programs.append(courier := Courier(self))
        return courier

    def heal(self) -> None:
        """Everything runs that a test may expect to run."""
        self.postgres.start()
        self.redis.start()
        standing = [self.api, *self.workers]
        for program in standing:
            if not program.alive:
                program.spawn()
        for program in standing:
            program.wait_ready()

    def dismiss(self, program: Program) -> None:
        """End a program that only one test wanted."""
        program.kill_group()
        self._programs.remove(program)

    def restart_dead_workers(self) -> None:
        for worker in self.workers:
            if not worker.alive:
                worker.spawn()

    def kill_workers(self) -> None:
        """kill -9 to every process of every worker."""
        for worker in self.workers:
            worker.kill_group()

    def end(self) -> None:
        for program in self._programs:
            program.kill_group()
        self.redis.kill()
        if self._eye is not None:
            self._eye.close()

    # --- looking, and preparing -----------------------------------------------------------------------------------

    def rows(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """On a connection that is made again when PostgreSQL was."""
        if self._eye is not None:
            try:
                return self._eye.execute(query, values or None).fetchall()
            except psycopg.OperationalError:
                self._eye.close()
        self._eye = psycopg.connect(self.database_url, autocommit=True, connect_timeout=5)
        return self._eye.execute(query, values or None).fetchall()

    def new_tenant(self, asset: str) -> Tenant:
        code = f"game-{next(_numbers)}"
        [(tenant_id,)] = self.rows("INSERT INTO tenants (code) VALUES (%s) RETURNING id", code)
        engine = db.engine(self.database_url, application="crash-test")
        try:
            key = keys.create_key(engine, env="test", client="players", scopes={keys.Scope.ADMIN}, tenant=code)
        finally:
            engine.dispose()
        [(client_id,)] = self.rows("SELECT id FROM clients WHERE tenant_id = %s", tenant_id)
        connection = Connection(self.api.port, key)
        try:
            made = connection.request("POST", "/v1/assets", {"code": asset, "name": asset, "scale": 0})
        finally:
            connection.close()
        assert made.status == 201, made
        return Tenant(tenant_id, client_id, key)

    def pending(self, tenant: Tenant) -> int:
        query = "SELECT count(*) FROM pending JOIN commands USING (seq) WHERE tenant_id = %s"
        [(number,)] = self.rows(query, tenant.id)
        return number

    def commands(self, tenant: Tenant) -> int:
        [(number,)] = self.rows("SELECT count(*) FROM commands WHERE tenant_id = %s", tenant.id)
        return number

    def ring(self, partition: int, *, times: int) -> None:
        """Doorbells past the flag that makes all but the first of them free."""
        # The other settings come from the environment.
        given = {"database_url": SecretStr(""), "redis_url": SecretStr(self.redis.url)}
        celery = make_celery(Settings(**given), partitions=PARTITIONS)  # pyright: ignore[reportArgumentType]
        for _ in range(times):
            celery.send_task(DRAIN_TASK, args=(partition,), queue=queue_name(partition), ignore_result=True)
        celery.close()

    def run(self, command: str) -> int:
        """The exit code of `bursar <command>`."""
        program = Program(self, command, command)
        self._programs.append(program)
        program.spawn()
        return program.process.wait(START_S)

    def last_words(self) -> str:
        """The ends of all logs, for whoever must find out why a test failed."""
        logs = sorted(self.folder.rglob("*.log"), key=lambda log: log.stat().st_mtime)[-LOGS_TOLD:]
        tails = {log.name: processes.tail(log, lines=LOG_LINES).splitlines() for log in logs}
        return "\n".join(f"--- {name}\n" + "\n".join(line[:LOG_WIDTH] for line in tails[name]) for name in tails)
