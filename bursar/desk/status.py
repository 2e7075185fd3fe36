"""`bursar status` and `bursar partitions`: how the service does, seen from its database."""

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import psycopg
import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from bursar.desk import AnyTenant, AsJson, age, ask, could_not, json_line, reading, screen, tenant_id, when, why_not
from ledger import overview, reads
from ledger.operators import Audit, last_audit
from ledger.overview import Database, Partition, Rates, Recent, Webhooks
from ledger.reads import Supply
from runtime.hints import RedisState, redis_state
from runtime.settings import settings

STUCK_S = 10.0  # a healthy command waits for milliseconds; without Redis, for a second
WEBHOOK_STUCK_S = 60.0  # a healthy delivery is on its way within a second; a courier may have many
ASSETS_MAX = 50  # of each tenant that are shown
EVERY_S = 2.0  # between two looks of --watch, unless said

_TENANTS = text("""
    SELECT id, code FROM tenants WHERE CAST(:tenant_id AS integer) IS NULL OR id = :tenant_id ORDER BY id LIMIT 20
""")


@dataclass(slots=True, frozen=True)
class Status:
    at: datetime
    database: Database
    redis: RedisState
    partitions: list[Partition]
    rates: Rates
    recent: Recent
    webhooks: Webhooks
    supply: list[tuple[str, Supply]]
    audit: Audit | None
    stuck: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])


async def look(connection: AsyncConnection, tenant: str | None) -> Status:
    """Everything that PostgreSQL and Redis tell. Raises LookupError where there is no such tenant."""
    which = await tenant_id(connection, tenant)
    partitions = await overview.partitions(connection)
    database = await overview.database(connection)
    rates = await overview.rates(connection)
    recent = await overview.recent(connection, which)
    webhooks = await overview.webhooks(connection, which)
    supply = [
        (code, each)
        for id_, code in (await connection.execute(_TENANTS, {"tenant_id": which})).all()
        for each in await reads.supply(connection, id_, after="", limit=ASSETS_MAX)
    ]
    redis = redis_state(settings().redis_url.get_secret_value(), partitions=len(partitions))
    audit = await last_audit(connection)
    stuck = what_is_stuck(database, partitions, webhooks, audit)
    notes = what_to_know(redis, recent, webhooks)
    return Status(datetime.now(UTC), database, redis, partitions, rates, recent, webhooks, supply, audit, stuck, notes)


def what_is_stuck(
    database: Database, partitions: Sequence[Partition], webhooks: Webhooks, audit: Audit | None
) -> list[str]:
    """Sentences for whoever was woken: what does not move, and what to do."""
    stuck: list[str] = []
    if database.schema < database.schema_needed:
        at = database.schema or "nothing"
        stuck.append(f"The schema is at {at}, this version needs {database.schema_needed}: run `bursar migrate`.")
    workers = database.count("bursar-worker")
    if workers == 0 and any(partition.pending for partition in partitions):
        stuck.append("Commands wait and no worker is connected: start `bursar worker`.")
    elif late := [partition for partition in partitions if partition.oldest_s > STUCK_S]:
        oldest = max(late, key=lambda partition: partition.oldest_s)
        names = ", ".join(str(partition.partition) for partition in late)
        has = f"{oldest.holder}, process {oldest.holder_pid}, has it" if oldest.holder else "nobody has it"
        stuck.append(
            f"Commands have waited for {age(oldest.oldest_s)} in partition {oldest.partition} and {has}"
            f" (late: {names}): read the workers' log for drain.fault; does a worker serve these partitions?"
        )
    if webhooks.overdue_s > WEBHOOK_STUCK_S:
        courier = "no courier is connected: start `bursar worker --webhooks`"
        if database.count("bursar-courier"):
            courier = "the couriers do not keep up: start another, and read their log"
        stuck.append(f"A webhook has been due for {age(webhooks.overdue_s)} and {courier}.")
    if audit is not None and (broken := [each for each in audit.findings if each.breaches]):
        numbers = ", ".join(str(each.number) for each in broken)
        stuck.append(f"The last audit found invariants broken ({numbers}): `bursar audit`, then docs/operating.md.")
    return stuck


