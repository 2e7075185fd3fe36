"""`bursar keys`: API keys, made and withdrawn by whoever may reach the database."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from bursar import desk
from ledger import keys
from ledger.keys import SCOPES, Scope
from ledger.tenants import DEFAULT_TENANT, create_tenant
from runtime.settings import settings

app = typer.Typer(help="API keys: create, list, rotate, revoke.", no_args_is_help=True)

ROTATION_OVERLAP_H = 24.0  # a day to bring the new key to every server

_scopes_help = "What it opens; repeat it for several. " + "; ".join(
    f"{scope}: {opens}" for scope, opens in SCOPES.items()
)


@app.command()
def create(
    scope: Annotated[list[Scope], typer.Option(help=_scopes_help)],
    client: Annotated[str, typer.Option(help="Whose key it is; created where the tenant has none of that name.")],
    tenant: Annotated[str, typer.Option(help="The tenant's code.")] = DEFAULT_TENANT,
    new_tenant: Annotated[bool, typer.Option("--new-tenant", help="Create the tenant if it is missing.")] = False,
    expires_in_days: Annotated[float | None, typer.Option(help="[default: never expires]", min=0)] = None,
) -> None:
    """Create a key and print it, this once: only its hash is stored."""
    expires_at = None if expires_in_days is None else datetime.now(UTC) + timedelta(days=expires_in_days)
    with desk.registering() as engine:
        if new_tenant:
            create_tenant(engine, tenant)
        key = keys.create_key(
            engine, env=settings().env, client=client, scopes=set(scope), tenant=tenant, expires_at=expires_at
        )
    _hand_over(key)


@app.command("list")
def list_(tenant: Annotated[str | None, typer.Option(help="[default: of every tenant]")] = None) -> None:
    """Show every key: whose, what it opens, when it was last used. Never the key itself."""
    table = Table("id", "whose", Column("key", no_wrap=True), "scopes", "state", "expires", "last used")
    for column in table.columns:
        column.overflow = "fold"  # a name cut short is no name
    with desk.registering() as engine:
        for key in keys.list_keys(engine, tenant=tenant):
            state = "works" if key.works else "revoked" if key.revoked_at else "expired"
            times = (key.expires_at, key.last_used_at)
            shown = (f"{at:%Y-%m-%d %H:%M}" if at else "never" for at in times)
            table.add_row(
                str(key.id), f"{key.tenant}: {key.client}", f"{key.prefix}…", "\n".join(key.scopes), state, *shown
            )
    Console().print(table)


@app.command()
def rotate(
    key_id: Annotated[int, typer.Argument(help="Its number in `bursar keys list`.")],
    overlap_hours: Annotated[
        float, typer.Option(help="How long the old key goes on working.", min=0)
    ] = ROTATION_OVERLAP_H,
) -> None:
    """Create a key like another and let the old one expire."""
    with desk.registering() as engine:
        key = keys.rotate_key(engine, key_id, overlap=timedelta(hours=overlap_hours))
    _hand_over(key)


@app.command()
def revoke(key_id: Annotated[int, typer.Argument(help="Its number in `bursar keys list`.")]) -> None:
    """Stop a key: within five seconds no api process takes it."""
    with desk.registering() as engine:
        keys.revoke_key(engine, key_id)
    typer.echo(f"Key {key_id} is revoked.", err=True)


def _hand_over(key: str) -> None:
    typer.echo("This key is shown once; keep it where secrets are kept.", err=True)
    typer.echo(key)
