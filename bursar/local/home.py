"""The folder that a local stack lives in: who owns it, what it remembers, what it tells others."""

import contextlib
import fcntl
import os
import shlex
import shutil
from pathlib import Path

import psutil

from bursar.local.errors import LocalError
from bursar.local.places import LOOPBACK, port_is_free, write_private

# An empty PostgreSQL takes 60 MB, its write-ahead log up to 2 GB under load. Below this a start is no use.
FREE_DISK_BYTES = 256 * 1024 * 1024
LOG_BYTES = 10 * 1024 * 1024  # a log may have this much, and one older one beside it: days of ordinary talk


class Home:
    """`$BURSAR_HOME`: data, logs, remembered secrets and ports, and `local.env` while everything runs."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"
        self._lock: int | None = None

    def claim(self) -> None:
        """Make the folder and take it for this process. Raises LocalError if another runs here or it is full."""
        # As root, PostgreSQL's own user must pass through to its data; every secret in here is 0600 anyway.
        self.path.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
        self.logs.mkdir(mode=0o700, exist_ok=True)
        free = shutil.disk_usage(self.path).free
        if free < FREE_DISK_BYTES:
            raise LocalError(
                f"The disk is full: {free // 1024**2} MB are free under {self.path}, and Bursar needs "
                f"{FREE_DISK_BYTES // 1024**2} MB to start. Free some, or move the data with BURSAR_HOME."
            )
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(lock, 32).decode().strip()
            os.close(lock)
            raise LocalError(
                f"Bursar already runs on {self.path} (process {owner or 'unknown'}). "
                "Stop it first, or give this one a folder and a port of its own: BURSAR_HOME=… PORT=…"
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        self._lock = lock
        self.hide()  # what a killed predecessor left there is no longer true

    def release(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def log(self, name: str) -> Path:
        """The log of one part."""
        return self.logs / f"{name}.log"

    def tell(self, variables: dict[str, str]) -> None:
        """Write `local.env`, for shells to source and scripts to wait for: it is there once all is ready."""
        lines = (f"{name}={shlex.quote(value)}\n" for name, value in variables.items())
        write_private(self.path / "local.env", "".join(lines))

    def hide(self) -> None:
        """Remove `local.env`."""
        (self.path / "local.env").unlink(missing_ok=True)

    def bound_logs(self) -> None:
        """Keep each log near LOG_BYTES: set its content aside and begin again. Writers append, so they go on."""
        for log in self.logs.glob("*.log"):
            with contextlib.suppress(OSError):
                if log.stat().st_size > LOG_BYTES:
                    shutil.copyfile(log, log.with_suffix(".log.1"))
                    os.truncate(log, 0)


def require_free_port(port: int, *, host: str = LOOPBACK, remedy: str) -> None:
    """Raise LocalError if somebody listens on `port`, naming the process where the system tells it."""
    if not 1 <= port <= 65_535:
        raise LocalError(f"{port} is no port: it takes a number from 1 to 65535. {remedy}")
    if not port_is_free(port, host=host):
        raise LocalError(f"Port {port} is taken{_listener(port)}. {remedy}")


def _listener(port: int) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.pid and connection.laddr[1:] == (port,):
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return " by another process"