def what_to_know(redis: RedisState, recent: Recent, webhooks: Webhooks) -> list[str]:
    notes: list[str] = []
    if not redis.answers:
        notes.append(f"Redis does not answer ({redis.fault}): outcomes take a second longer, nothing is lost.")
    if failed := sum(each.count for each in recent.decided if each.status == "failed"):
        notes.append(f"{failed} commands failed within 5 minutes, by a defect: `bursar commands list --failed`.")
    if webhooks.failing:
        notes.append(f"{webhooks.failing} webhook endpoints fail: `bursar webhooks list`.")
    return notes


def status(
    tenant: AnyTenant = None,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again and again, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(help="With --watch: seconds between two looks.", min=0.2)] = EVERY_S,
) -> None:
    """How the service does: what waits, what comes and goes, what was refused, who is at work.

    Exits with 0 where everything moves, with 1 where something is stuck (the last lines say what, and what to do),
    with 2 where PostgreSQL does not answer. Redis may be gone: it says so, and nothing is stuck by that.
    """
    if watch:
        _watch(tenant, as_json=as_json, every_s=every)
        return
    seen = ask(lambda connection: look(connection, tenant))
    if as_json:
        json_line(as_object(seen))
    else:
        screen().print(shown(seen))
    if seen.stuck:
        raise typer.Exit(1)


def _watch(tenant: str | None, *, as_json: bool, every_s: float) -> None:
    """A faulty look is shown in the place of a good one, and the next one tries again."""

    async def once() -> Status:
        async with reading() as connection:
            return await look(connection, tenant)

    def seen() -> Status | str:
        try:
            return asyncio.run(once())
        except LookupError as error:
            raise could_not(f"Error: {error.args[0]}.") from error
        except (psycopg.Error, DBAPIError) as error:
            return why_not(error)

    console = screen()
    live = console.is_terminal and not as_json
    try:
        with Live(console=console, screen=live, auto_refresh=False) if live else _Plain(console) as view:
            while True:
                now = seen()
                if as_json:
                    json_line(as_object(now) if isinstance(now, Status) else {"stuck": [now], "reachable": False})
                    sys.stdout.flush()
                else:
                    view.update(shown(now) if isinstance(now, Status) else now, refresh=True)
                time.sleep(every_s)
    except (KeyboardInterrupt, BrokenPipeError):
        return


