"""Child processes that never outlive their owner.

Each child leads a session of its own, so that the terminal's Ctrl-C reaches only the supervisor, which then
stops the children in order. Should the supervisor be killed with -9, Linux sends each child a signal
(PR_SET_PDEATHSIG); elsewhere, or if a child ignores it, the next start finds what is left and stops it.
"""

import contextlib
import ctypes
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1
# Every process of a stack carries the stack's home in this variable, grandchildren included.
STACK_MARK = "BURSAR_STACK"
KILL_WAIT_S = 5.0  # SIGKILL is prompt; only a process stuck in the kernel takes longer, and nobody can help that
POLL_S = 0.02  # a stop is noticed within a fiftieth of a second, at no cost worth naming


class StopRequested(BaseException):
    """Somebody wants us to stop. Not an Exception: whoever cleans up after an error must not take it for one."""


class StopRequest:
    """What a signal handler notes and every wait of ours looks at.

    The handler itself raises nothing: Python drops what is raised inside some callbacks, for instance around a fork.
    """

    def __init__(self) -> None:
        self._noted = False

    def note(self) -> None:
        self._noted = True

    def forget(self) -> None:
        self._noted = False

    def heed(self) -> None:
        """Raise StopRequested if one was noted."""
        if self._noted:
            raise StopRequested


stop_request = StopRequest()  # one for the process, as signals are


def pause(seconds: float) -> None:
    """Sleep a little. Raises StopRequested when that has been asked for."""
    stop_request.heed()
    time.sleep(seconds)
    stop_request.heed()


@dataclass(frozen=True)
class Account:
    """The unprivileged user that PostgreSQL runs as when we are root."""

    name: str
    uid: int
    gid: int


def unprivileged_account(near: Path) -> Account | None:
    """Who runs PostgreSQL, which refuses to be root: the owner of `near`, else nobody. None if not root."""
    if os.geteuid() != 0:
        return None
    existing = next(path for path in (near, *near.parents) if path.exists())
    owner = existing.stat().st_uid
    try:
        entry = pwd.getpwuid(owner) if owner != 0 else pwd.getpwnam("nobody")
    except KeyError:
        entry = pwd.getpwnam("nobody")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    account: Account | None = None,
    at_owners_death: signal.Signals = signal.SIGKILL,
) -> subprocess.Popen[bytes]:
    """Start `argv`, output appended to `log`. From the main thread: Linux ties the child to the thread."""
    before_exec = _tie_to_owner(at_owners_death)
    with log.open("ab") as output:  # append mode: whoever truncates the log leaves no hole in it
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env) if env is not None else None,
            cwd=cwd,
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            preexec_fn=before_exec,
        )


def _tie_to_owner(death_signal: signal.Signals) -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: after it only system calls are safe
    owner = os.getpid()

    def tie() -> None:
        prctl(PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != owner:  # the owner died between fork and prctl
            os._exit(1)

    return tie


def stop(process: subprocess.Popen[bytes], *, signals: Sequence[tuple[signal.Signals, float]]) -> bool:
    """Send each signal, wait its seconds for the end, then kill the whole group. True if a signal did it."""
    obeyed = process.poll() is not None
    for number, wait_s in signals:
        if obeyed:
            break
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        obeyed = _ended_within(process, wait_s)
    kill_group(process)
    return obeyed


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the process and all that it started in its session, and reap it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    _ended_within(process, KILL_WAIT_S)


def _ended_within(process: subprocess.Popen[bytes], wait_s: float) -> bool:
    return wait_until(lambda: process.poll() is not None, timeout_s=wait_s)


def working_in(directory: Path, *, program: str) -> list[psutil.Process]:
    """The live processes of `program` working in `directory`: a server, its children, whoever began them."""
    wanted = os.path.realpath(directory)
    found = (process for process in psutil.process_iter(["name"]) if process.info["name"] == program)
    return [process for process in found if _cwd(process) == wanted]


def _cwd(process: psutil.Process) -> str | None:
    try:
        return process.cwd() if _lives(process) else None
    except (psutil.Error, OSError):
        return None


def marked(home: Path) -> list[psutil.Process]:
    """All live processes that a stack of `home` started, this process and its ancestors left out."""
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in spared and _mark(process) == str(home)]


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(STACK_MARK) if _lives(process) else None
    except (psutil.Error, OSError):
        return None


def end(processes: Iterable[psutil.Process], *, first: signal.Signals, wait_s: float) -> None:
    """Ask strangers (not our children) to end, wait at most `wait_s`, then kill what is left."""
    living = list(processes)
    for number, seconds in ((first, wait_s), (signal.SIGKILL, KILL_WAIT_S)):
        for process in living:
            with contextlib.suppress(psutil.Error):
                process.send_signal(number)
        asked = living
        wait_until(lambda asked=asked: not any(map(_lives, asked)), timeout_s=seconds)
        living = [process for process in living if _lives(process)]


def _lives(process: psutil.Process) -> bool:
    try:  # a zombie has ended; that its parent does not care is not ours to wait for
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def wait_until(ready: Callable[[], bool], *, timeout_s: float) -> bool:
    """Ask `ready` again and again, at most `timeout_s`; its last answer. Raises StopRequested."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if time.monotonic() >= deadline:
            return False
        pause(POLL_S)
    return True


def tail(log: Path, *, lines: int = 15, since_byte: int = 0) -> str:
    """The last lines of a log (at most its last 16 kB), for a person to read."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(min(since_byte, size), size - 16_384))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
