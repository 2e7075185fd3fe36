"""The command line of `bursar bench`. What it needs is imported when it runs: the other commands start as fast."""

import sys
from pathlib import Path
from typing import Annotated, get_args

import typer

from bursar.bench.plan import Generator, Work

WORKS: tuple[Work, ...] = get_args(Work)
# They stop workers, start couriers, look into processes.
OWN_SERVERS_ONLY = ("drain", "memory", "feed", "webhooks", "deliveries", "owing", "broken", "watched")


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
    rate: Annotated[
        float, typer.Option(help="Posts per second of the works `offered`, `feed` and `webhooks`.", min=1)
    ] = 100,
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

    - singles: single-command posts at full load
    - batch: batch posts
    - hot: batch posts, all on one wallet
    - spends: batch posts of spends alone
    - lots: the same where one wallet in ten holds expiring credits
    - mixed: spends, top-ups, transfers, holds with their captures, reversals
    - offered: single posts at a fixed rate, whatever the answers do
    - drain: one worker empties a full inbox
    - memory: of each process, over many commands
    - feed: from an outcome to its event in one stream, at the fixed rate
    - webhooks: from an outcome to its webhook at one endpoint, at the same
    - deliveries: a courier delivers a backlog to 20 endpoints
    - owing: drains that owe a delivery each, and none, by turns
    - broken: 98 endpoints, with a dead and a hanging one, and without
    - watched: the spends, with the dashboard and metrics looked at, and without

    Ends with `bursar audit`. Exit code 1: nothing could be measured; 3: there
    are figures, but they do not count.
    """
    from rich.console import Console

    from bursar.bench.main import BenchError, run_bench
    from bursar.bench.picture import svg
    from bursar.bench.progress import telling
    from bursar.bench.report import as_json as json_of
    from bursar.bench.show import show
    from bursar.bench.stack import StackError, Target
    from bursar.bench.works import Options

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
        backlog=200 if quick else 2_000,
        owing=5_000 if quick else 10_000,
        rounds=1 if quick else 3,
        generator=generator,
    )
    try:
        target = None
        if url is not None:
            if not key:
                raise BenchError("--url needs --key")
            target = Target(url=url, api_key=key, database_url=database_url)
        with telling(console) as tell:
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
        sys.stdout.write(json_of(report))
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
