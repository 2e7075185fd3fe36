"""What a person sees while the stack starts, runs and stops: one calm line for each part."""

import contextlib
import time
from collections.abc import Generator

from rich.console import Console

NAME_WIDTH = 11


class _Console(Console):
    """A console whose reader may leave: what is said is lost then, and nothing else."""

    def on_broken_pipe(self) -> None:
        self.quiet = True

    def say(self, text: str, *, style: str = "", end: str = "\n") -> None:
        """Print without markup and without wrapping: it may be something to paste, or hold a bracket."""
        with contextlib.suppress(OSError):  # the terminal is gone
            self.print(text, style=style, end=end, markup=False)


class Screen:
    """Lines on standard output, problems on standard error; colours and a spinner only on a terminal."""

    def __init__(self) -> None:
        self._out = _Console(highlight=False, soft_wrap=True)
        self._err = _Console(stderr=True, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def step(self, name: str, doing: str) -> Generator[list[str]]:
        """One part of the start. What the body puts into the list stands on its line, before the seconds it took."""
        began = time.monotonic()
        notes: list[str] = []
        with self._out.status(f"  {name:<{NAME_WIDTH}} {doing} …", spinner="dots"):
            yield notes
        took_s = time.monotonic() - began
        self._out.say("  ✓ ", style="green", end="")
        self._out.say(f"{name:<{NAME_WIDTH}} {', '.join(notes) or 'done'} ", end="")
        self._out.say(f"{took_s:.1f} s", style="dim")

    def line(self, text: str = "") -> None:
        """A plain line."""
        self._out.say(text)

    def title(self, text: str) -> None:
        """A line that stands out."""
        self._out.say(text, style="bold")

    def event(self, text: str) -> None:
        """Something that happened while running, with the time of day."""
        self._out.say(time.strftime("%H:%M:%S "), style="dim", end="")
        self._out.say(text, style="yellow")

    def problem(self, text: str) -> None:
        """Why it cannot go on."""
        self._err.say(text, style="bold red")
