"""The parts of a local stack: how each is started, asked whether it is ready, stopped, and started again."""

import http.client
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from bursar.local import processes
from bursar.local.errors import LocalError, sentence_for

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0  # somebody who mends the cause should not have to wait longer than this
STEADY_AFTER_S = 60.0  # a part that lived this long starts with a clean record
CRASH_LOOP = 3  # deaths in a row after which the log speaks


class Part(Protocol):
    """Anything the supervisor can start, watch and stop."""

    @property
    def running(self) -> bool: ...

    def start(self) -> None: ...

    def stop(self) -> bool: ...

    def kill(self) -> None: ...


class Program:
    """One child process that is ready some time after it was started."""

    def __init__(
        self,
        argv: list[str],
        *,
        log: Path,
        environment: Callable[[], Mapping[str, str]],
        ready: Callable[[], bool] = lambda: True,
        stop_wait_s: float = 10.0,
    ) -> None:
        self.argv = argv
        self.log = log
        self.ready = ready
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = environment
        self._stop_wait_s = stop_wait_s

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it; readiness comes later. What an earlier life left in its session is killed first."""
        if self.process is not None:
            processes.kill_group(self.process)
        self.process = processes.spawn(self.argv, log=self.log, env=self._environment())

    def ask_to_stop(self) -> None:
        """SIGTERM without waiting, so that several can stop at the same time."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self) -> bool:
        """SIGTERM, a bounded wait, SIGKILL to what is left of its session. True if no force was needed."""
        if self.process is None:
            return True
        obeyed = processes.stop(self.process, signals=[(signal.SIGTERM, self._stop_wait_s)])
        self.process = None
        return obeyed

    def kill(self) -> None:
        """SIGKILL to its whole session."""
        if self.process is not None:
            processes.kill_group(self.process)
            self.process = None


class Watch:
    """The record of one part's deaths, and when it may be started again."""

    def __init__(self, name: str, part: Part, log: Path) -> None:
        self.name = name
        self.part = part
        self.log = log
        self.deaths = 0
        self._born = time.monotonic()
        self._due: float | None = None

    def look(self, say: Callable[[str], None]) -> bool:
        """Once in a while: note a death, start again when it is time. True if it was started now."""
        now = time.monotonic()
        if self._due is None:
            if self.part.running:
                return False
            self.deaths = 1 if now - self._born > STEADY_AFTER_S else self.deaths + 1
            pause_s = min(BACKOFF_FIRST_S * 2 ** (self.deaths - 1), BACKOFF_MAX_S)
            self._due = now + pause_s
            say(f"{self.name} {ending(self.part)}; starting it again in {pause_s:g} s")
            if self.deaths == CRASH_LOOP:
                say(f"{self.name} ended {self.deaths} times in a row. Its log ({self.log}) ends so:\n{self.words()}")
            return False
        if now < self._due:
            return False
        self._due = None
        self._born = now
        try:
            self.part.start()
        except LocalError as error:
            say(str(error))
            return False
        except OSError as error:
            say(sentence_for(error, doing=f"starting {self.name}"))
            return False
        say(f"{self.name} started again")
        return True

    def require_life(self) -> None:
        """Raise LocalError if it died so often that a start of the whole stack is no use."""
        if self.deaths >= CRASH_LOOP:
            raise LocalError(f"{self.name} does not stay alive, so the start ends here; {self.log} may say why.")

    def words(self) -> str:
        """The last lines of its log, indented."""
        return "\n".join(f"    {line}" for line in processes.tail(self.log).splitlines())


def ending(part: Part) -> str:
    """How its process ended, in words."""
    process: subprocess.Popen[bytes] | None = getattr(part, "process", None)
    code = process.poll() if process is not None else None
    if code is None:
        return "is not running"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with code {code}"


def answers(port: int, path: str, *, host: str = "127.0.0.1", headers: Mapping[str, str] | None = None) -> int:
    """The HTTP status of a GET, 0 without an answer in two seconds. Heeds no proxy settings."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
