"""Files, secrets and ports: small things that must be right."""

import contextlib
import hashlib
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from bursar.local.errors import LocalError
from bursar.local.processes import Account

LOOPBACK = "127.0.0.1"
# Where PostgreSQL's data goes when we are root and its user cannot reach the folder asked for (say /root/x).
REACHABLE = Path("/var/lib/bursar")


def write_private(path: Path, text: str) -> None:
    """Write a file that only we can read, whole or not at all, and durably."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def remembered_secret(path: Path, *, make: Callable[[], str] = lambda: secrets.token_hex(24)) -> str:
    """The secret in `path`, made at first. Unless told otherwise, letters and digits only: it stands in URLs."""
    with contextlib.suppress(FileNotFoundError):
        if known := path.read_text().strip():
            return known
    write_private(path, make())
    return path.read_text().strip()


def port_is_free(port: int, *, host: str = LOOPBACK) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no obstacle
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def any_free_port() -> int:
    """A loopback port that nobody uses now. Somebody may take it before we do: the caller tries again.

    From below the range that systems give to outgoing connections: one of those could hold it at a restart.
    """
    for _ in range(100):  # ten thousand ports, hardly any in use: the first try is nearly always free
        port = 20_000 + secrets.randbelow(10_000)
        if port_is_free(port):
            return port
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def remembered_port(path: Path, *, preferred: int | None = None) -> int:
    """The port noted in `path` if it is still free, else the preferred or another one, noted there."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        known = int(path.read_text())
        if 1024 <= known <= 65_535 and port_is_free(known):
            return known
    chosen = preferred if preferred is not None and port_is_free(preferred) else any_free_port()
    write_private(path, f"{chosen}\n")
    return chosen


def may_enter(directory: Path, account: Account) -> bool:
    """Whether `account` can reach `directory` through all of its parents."""
    probe = subprocess.run(
        ["/bin/sh", "-c", 'cd "$1"', "sh", str(directory)],
        cwd="/",
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        capture_output=True,
        timeout=10,
        check=False,
    )
    return probe.returncode == 0


def private_folder(wanted: Path, account: Account | None) -> Path:
    """Make a folder that belongs to `account` alone (to us, if None).

    Where the account cannot reach it, `wanted` becomes a link to a folder under /var/lib/bursar.
    """
    if wanted.is_dir():
        _give(wanted.resolve(), account)  # a killed predecessor may have made it and got no further
        if account is not None and not may_enter(wanted.resolve(), account):
            raise LocalError(f"The user {account.name}, who runs PostgreSQL, cannot enter {wanted}; move it away.")
        return wanted.resolve()
    if wanted.is_symlink():
        raise LocalError(f"{wanted} points to {wanted.readlink()}, which is gone; remove the link to start empty.")
    folder = wanted
    if account is not None and not may_enter(wanted.parent, account):
        REACHABLE.mkdir(mode=0o711, parents=True, exist_ok=True)
        folder = REACHABLE / f"{wanted.name}-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    _give(folder, account)
    if folder != wanted:
        wanted.symlink_to(folder)
    return folder.resolve()


def _give(folder: Path, account: Account | None) -> None:
    if account is not None and folder.stat().st_uid != account.uid:
        os.chown(folder, account.uid, account.gid)


def reachable_copy(site: Path, names: tuple[str, ...], account: Account | None) -> Path:
    """`site`, or a folder under /var/lib/bursar with copies of `names`, if `account` cannot enter it."""
    if account is None or may_enter(site / names[0], account):
        return site
    key = hashlib.sha256(f"{site / names[0]}:{(site / names[0]).stat().st_mtime_ns}".encode()).hexdigest()[:12]
    copy = REACHABLE / f"{names[0]}-{key}"
    if not copy.exists():
        REACHABLE.mkdir(mode=0o711, parents=True, exist_ok=True)
        unfinished = REACHABLE / f".{copy.name}.{os.getpid()}"
        for name in names:
            shutil.copytree(site / name, unfinished / name, symlinks=True)
        subprocess.run(["chmod", "-R", "a+rX", str(unfinished)], check=True, timeout=60)
        unfinished.rename(copy)
    return copy
