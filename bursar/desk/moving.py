"""`bursar export` and `bursar import`: a tenant's state to another installation, its journal to an auditor."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec
import psycopg
import typer

from bursar.desk import (
    Tenant,
    ask,
    could_not,
    database_url,
    in_a_line,
    json_line,
    one_tenant,
    progress,
    reading,
    refused,
)
from ledger import db, exporting, importing, timeline
from ledger.exporting import Written
from ledger.ids import Kind, parse_id, transfer_id
from ledger.importing import Asset, Carried, Credit, End, Head, Hold, Into, LimitsOf, Line, StatusOf, Wallet
from ledger.tenants import DEFAULT_TENANT
from runtime.shown import represent

REFUSED_SHOWN = 20  # the rest is counted


# --- export ----------------------------------------------------------------------------------------------------------


def export(
    tenant: Tenant = DEFAULT_TENANT,
    journal: Annotated[bool, typer.Option("--journal", help="What happened, for an auditor. No import.")] = False,
    after: Annotated[str | None, typer.Option(help="With --journal: go on behind the command of this id.")] = None,
) -> None:
    """Write a tenant's state to standard output, as JSON lines: assets, wallets, balances, lots, open holds, limits.

    All of one moment, while the service runs; `bursar import` makes it so elsewhere. Stop the clients first, or what
    they do meanwhile stays behind. What happened stays behind, too: --journal writes it, every command with its
    transfer, entries and hashes. The last line of either says how many there were. Secrets, keys and endpoints are in
    neither.
    """
    which = ask(lambda connection: one_tenant(connection, tenant))
    with in_a_line(), db.connect(database_url(), application="bursar-cli") as connection:
        connection.autocommit = True
        if journal:
            _journal(connection, which, after)
            return
        with progress(None, "lines") as bar:
            for n, line in enumerate(exporting.lines(connection, which, tenant), 1):
                json_line(line)
                bar(n)
        sys.stdout.flush()


def _journal(connection: psycopg.Connection[Any], tenant_id: int, after: str | None) -> None:
    start = 0
    if after is not None:
        parsed = parse_id(Kind.COMMAND, after)
        if parsed is None:
            raise refused(f"{after!r} is no command's id")
        start = parsed[0]
    upto, count = exporting.last(connection), 0
    with progress(upto, "commands") as bar:
        for place, found in exporting.journal(connection, tenant_id, after=start, upto=upto):
            states = ask(lambda to, found=found: timeline.states(to, [each.seq for each in found]))
            for each in found:
                json_line(_written(each, represent(states[each.seq])))
            count += len(found)
            bar(place)
    json_line({"object": "end", "commands": count})
    sys.stdout.flush()


def _written(each: Written, shown: dict[str, Any]) -> dict[str, Any]:
    transfer: dict[str, Any] | None = None
    if each.at is not None:
        entries: Any = msgspec.Raw(each.entries.encode()) if each.entries is not None else []
        link = {"partition": each.partition, "position": each.position, "hash": each.hash}
        transfer = {"id": transfer_id(each.seq, each.at), "at": each.at, **link, "entries": entries}
    return {"object": "record", "command": shown, "request_hash": each.request_hash, "transfer": transfer}


# --- import ----------------------------------------------------------------------------------------------------------


class _Tally:
    """What was carried out, and what was not."""

    def __init__(self) -> None:
        self.new = self.before = self.late = 0
        self.refused: list[Carried] = []
        self.totals: dict[str, int] = {}

    def add(self, carried: Sequence[Carried]) -> None:
        for each in carried:
            if each.status == "applied":
                self.new += each.new
                self.before += not each.new
                if each.kind == "hold":
                    json_line({"object": "hold", "id": each.of, "imported_as": each.id})
            elif each.code == "expired":
                self.late += 1
            else:
                self.refused.append(each)


def import_(
    file: Annotated[str, typer.Argument(help="What `bursar export` wrote; - reads standard input.")],
    client: Annotated[str, typer.Option(help="In whose name; it must be there (`bursar keys create`).")],
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Make a tenant what an export says, by commands of its own: nothing twice, however often it is begun again.

    Into a tenant without balances; `bursar keys create --new-tenant` makes one. No worker is needed. Open holds get new
    ids: each is written to standard output with the old one. Exits with 1 where something was refused (a debt, for
    instance, which no command can make) or the file ends before its end; what is there by then stays, and counts.
    """

    async def find(connection: Any) -> tuple[int, int, int]:
        which = await one_tenant(connection, tenant)
        partitions = len(await timeline.partition_numbers(connection))
        return which, await timeline.client_id(connection, which, client), partitions

    tenant_id, client_id, partitions = ask(find)
    try:
        stream: IO[bytes] = sys.stdin.buffer if file == "-" else Path(file).open("rb")  # noqa: SIM115
    except OSError as error:
        raise could_not(f"Cannot read {file}: {error.strerror}.") from error
    with stream, in_a_line(), db.connect(database_url(), application="bursar-cli") as connection:
        connection.autocommit = True
        tally = _Tally()
        first = _line(stream.readline(), 1)
        if not isinstance(first, Head):
            raise refused(f"{file} is not what `bursar export` writes: it begins with a {type(first).__name__.lower()}")
        into = Into(first.id, tenant_id, client_id, partitions)
        importing.begin(connection, into)
        end = _carry_out(connection, into, _lines(stream), tally)
    told = f"{tally.new:,} commands carried out, {tally.before:,} had been before"
    typer.echo(
        told + (f", {tally.late:,} credits or holds had expired meanwhile" if tally.late else "") + ".", err=True
    )
    for each in tally.refused[:REFUSED_SHOWN]:
        typer.echo(f"Refused: {each.kind} {each.of}: {each.code}: {each.detail}", err=True)
    if len(tally.refused) > REFUSED_SHOWN:
        typer.echo(f"… and {len(tally.refused) - REFUSED_SHOWN:,} more.", err=True)
    if end is None:
        raise refused("the file ends before its end: it was cut short. Import a whole one; this one may be begun again")
    if tally.refused:
        raise typer.Exit(1)


