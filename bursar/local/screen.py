"""What a person sees while the stack starts, runs and stops: one calm line for each part."""

import contextlib
import time
from collections.abc import Generator

from rich.console import Console

NAME_WIDTH = 11


class Screen:
    """Lines on standard output, problems on standard error; colours and a spinner only on a terminal."""

    def __init__(self) -> None:
        self._out = Console(highlight=False, soft_wrap=True)
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def step(self, name: str, doing: str) -> Generator[list[str]]:
        """One part of the start. What the body puts into the list stands on its line, before the seconds it took."""
        began = time.monotonic()
        notes: list[str] = []
        with self._out.status(f"  {name:<{NAME_WIDTH}} {doing} …", spinner="dots"):
            yield notes
        took_s = time.monotonic() - began
        text = ", ".join(notes) or "done"
        self._out.print(f"  [green]✓[/] {name:<{NAME_WIDTH}}", end=" ")
        self._out.print(text, markup=False, end=" ")
        self._out.print(f"[dim]{took_s:.1f} s[/]")

    def line(self, text: str = "") -> None:
        """A plain line, never wrapped: it may be something to paste."""
        self._out.print(text, markup=False)

    def title(self, text: str) -> None:
        """A line that stands out."""
        self._out.print(text, style="bold", markup=False)

    def event(self, text: str) -> None:
        """Something that happened while running, with the time of day."""
        self._out.print(f"[dim]{time.strftime('%H:%M:%S')}[/]", end=" ")
        self._out.print(text, style="yellow", markup=False)

    def problem(self, text: str) -> None:
        """Why it cannot go on."""
        self._err.print(text, style="bold red", markup=False)
