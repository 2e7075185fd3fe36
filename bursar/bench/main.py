"""A run of the bench: the order of things."""

import contextlib
import shutil
import signal
import sys
from collections.abc import Generator as Yields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import NoReturn

import psycopg

from bursar.bench import floor as pgbench
from bursar.bench import machine
from bursar.bench.drive import LoadError
from bursar.bench.observe import NotDurable, Observer
from bursar.bench.progress import Tell
from bursar.bench.report import Report, WorkFigures, goals
from bursar.bench.stack import OwnStack, StackError, Target, audit
from bursar.bench.works import Bench, Options
from bursar.local.errors import LocalError

NO_AUDIT = "not run: no database URL"


class BenchError(Exception):
    """The bench could not measure; the sentence says why."""


def run_bench(
    options: Options,
    *,
    target: Target | None = None,
    workers: int = 1,
    floor_s: float = 10.0,
    folder: Path | None = None,
    tell: Tell = lambda what, part: None,
) -> Report:
    """Measure the works of `options` and, unless `floor_s` is 0, the floor before and after them.

    Without a `target`, PostgreSQL, Valkey, an api and `workers` worker processes are started in a new temporary
    folder (or in `folder`, which must not exist yet) and deleted afterwards, whatever happens. With one, what it
    has shown is used: no processes, and no database unless it names one. Raises BenchError with a sentence.
    """
    place = folder or machine.folder_on_disk()
    place.mkdir(parents=True, exist_ok=folder is None)
    try:
        if target is None and machine.filesystem(place) in machine.NO_DISK:
            raise BenchError(f"{place} is in memory, where an fsync costs nothing: name a folder on a disk")
        with _stopped_by_sigterm():
            return _measure(options, target, workers, floor_s, place, tell)
    except (StackError, LocalError, LoadError, NotDurable, pgbench.FloorError, psycopg.Error) as error:
        raise BenchError(str(error)) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _measure(options: Options, target: Target | None, workers: int, floor_s: float, place: Path, tell: Tell) -> Report:
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    here = machine.describe(place)
    with contextlib.ExitStack() as undo:
        stack = None
        if target is None:
            place.chmod(0o711)  # PostgreSQL's own user must pass through when we are root; it reads nothing here
            stack = OwnStack(place, workers=workers)
            undo.callback(stack.stop)
            tell("starting PostgreSQL and Valkey", 0.0)
            stack.start_databases()
        database_url = stack.postgres.url if stack else target.database_url if target else None
        observer = Observer(database_url) if database_url else None
        if observer is not None:
            undo.callback(observer.close)
        postgres = observer.settings() if observer else {}
        rounds: list[pgbench.Round] = []

        def measure_floor(when: str) -> None:
            if database_url and floor_s > 0:
                tell(f"the floor, {when} the works (pgbench)", 0.0)
                rounds.append(pgbench.measure(database_url, place, wallets=options.wallets, seconds=floor_s / 2))

        measure_floor("before")
        if stack is not None:
            tell("starting the api and the workers", 0.0)
            target = stack.start_services()
        assert target is not None
        bench = Bench(target, options, place, observer=observer, stack=stack, progress=tell)
        bench.prepare()
        works = [bench.measure(work) for work in options.works]
        tell("audit", 0.0)
        books = audit(database_url) if database_url else NO_AUDIT
        measure_floor("after")
    floor = pgbench.mean_of(rounds, seconds=floor_s / 2) if rounds else None
    return Report(
        version=version("bursar"),
        command=" ".join(["bursar", *sys.argv[1:]]),
        started_at=started_at,
        machine=here,
        postgres=postgres,
        latency_source="commit times" if observer and observer.commit_times else "accepted_at and at",
        workers=workers,
        floor=floor,
        works=works,
        goals=goals(works, floor),
        audit=books,
        valid=_valid(works, books),
    )


def _valid(works: list[WorkFigures], books: str) -> bool:
    return books in ("clean", NO_AUDIT) and not any(work.problems for work in works)


@contextlib.contextmanager
def _stopped_by_sigterm() -> Yields[None]:
    """SIGTERM ends the bench as Ctrl-C does: through every `finally`, so that nothing it started is left."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
