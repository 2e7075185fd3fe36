"""`bursar webhooks`: how deliveries go, and sending again what did not arrive."""

from datetime import UTC, datetime
from typing import Annotated, Any

import psycopg
import typer
from rich.markup import escape
from rich.table import Table

from api.times import instant
from bursar.desk import (
    AnyTenant,
    AsJson,
    Tenant,
    age,
    ask,
    json_line,
    one_tenant,
    refused,
    screen,
    tenant_id,
    when,
    writing,
)
from ledger import endpoints, timeline
from ledger.endpoints import Endpoint, Stats
from ledger.ids import Kind, endpoint_id, event_id, parse_id, unix_ms
from ledger.tenants import DEFAULT_TENANT

app = typer.Typer(help="Webhooks: how they go, and sending again what did not arrive.", no_args_is_help=True)

EndpointName = Annotated[str, typer.Argument(help="An endpoint's id, from `bursar webhooks list`.")]


@app.command("list")
def list_(tenant: AnyTenant = None, as_json: AsJson = False) -> None:
    """Every endpoint: where it sends, whether that works, what waits and what was given up."""
    which = ask(lambda connection: tenant_id(connection, tenant))
    tenants = ask(timeline.tenants)
    table = Table("endpoint", "status", "pending", "given up", "p99", "whose", "url", box=None, padding=(0, 2))
    with writing() as connection:
        for id_, code in tenants:
            if which is not None and id_ != which:
                continue
            for each in endpoints.listed(connection, id_, after=0, limit=endpoints.ENDPOINTS_MAX):
                stats = endpoints.stats(connection, each.id)
                if as_json:
                    json_line(_object(each, stats, code))
                    continue
                p99 = "" if stats.p99_ms is None else f"{stats.p99_ms:,} ms"
                waits = f"{stats.pending:,}"
                if stats.oldest_pending_at is not None:
                    waits += f", {age((datetime.now(UTC) - stats.oldest_pending_at).total_seconds())} old"
                id_text = endpoint_id(each.id, each.created_at)
                url = escape(each.settings.url)
                table.add_row(id_text, _status(each), waits, f"{stats.exhausted:,}", p99, code, url)
    if not as_json:
        for column in table.columns:
            column.overflow = "fold"
        screen().print(table if table.row_count else "There is no webhook endpoint.")


def _status(each: Endpoint) -> str:
    if each.status == "disabled":
        return f"[red]disabled[/]: {escape(each.disabled_reason or 'by hand')}"
    if each.failing_since is not None:
        return f"[yellow]fails since {when(each.failing_since)}[/]"
    return "enabled"


def _object(each: Endpoint, stats: Stats, tenant: str) -> dict[str, Any]:
    return {
        "id": endpoint_id(each.id, each.created_at),
        "tenant": tenant,
        "url": each.settings.url,
        "status": each.status,
        "disabled_reason": each.disabled_reason,
        "failing_since": each.failing_since,
        "pending": stats.pending,
        "exhausted": stats.exhausted,
        "attempts": stats.attempts,
        "failed_attempts": stats.failures,
        "p99_ms": stats.p99_ms,
        "oldest_pending_at": stats.oldest_pending_at,
    }


@app.command()
def resend(
    endpoint: EndpointName,
    event: Annotated[str, typer.Argument(help="The event's id: `bursar commands show` tells it.")],
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Send one delivery again now, whatever became of it, with the same webhook-id. A courier has it in a second."""
    which = ask(lambda connection: one_tenant(connection, tenant))
    parsed = parse_id(Kind.EVENT, event)
    with writing() as connection:
        known = _find(connection, which, endpoint)
        found = endpoints.deliveries_of(connection, known.id, before=None, limit=1, seq=parsed[0]) if parsed else []
        if not found or parsed is None or unix_ms(found[0].at) != parsed[1]:
            raise refused(f"the endpoint has no delivery of event {event}")
        endpoints.resend(connection, known.id, found[0].seq)
    typer.echo(f"{event_id(found[0].seq, found[0].at)} is due now.")


@app.command()
def recover(
    endpoint: EndpointName,
    since: Annotated[str, typer.Option(help="RFC 3339 with offset: of commands accepted since then.")],
    tenant: Tenant = DEFAULT_TENANT,
) -> None:
    """Send again what was given up, of commands accepted since a time. In steps, each a short transaction."""
    which = ask(lambda connection: one_tenant(connection, tenant))
    with writing() as connection:
        known = _find(connection, which, endpoint)
        queued, after = 0, endpoints.seq_before(connection, instant(since))
        place: int | None = after
        while place is not None:
            number, place = endpoints.recover(connection, known.id, after=place)
            queued += number
    typer.echo(f"{queued:,} deliveries are due now.")


def _find(connection: psycopg.Connection[Any], tenant_id: int, name: str) -> Endpoint:
    parsed = parse_id(Kind.ENDPOINT, name)
    found = endpoints.find(connection, tenant_id, parsed[0]) if parsed else None
    if found is None or parsed is None or unix_ms(found.created_at) != parsed[1]:
        raise refused(f"the tenant has no webhook endpoint {name}")
    return found
