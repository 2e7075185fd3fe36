"""`bursar bench`: the command, and the order of things."""

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Generator as Yields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn, get_args

import msgspec
import psycopg
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bursar.bench import floor as pgbench
from bursar.bench import machine
from bursar.bench.drive import Generator, LoadError
from bursar.bench.observe import NotDurable, Observer
from bursar.bench.picture import svg
from bursar.bench.report import Report, WorkFigures, goals
from bursar.bench.show import show
from bursar.bench.stack import OwnStack, StackError, Target, run_audit
from bursar.bench.works import Bench, Options, Work
from bursar.bench.works import Progress as Tell
from bursar.local.errors import LocalError

WORKS: tuple[Work, ...] = get_args(Work)
OWN_SERVERS_ONLY = ("drain", "memory")  # they stop workers and look into processes


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
        audit = _audit(stack, database_url)
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
        audit=audit,
        valid=_valid(works, audit),
    )


def _audit(stack: OwnStack | None, database_url: str | None) -> str:
    if stack is not None:
        return stack.audit() or "clean"
    if database_url is not None:
        return run_audit({**os.environ, "BURSAR_DATABASE_URL": database_url}) or "clean"
    return "not run: no database URL"


def _valid(works: list[WorkFigures], audit: str) -> bool:
    return audit == "clean" and not any(work.problems for work in works)


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


def bench(
    only: Annotated[
        str, typer.Option(help=f"Works to do, comma-separated, of: {', '.join(WORKS)}.", show_default="all")
    ] = ",".join(WORKS),
    quick: Annotated[
        bool, typer.Option("--quick", help="Short windows and small amounts: a first look, no more.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(help="Length of a window.", min=1, max=3600, show_default="20; quick: 4")
    ] = None,
    warmup: Annotated[
        float | None, typer.Option(help="Seconds of load before it.", min=0, max=600, show_default="3; quick: 1")
    ] = None,
    connections: Annotated[int, typer.Option(help="Keep-alive connections of a full load.", min=1, max=1024)] = 32,
    wallets: Annotated[int, typer.Option(help="Wallets to spread over.", min=1, max=1_000_000)] = 10_000,
    batch: Annotated[int, typer.Option(help="Commands in a batch post.", min=2, max=1_000)] = 100,
    rate: Annotated[float, typer.Option(help="Posts per second of the work `offered`.", min=1)] = 100,
    drain: Annotated[
        int | None,
        typer.Option(help="Commands pending for the work `drain`.", min=1_000, show_default="100000; quick: 20000"),
    ] = None,
    soak: Annotated[
        int | None,
        typer.Option(help="Commands of the work `memory`.", min=1_000, show_default="500000; quick: 20000"),
    ] = None,
    workers: Annotated[int, typer.Option(help="Worker processes to start.", min=1, max=64)] = 1,
    generator: Annotated[
        Generator, typer.Option(help="auto: wrk where it is installed and able, else the bundled one.")
    ] = "auto",
    floor: Annotated[bool, typer.Option(help="Measure PostgreSQL's own floor with pgbench as well.")] = True,
    url: Annotated[
        str | None, typer.Option(help="Drive this running api (plain http) instead of servers of our own.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="An API key for --url with all scopes.")] = None,
    database_url: Annotated[
        str | None, typer.Option(help="The database behind --url: shows applied/s, the floor and the audit.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="A new folder for the data, on a real disk; deleted afterwards.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON, and nothing else.")] = False,
    picture: Annotated[Path | None, typer.Option(help="Write a picture (SVG) of the figures here.")] = None,
) -> None:
    """Measure how fast this machine carries commands from HTTP to the ledger.

    Starts a PostgreSQL, a Valkey, an api and workers of its own in a folder on
    disk (fsync and synchronous_commit on), loads them over HTTP with keep-alive
    from a separate process, and deletes everything afterwards.

    In the same run pgbench measures the floor: the smallest possible
    double-entry transfer on the same PostgreSQL, 32 clients, (a) each of many
    wallets against one treasury row, (b) one hot pair.

    The works:

    singles: single-command posts at full load.
    batch: batch posts.
    hot: batch posts, all on one wallet.
    offered: single posts at a fixed rate, whatever the answers do.
    drain: one worker empties a full inbox.
    memory: of each process, over many commands.

    Ends with `bursar audit`. Exit code 1: nothing could be measured; 3: there
    are figures, but they do not count.
    """
    console = Console(stderr=True)
    if picture is not None and picture.suffix != ".svg":
        raise typer.BadParameter("a picture is an .svg", param_hint="--picture")
    options = Options(
        works=_works(only, running=url is not None, asked=only != ",".join(WORKS)),
        seconds=seconds or (4 if quick else 20),
        warmup_s=warmup if warmup is not None else (1 if quick else 3),
        connections=connections,
        wallets=wallets,
        batch=batch,
        rate=rate,
        drain=drain or (20_000 if quick else 100_000),
        soak=soak or (20_000 if quick else 500_000),
        generator=generator,
    )
    try:
        target = None
        if url is not None:
            if not key:
                raise BenchError("--url needs --key")
            target = Target(url=url, api_key=key, database_url=database_url)
        with _progress(console) as tell:
            report = run_bench(
                options,
                target=target,
                workers=workers,
                floor_s=(6 if quick else 20) if floor else 0,
                folder=folder,
                tell=tell,
            )
    except (BenchError, StackError, OSError) as error:
        console.print(f"[bold red]bursar bench:[/] {error}")
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        console.print("stopped; everything that was started has ended")
        raise typer.Exit(130) from None
    if picture is not None:
        picture.write_text(svg(report))
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n")
    else:
        show(report, Console())
    if not report.valid:
        raise typer.Exit(3)


def _works(only: str, *, running: bool, asked: bool) -> tuple[Work, ...]:
    """The works named, in the order of WORKS. Against running servers those that need our own are left out."""
    named = {name.strip() for name in only.split(",") if name.strip()}
    if unknown := named - set(WORKS):
        raise typer.BadParameter(f"unknown: {', '.join(sorted(unknown))}", param_hint="--only")
    if running and asked and (impossible := named.intersection(OWN_SERVERS_ONLY)):
        raise typer.BadParameter(f"not with --url: {', '.join(sorted(impossible))}", param_hint="--only")
    return tuple(work for work in WORKS if work in named and not (running and work in OWN_SERVERS_ONLY))


@contextlib.contextmanager
def _progress(console: Console) -> Yields[Tell]:
    """A moving bar on a terminal, a line for each step elsewhere. On stderr: stdout is for the report."""
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