class _Plain:
    """Prints one after the other, where no terminal can be written anew."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> "_Plain":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, what: Any, *, refresh: bool) -> None:
        self._console.print(what)


def as_object(seen: Status) -> dict[str, Any]:
    """For scripts. `reachable` is there so that a script asks one thing first."""
    return {
        "at": seen.at,
        "reachable": True,
        "stuck": seen.stuck,
        "notes": seen.notes,
        "accepted_per_s": round(seen.rates.accepted_per_s, 1),
        "applied_per_s": round(seen.rates.applied_per_s, 1),
        "pending": sum(each.pending for each in seen.partitions),
        "oldest_pending_s": round(max((each.oldest_s for each in seen.partitions), default=0.0), 3),
        "partitions": [partition_object(each) for each in seen.partitions],
        "decided": [msgspec.structs.asdict(each) for each in seen.recent.decided],
        "decided_more": seen.recent.more,
        "database": {
            "version": seen.database.version,
            "schema": seen.database.schema,
            "schema_needed": seen.database.schema_needed,
            "connections": seen.database.connections,
            "connections_max": seen.database.connections_max,
            "sessions": {each.application: each.count for each in seen.database.sessions},
        },
        "redis": {"answers": seen.redis.answers, "version": seen.redis.version, "waiting": seen.redis.waiting},
        "webhooks": msgspec.structs.asdict(seen.webhooks),
        "last_audit": None
        if seen.audit is None
        else {"at": seen.audit.at, "broken": [each.number for each in seen.audit.findings if each.breaches]},
        "supply": [
            {
                "tenant": code,
                "asset": each.asset,
                "in_circulation": str(each.in_circulation),
                "max_supply": None if each.max_supply is None else str(each.max_supply),
            }
            for code, each in seen.supply
        ],
    }


def partition_object(each: Partition) -> dict[str, Any]:
    return {
        "partition": each.partition,
        "pending": each.pending,
        "more": each.more,
        "oldest_s": round(each.oldest_s, 3),
        "attempts": each.attempts,
        "holder": each.holder,
        "holder_pid": each.holder_pid,
        "last_applied_at": each.last_applied_at,
    }


def shown(seen: Status) -> Group:
    """For people: what matters first, what is stuck last, next to the prompt."""
    database, redis, webhooks = seen.database, seen.redis, seen.webhooks
    facts = Table.grid(padding=(0, 2))
    waits = sum(each.pending for each in seen.partitions)
    oldest = max((each.oldest_s for each in seen.partitions), default=0.0)
    facts.add_row("accepted", f"{seen.rates.accepted_per_s:,.1f}/s")
    facts.add_row("applied", f"{seen.rates.applied_per_s:,.1f}/s")
    facts.add_row("pending", f"{waits:,}, the oldest for {age(oldest)}" if waits else "0")
    connected = f"{database.connections} of {database.connections_max} connections"
    facts.add_row("last audit", f"{when(seen.audit.at)}: {_verdict(seen.audit)}" if seen.audit else "none is kept")
    facts.add_row("PostgreSQL", f"{database.version}, schema {database.schema}, {connected}")
    facts.add_row(
        "Redis", f"{redis.version}, {redis.waiting} doorbells wait" if redis.answers else "[red]does not answer[/]"
    )
    at_work = ", ".join(f"{each.application.removeprefix('bursar-')} {each.count}" for each in database.sessions)
    facts.add_row("sessions", at_work or "none")
    facts.add_row(
        "webhooks",
        f"{webhooks.enabled} endpoints ({webhooks.failing} fail, {webhooks.disabled} disabled); "
        f"{webhooks.due:,} due, {webhooks.waiting:,} wait, {webhooks.exhausted:,} given up",
    )
    decided = Table("decided in 5 minutes", "code", "", box=None, padding=(0, 2))
    for each in seen.recent.decided:
        decided.add_row(each.status, each.code, f"{each.count:,}{' and more' if seen.recent.more else ''}")
    supply = Table("supply", "asset", "in circulation", "at the most", box=None, padding=(0, 2))
    for tenant, each in seen.supply:
        most = "" if each.max_supply is None else f"{each.max_supply:,}"
        supply.add_row(tenant, each.asset, f"{each.in_circulation:,}", most)
    parts: list[Any] = [f"{when(seen.at)} UTC", facts]
    if waits:
        parts.append(partitions_table([each for each in seen.partitions if each.pending]))
    parts += [table for table in (decided, supply) if table.row_count]
    parts += [f"[yellow]note[/]   {note}" for note in seen.notes]
    parts += [f"[red bold]STUCK[/]  {sentence}" for sentence in seen.stuck] or ["[green]Nothing is stuck.[/]"]
    return Group(*parts)


def _verdict(audit: Audit) -> str:
    broken = sum(each.breaches > 0 for each in audit.findings)
    return f"[red]{broken} invariants broken[/]" if broken else f"all {len(audit.findings)} invariants hold"


def partitions(as_json: AsJson = False) -> None:
    """Every partition: what waits in it and for how long, who has its lock, when something was applied last.

    One session at a time drains a partition. A holder called bursar-worker is a drain, of milliseconds; any other
    stops the drains for a change of a register. `broke` counts drains that one of its commands broke; at 3 it fails.
    """
    found = ask(overview.partitions)
    if as_json:
        for each in found:
            json_line(partition_object(each))
        return
    screen().print(partitions_table(found))


def partitions_table(found: Sequence[Partition]) -> Table:
    table = Table("partition", "pending", "oldest", "broke", "held by", "last applied", box=None, padding=(0, 2))
    for each in found:
        holder = f"{each.holder}, process {each.holder_pid}" if each.holder else ""
        if each.held_s is not None and each.holder:
            holder += f", for {age(each.held_s)}"
        oldest = age(each.oldest_s) if each.pending else ""
        late = f"[red]{oldest}[/]" if each.oldest_s > STUCK_S else oldest
        pending = f"{each.pending:,}{' and more' if each.more else ''}"
        table.add_row(
            str(each.partition), pending, late, str(each.attempts or ""), holder, when(each.last_applied_at, "never")
        )
    return table
