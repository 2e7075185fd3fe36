"""`bursar commands`: what became of one, which ones failed or wait, and what an operator may do about it."""

import getpass
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table
from sqlalchemy.ext.asyncio import AsyncConnection

from bursar.desk import (
    AnyTenant,
    AsJson,
    Named,
    OfClient,
    Tenant,
    ask,
    json_line,
    refused,
    screen,
    tenant_id,
    when,
    writing,
)
from ledger import cancelling, requeuing, timeline
from ledger.changes import REASON_MAX, By
from ledger.commands import LEDGER_CLIENT, read_options
from ledger.ids import command_id, endpoint_id, event_id, transfer_id
from ledger.requeuing import Failed, NotFailed
from ledger.tenants import DEFAULT_TENANT
from ledger.timeline import Several, Timeline, Waiting
from runtime.shown import represent

app = typer.Typer(help="Commands: what became of one, which failed or wait; requeue, cancel.", no_args_is_help=True)

PAGE = 200
LIMIT = 50


async def _find(connection: AsyncConnection, tenant: str | None, name: str, client: str | None) -> int:
    which = await tenant_id(connection, tenant)
    try:
        return await timeline.find(connection, which, name, client=client)
    except Several as several:
        raise LookupError(f"several clients have sent that key, say --client or an id: {several}") from None


# --- one -----------------------------------------------------------------------------------------------------------


@app.command()
def show(name: Named, tenant: AnyTenant = None, client: OfClient = None, as_json: AsJson = False) -> None:
    """The life of one command: asked, tried, decided, written, told.

    Takes whatever id there is: the command's, its transfer's, its webhook event's, or the key that it was sent under.
    """

    async def read(connection: AsyncConnection) -> Timeline:
        return await timeline.timeline(connection, await _find(connection, tenant, name, client))

    found = ask(read)
    if as_json:
        json_line(_object(found))
    else:
        _print(found)


def _object(found: Timeline) -> dict[str, Any]:
    state = found.state
    return {
        "command": represent(state),
        "tenant": found.tenant,
        "client": found.client,
        "partition": state.partition,
        "drains_broken": found.attempts,
        "group_size": len(found.group),
        "requeued_as": command_id(*found.requeued_as) if found.requeued_as else None,
        "requeued_by": found.by,
        "requeue_reason": found.reason,
        "entries": [
            {
                "wallet": entry.wallet,
                "asset": entry.asset,
                "amount": str(entry.amount),
                "balance_after": None if entry.wallet.startswith("@") else str(entry.balance_after),
                "version": None if entry.wallet.startswith("@") else entry.version,
            }
            for entry in found.entries
        ],
        "deliveries": [
            {
                "endpoint": endpoint_id(each.endpoint_id, each.endpoint_created_at),
                "status": each.status,
                "next_attempt_at": each.due_at,
                "attempts": [
                    {"at": attempt.at, "status": attempt.status, "failure": attempt.failure, "took_ms": attempt.took_ms}
                    for attempt in each.attempts
                ],
            }
            for each in found.deliveries
        ],
    }


