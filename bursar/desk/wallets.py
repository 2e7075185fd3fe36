"""`bursar wallets`: what one has, and how it came to that."""

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from api.export import CHUNK_MAX, as_csv
from api.routes.entries import show_balance, statement_line
from api.routes.transfers import show_entry
from api.times import instant
from bursar.desk import AsJson, Tenant, ask, json_line, one_tenant, screen, when
from ledger import changes, history, reads, timeline
from ledger.history import AheadOfTime, AssetNotFound, Entry, Filter, Spans, Statement
from ledger.ids import lot_id
from ledger.partitions import partition_of
from ledger.reads import Wallet
from ledger.tenants import DEFAULT_TENANT

app = typer.Typer(help="Wallets: what one has, and how it came to that.", no_args_is_help=True)

WalletName = Annotated[str, typer.Argument(help="The wallet's id, as its owner named it.")]


@app.command()
def show(wallet: WalletName, tenant: Tenant = DEFAULT_TENANT, as_json: AsJson = False) -> None:
    """What a wallet has of each asset: posted, held, queued to go, available; its lots; what was done to it by hand."""

    async def read(connection: AsyncConnection) -> tuple[Wallet, list[changes.Change]]:
        which = await one_tenant(connection, tenant)
        count = len(await timeline.partition_numbers(connection))
        found = await reads.wallet(connection, which, wallet, partition=partition_of(which, wallet, count))
        if found is None or wallet.startswith("@"):
            raise LookupError(f"tenant {tenant!r} has no wallet {wallet!r}")
        return found, await changes.of_wallet(connection, which, wallet, before=None, limit=5)

    found, lately = ask(read)
    if as_json:
        json_line(_object(found))
        return
    out = screen()
    name = f" ({escape(found.name)})" if found.name else ""
    out.print(f"[bold]{found.id}[/]{name}: {found.status}, since {when(found.created_at)}", soft_wrap=True)
    table = Table("asset", "posted", "held", "queued", "available", "version", "lots", box=None, padding=(0, 2))
    for each in found.accounts:
        amounts = (f"{amount:,}" for amount in (each.posted, each.held, each.queued, each.available))
        table.add_row(each.asset, *amounts, str(each.version), str(len(each.lots or ())))
    out.print(table if table.row_count else "It has nothing, and never had.")
    for change in lately:
        why = f": {change.reason}" if change.reason else ""
        out.print(escape(f"{when(change.at)}  {change.member} by {change.client}{why}"), soft_wrap=True)


def _object(found: Wallet) -> dict[str, Any]:
    return {
        "id": found.id,
        "status": found.status,
        "name": found.name,
        "created_at": found.created_at,
        "accounts": [
            {
                "asset": each.asset,
                "posted": str(each.posted),
                "held": str(each.held),
                "queued": str(each.queued),
                "available": str(each.available),
                "version": each.version,
                "lots": [
                    {"id": lot_id(lot.seq, lot.n, lot.at), "remaining": str(lot.remaining), "held": str(lot.held),
                     "source": lot.source, "priority": lot.priority, "expires_at": lot.expires_at}
                    for lot in each.lots or ()
                ],
            }
            for each in found.accounts
        ],
    }  # fmt: skip


@app.command()
def statement(
    wallet: WalletName,
    asset: Annotated[str, typer.Option(help="Of which asset.")],
    since: Annotated[str | None, typer.Option("--from", help="RFC 3339 with offset. [default: the beginning]")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Entries before it. [default: now]")] = None,
    tenant: Tenant = DEFAULT_TENANT,
    csv: Annotated[bool, typer.Option("--csv", help="As the api writes it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A line for each, the two balances among them.")] = False,
) -> None:
    """An asset's balance, every entry since, the balance then: the first and the entries make the last. Streamed."""
    if csv and as_json:
        raise typer.BadParameter("say --csv or --json")

    async def tell(connection: AsyncConnection) -> None:
        which = await one_tenant(connection, tenant)
        found = await _frame(connection, which, wallet, asset, since, until)
        chunks = _chunks(connection, wallet, found.entries)
        first = statement_line("opening_balance", found.since, asset, found.opening)
        last = statement_line("closing_balance", found.until, asset, found.closing)
        if csv:
            async for part in as_csv(chunks, first=first, last=last):
                typer.echo(part.decode(), nl=False)
        elif as_json:
            json_line(first | show_balance(found.opening))
            async for entries in chunks:
                for entry in entries:
                    json_line(show_entry(entry))
            json_line(last | show_balance(found.closing))
        else:
            await _print(chunks, asset, found)

    ask(tell)


async def _print(chunks: AsyncGenerator[list[Entry]], asset: str, found: Statement) -> None:
    """Lines of one width, as they come: a table would have to know them all."""
    typer.echo(f"{'at':<19}  {'type':<14}  {'amount':>16}  {'posted':>16}  {'held':>12}  reference")
    typer.echo(_row(when(found.since, "the beginning"), "opening", "", found.opening.posted, found.opening.held, ""))
    async for entries in chunks:
        for entry in entries:
            amount = f"{entry.amount:+,}" if entry.amount else "0"
            typer.echo(
                _row(when(entry.at), entry.type, amount, entry.balance_after, entry.held_after, entry.reference or "")
            )
    typer.echo(_row(when(found.until), "closing", "", found.closing.posted, found.closing.held, asset))


def _row(at: str, type_: str, amount: str, posted: int, held: int, reference: str) -> str:
    return f"{at:<19}  {type_:<14}  {amount:>16}  {posted:>16,}  {held:>12,}  {reference}".rstrip()


async def _frame(
    connection: AsyncConnection, tenant_id: int, wallet: str, asset: str, since: str | None, until: str | None
) -> Statement:
    try:
        times: list[datetime | None] = [None if time is None else instant(time) for time in (since, until)]
        found = await history.statement(connection, tenant_id, wallet, asset, since=times[0], until=times[1])
    except AheadOfTime:
        raise ValueError("--to is yet to come") from None
    except AssetNotFound:
        raise LookupError(f"the tenant has no asset {asset!r}") from None
    if found is None or wallet.startswith("@"):
        raise LookupError(f"the tenant has no wallet {wallet!r}")
    return found


async def _chunks(connection: AsyncConnection, wallet: str, left: Spans) -> AsyncGenerator[list[Entry]]:
    """Oldest first, a short read each."""
    while left:
        found, left = await history.entries(connection, wallet, left, Filter(), limit=CHUNK_MAX, newest_first=False)
        if found:
            yield found
