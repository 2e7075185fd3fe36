"""Runs a load generator as a process of its own: wrk where it is installed and able, else our own."""

import subprocess
import sys
import time
from pathlib import Path

import msgspec

from bursar.bench import wrk
from bursar.bench.plan import READY_MARK, RESULT_MARK, Generator, LoadResult, Plan
from bursar.local import processes

READY_S = 30.0  # a Python start and a few dozen connections: under a second on a quiet machine
OVERTIME_S = 60.0  # past the load's own end: answers still owed, for which the generators wait half as long
POLL_S = 0.02


class LoadError(Exception):
    """The generator did not do its work."""


class Running:
    """A generator at work. It ends by itself; `stop` ends it at once."""

    def __init__(self, plan: Plan, folder: Path, *, generator: Generator) -> None:
        self.plan = plan
        self._output = folder / f"{plan.nonce}.out"
        path = wrk.installed()
        self._wrk = path is not None and generator != "bundled" and wrk.can_do(plan)
        if self._wrk and path is not None:
            script = folder / f"{plan.nonce}.lua"
            _write_private(script, wrk.script(plan).encode())
            command = wrk.arguments(path, plan, str(script))
        else:
            file = folder / f"{plan.nonce}.json"
            _write_private(file, msgspec.json.encode(plan))
            command = [sys.executable, "-m", "bursar.bench.load", str(file)]
        self.process: subprocess.Popen[bytes] = processes.spawn(command, log=self._output)

    def wait_ready(self) -> None:
        """Until it posts. wrk says nothing before its end and connects at once: it counts as ready."""
        deadline_s = time.monotonic() + READY_S
        while not self._wrk and READY_MARK not in self._said():
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                self.stop()
                raise LoadError(f"the load generator did not start: {self._said()[-500:]}")
            time.sleep(POLL_S)

    def result(self) -> LoadResult:
        """Wait for its end and read what it saw. Raises LoadError."""
        try:
            self.process.wait(self.plan.duration_s + OVERTIME_S)
        except subprocess.TimeoutExpired:
            raise LoadError("the load generator did not end") from None
        finally:
            self.stop()
        said = self._said()
        try:
            if self._wrk:
                return wrk.read_result(said, self.plan)
            lines = [line for line in said.splitlines() if line.startswith(RESULT_MARK + "{")]
            return msgspec.json.decode(lines[-1].removeprefix(RESULT_MARK), type=LoadResult)
        except (ValueError, IndexError) as error:
            raise LoadError(f"the load generator gave no result: {said[-500:]}") from error

    def stop(self) -> None:
        processes.kill_group(self.process)

    def _said(self) -> str:
        return self._output.read_text(errors="replace")


def _write_private(path: Path, content: bytes) -> None:
    """A plan carries the API key: nobody else reads it."""
    path.touch(mode=0o600)
    path.write_bytes(content)