def _lines(stream: IO[bytes]) -> Iterator[tuple[int, Line]]:
    for n, raw in enumerate(stream, 2):
        yield n, _line(raw, n)


def _line(raw: bytes, n: int) -> Line:
    try:
        return importing.read(raw)
    except ValueError as error:
        raise ValueError(f"line {n} {error}") from None


def _carry_out(
    connection: psycopg.Connection[Any], into: Into, lines: Iterator[tuple[int, Line]], tally: _Tally
) -> End | None:
    """Line by line, in batches; the last line, if it is there."""
    commands: list[Credit | Hold] = []
    registers: list[Asset | Wallet | LimitsOf | StatusOf] = []

    def flush() -> None:
        if registers:
            asyncio.run(_register(into, registers))
            registers.clear()
        if commands:
            tally.add(importing.carry_out(connection, into, [importing.command(into, line) for line in commands]))
            commands.clear()

    with progress(None, "lines") as bar:
        for n, line in lines:
            match line:
                case End():
                    flush()
                    return line if line.lines == n else None
                case Head():
                    raise ValueError(f"line {n} begins another export")
                case Credit() | Hold():
                    commands.append(line)
                case StatusOf(wallet=str(wallet), status="closed"):
                    flush()
                    importing.close(connection, into, wallet)
                case _:
                    if not isinstance(line, Wallet):  # what follows counts on it, and it on what went before
                        flush()
                    registers.append(line)
            if len(commands) + len(registers) >= importing.BATCH:
                flush()
            bar(n)
    flush()
    return None


async def _register(into: Into, lines: Sequence[Asset | Wallet | LimitsOf | StatusOf]) -> None:
    async with reading() as connection:
        for line in lines:
            await importing.register(connection, into, line)
