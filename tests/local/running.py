"""`bursar run` as a process of its own, as a person starts it."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import psutil

from bursar.local.places import any_free_port
from bursar.local.processes import marked, wait_until, working_in
from tests.servers import ROOT

START_S = 60.0
STOP_S = 60.0


class Run:
    """One `bursar run` in `home`; its output is in a file beside it."""

    def __init__(self, home: Path, *, port: int | None = None, environment: dict[str, str] | None = None) -> None:
        self.home = home
        self.port = port or any_free_port()
        self.output = home.parent / f"{home.name}.output"
        own = {"BURSAR_HOME": str(home), "BURSAR_PORT": str(self.port), "TERM": "dumb"}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("BURSAR_", "FLOWER_"))}
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bursar", "run"],
                cwd=ROOT,
                env=inherited | own | (environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.output.read_text()

    @property
    def told(self) -> dict[str, str]:
        """What `local.env` says."""
        lines = (self.home / "local.env").read_text().splitlines()
        return dict(shlex.split(line)[0].split("=", 1) for line in lines)

    def is_ready(self) -> bool:
        return (self.home / "local.env").exists()

    def wait_until_ready(self) -> None:
        wait_until(lambda: self.is_ready() or self.process.poll() is not None, timeout_s=START_S)
        assert self.is_ready(), self.text

    def wait_for_text(self, text: str, *, timeout_s: float = 20.0) -> None:
        assert wait_until(lambda: text in self.text, timeout_s=timeout_s), f"no {text!r} in:\n{self.text}"

    def signal(self, number: signal.Signals) -> int:
        """Send it and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(STOP_S)

    def processes(self) -> list[psutil.Process]:
        """All that it started and that lives."""
        return [
            *marked(self.home),
            *working_in(self.home / "postgres" / "cluster" / "data", program="postgres"),
            *working_in(self.home / "valkey" / "data", program="valkey-server"),
        ]

    def children(self, command: str) -> list[psutil.Process]:
        """Its direct children that run `bursar <command>` or became what that command becomes."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if command in " ".join(child.cmdline())]


@contextlib.contextmanager
def run(home: Path, *, port: int | None = None, environment: dict[str, str] | None = None) -> Generator[Run]:
    """A run that is stopped, and if it must be killed, in the end."""
    running = Run(home, port=port, environment=environment)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.process.wait(STOP_S)
        running.process.kill()
        for left in running.processes():
            with contextlib.suppress(psutil.Error):
                left.kill()
