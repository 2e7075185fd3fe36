"""How far the bench is: a moving bar on a terminal, a line for each step elsewhere."""

import contextlib
from collections.abc import Callable, Generator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

Tell = Callable[[str, float], None]  # (what is going on, from 0 to 1 how far)


@contextlib.contextmanager
def telling(console: Console) -> Generator[Tell]:
    """Somebody to tell. `console` writes to stderr: stdout is for the report."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0)
        told = ""

        def tell(what: str, part: float) -> None:
            nonlocal told
            if what != told and not console.is_terminal:
                console.print(what)
            told = what
            bar.update(task, description=what, completed=part)

        yield tell