def _print(found: Timeline) -> None:
    state, out = found.state, screen()
    amount = "all that is left" if state.amount is None else f"{state.amount:,}"
    to = f" to {state.to_wallet}" if state.to_wallet else ""
    of = f"{amount} {state.asset} of {state.wallet}{to}" if state.wallet else "a key that was cancelled before it came"
    out.print(f"[bold]{state.type}[/] {command_id(state.seq, state.accepted_at)}: {of}", soft_wrap=True)
    lines = Table.grid(padding=(0, 2))
    whose = found.client or "the ledger itself"
    lines.add_row(
        when(state.accepted_at), "accepted", escape(f"from {found.tenant}: {whose}, key {state.idempotency_key}")
    )
    if state.reference:
        lines.add_row("", "reference", escape(state.reference))
    if len(found.group) > 1:
        place = found.group.index(state.seq) + 1
        lines.add_row("", "group", f"{place} of {len(found.group)}, all or nothing")
    if (failed := read_options(state.options).requeue_of) is not None:
        who = f"by {found.by or 'somebody'}{': ' + found.reason if found.reason else ''}"
        lines.add_row("", "requeued", escape(f"repeats {failed}, {who}"))
    if found.attempts:
        lines.add_row("", "broke", f"{found.attempts} drains; after 3 it fails")
    if state.status is None:
        expiry = f", until {when(state.expires_at)}" if state.expires_at else ""
        lines.add_row("", "[yellow]pending[/]", f"in partition {state.partition}{expiry}")
    else:
        colour = {"applied": "green", "failed": "red bold"}.get(state.status, "yellow")
        said = f"{state.code}{': ' + state.detail if state.detail else ''}"
        lines.add_row(when(state.at), f"[{colour}]{state.status}[/]", escape(said))
        lines.add_row("", "by", f"task {state.task_id}" if state.task_id else "a look-out, or a cancel; no task")
    if found.requeued_as:
        lines.add_row(when(found.requeued_as[1]), "asked again", command_id(*found.requeued_as))
    elif state.status == "failed":
        lines.add_row("", "next", "`bursar commands requeue` once the defect is mended")
    if state.status == "applied" and state.at is not None:
        lines.add_row("", "transfer", transfer_id(state.seq, state.at))
    for entry in found.entries:
        left = "" if entry.wallet.startswith("@") else f", leaves {entry.balance_after:,} (version {entry.version})"
        lines.add_row("", "entry", f"{entry.amount:+,} {entry.asset} {entry.wallet}{left}")
    for each in found.deliveries:
        event = event_id(state.seq, state.at) if state.at else ""
        due = f", due {when(each.due_at)}" if each.due_at else ""
        endpoint = endpoint_id(each.endpoint_id, each.endpoint_created_at)
        lines.add_row("", "webhook", f"{each.status}{due}, event {event} to endpoint {endpoint}")
        for attempt in each.attempts:
            answer = f"answered {attempt.status}" if attempt.status else "no answer"
            went = f"{answer}{', ' + attempt.failure if attempt.failure else ''} in {attempt.took_ms} ms"
            lines.add_row(when(attempt.at), f"attempt {attempt.n}", went)
    out.print(lines)


# --- which ---------------------------------------------------------------------------------------------------------


@app.command("list")
def list_(
    failed: Annotated[bool, typer.Option("--failed", help="Those that failed by a defect, newest first.")] = False,
    pending: Annotated[bool, typer.Option("--pending", help="Those that wait, oldest first.")] = False,
    open_only: Annotated[bool, typer.Option("--open", help="With --failed: those that nobody has requeued.")] = False,
    tenant: AnyTenant = None,
    limit: Annotated[int, typer.Option(help="At the most; 0: all of them.", min=0)] = LIMIT,
    as_json: AsJson = False,
) -> None:
    """Commands that failed, or that wait. With --json a line for each, to be read by `jq -r .id`."""
    if failed == pending:
        raise typer.BadParameter("say --failed or --pending")
    if pending:
        _list_pending(tenant, limit or PAGE * PAGE, as_json)
    else:
        _list_failed(tenant, limit, open_only, as_json)


def _list_pending(tenant: str | None, limit: int, as_json: bool) -> None:
    async def read(connection: AsyncConnection) -> list[Waiting]:
        return await timeline.pending(connection, await tenant_id(connection, tenant), limit=limit)

    found = ask(read)
    if as_json:
        for each in found:
            json_line({"id": each.id, "type": each.type, "wallet": each.wallet, "partition": each.partition,
                       "drains_broken": each.attempts, "size": each.size, "accepted_at": each.accepted_at,
                       "tenant": each.tenant, "client": each.client})  # fmt: skip
        return
    table = Table("accepted", "id", "what", "partition", "broke", "whose", box=None, padding=(0, 2))
    for each in found:
        what = _what(each.type, each.amount, each.asset, each.wallet) + (
            f" (+{each.size - 1})" if each.size > 1 else ""
        )
        whose = f"{each.tenant}: {each.client or 'the ledger'}"
        table.add_row(
            when(each.accepted_at), each.id, what, str(each.partition), str(each.attempts or ""), escape(whose)
        )
    _table(table, "Nothing is pending.")


def _list_failed(tenant: str | None, limit: int, open_only: bool, as_json: bool) -> None:
    table = Table("failed", "id", "what", "whose", "requeued as", box=None, padding=(0, 2))

    async def read(connection: AsyncConnection) -> None:
        which, before, left = await tenant_id(connection, tenant), None, limit or None
        while left is None or left > 0:
            page = await requeuing.failed(connection, which, before=before, limit=PAGE)
            for each in page:
                if (open_only and each.requeued_as is not None) or left == 0:
                    continue
                left = None if left is None else left - 1
                if as_json:
                    json_line(_failed_object(each))
                else:
                    again = _requeued_as(each)
                    what = _what(each.type, each.amount, each.asset, each.wallet)
                    whose = f"{each.tenant}: {each.client or 'the ledger'}"
                    table.add_row(when(each.at), each.id, what, escape(whose), again)
            if len(page) < PAGE:
                return
            before = page[-1].seq

    ask(read)
    if not as_json:
        _table(table, "Nothing has failed." if not open_only else "Nothing that failed waits for a requeue.")


def _requeued_as(each: Failed) -> str | None:
    return command_id(each.requeued_as, each.requeued_at) if each.requeued_as and each.requeued_at else None


def _failed_object(each: Failed) -> dict[str, Any]:
    return {"id": each.id, "type": each.type, "wallet": each.wallet, "asset": each.asset,
            "amount": None if each.amount is None else str(each.amount), "tenant": each.tenant, "client": each.client,
            "accepted_at": each.accepted_at, "failed_at": each.at, "requeued_as": _requeued_as(each)}  # fmt: skip


def _what(type_: str, amount: int | None, asset: str | None, wallet: str | None) -> str:
    return f"{type_} {'all' if amount is None else f'{amount:,}'} {asset} {wallet}"


def _table(table: Table, empty: str) -> None:
    for column in table.columns:
        column.overflow = "fold"
    out = screen()
    if table.row_count:
        out.print(table)
    else:
        out.print(empty)


# --- acting --------------------------------------------------------------------------------------------------------


@app.command()
def requeue(
    ids: Annotated[list[str], typer.Argument(help="Ids, or idempotency keys, of commands that failed.")],
    reason: Annotated[str, typer.Option(help="Why, for whoever asks later; kept with the wallet's changes.")],
    by: Annotated[str, typer.Option(help="Who you are. [default: your login]")] = "",
    tenant: AnyTenant = None,
    client: OfClient = None,
) -> None:
    """Have the request of a failed command accepted again, once its defect is mended: as a new command.

    The failed one keeps its outcome. Each is requeued once: asking again finds the command that came of it. One of an
    atomic batch takes the whole batch with it. Ask the client first: it may have sent a command of its own instead.
    Prints the failed command's id and the new one's. Exits with 1 at the first that has not failed.
    """
    author = f"{by or getpass.getuser()}: {reason}"
    if len(author) > REASON_MAX:
        raise typer.BadParameter(f"a reason has at most {REASON_MAX} characters, the name included")
    for name in ids:
        seq = ask(lambda connection, name=name: _find(connection, tenant, name, client))
        with writing() as connection:
            try:
                with connection.transaction():
                    done = requeuing.requeue(connection, seq, by=By(LEDGER_CLIENT, None, author))
            except NotFailed as status:
                raise refused(f"{name} is {status}; only a failed command can be requeued") from None
        again = ask(lambda connection, seq=done.seq: timeline.timeline(connection, seq))
        typer.echo(f"{name} {command_id(done.seq, again.state.accepted_at)}")
        if not done.new:
            typer.echo(f"{name} had been requeued before.", err=True)


@app.command()
def cancel(
    name: Named,
    tenant: Tenant = DEFAULT_TENANT,
    client: Annotated[
        str | None, typer.Option("--client", help="Whose key; then a key that never came is cancelled, too.")
    ] = None,
) -> None:
    """Stop a pending command for good; of an atomic batch, all of it.

    What was decided stays: then it says how, and exits with 1. With --client, a key that nothing came under is taken:
    whatever comes under it later is answered as cancelled.
    """

    async def look(connection: AsyncConnection) -> tuple[int, int | None, int | None]:
        which = await tenant_id(connection, tenant)
        assert which is not None
        whose = None if client is None else await timeline.client_id(connection, which, client)
        try:
            return which, whose, await _find(connection, tenant, name, client)
        except LookupError:
            if whose is None:
                raise
            return which, whose, None

    which, whose, seq = ask(look)
    with writing() as connection, connection.transaction():
        if seq is not None:
            done = cancelling.cancel(connection, seq)
        else:
            assert whose is not None
            if " " in name or not (name.isascii() and name.isprintable() and 0 < len(name) <= 255):
                raise refused("a key has 1 to 255 visible ASCII characters")
            done = cancelling.cancel_key(connection, tenant_id=which, client_id=whose, key=name)
    found = ask(lambda to: timeline.timeline(to, done.seq))
    id_ = command_id(done.seq, found.state.accepted_at)
    if found.state.status != "cancelled":
        raise refused(f"{id_} was {found.state.status} before ({found.state.code}); that is final")
    typer.echo(f"{id_} is cancelled{f', with {len(done.seqs) - 1} of its batch' if len(done.seqs) > 1 else ''}.")
