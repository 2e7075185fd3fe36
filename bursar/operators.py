"""`bursar operators`: people who sign in to the dashboard with a password."""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bursar import desk
from ledger import operators
from ledger.operators import PASSWORD_MIN, Role
from ledger.tenants import DEFAULT_TENANT

app = typer.Typer(help="Operators of the dashboard: add, list, disable.", no_args_is_help=True)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What to sign in with: one of a kind in the whole deployment.")],
    role: Annotated[Role, typer.Option(help="operator: may act; read_only: may look.")] = Role.READ_ONLY,
    tenant: Annotated[str, typer.Option(help="The tenant's code.")] = DEFAULT_TENANT,
    renew: Annotated[
        bool, typer.Option("--renew", help="Give one that is there this password and role, and sign it out.")
    ] = False,
) -> None:
    """Add an operator. The password is asked for, or read from standard input; it is never an argument."""
    password = _password()
    with desk.registering() as engine:
        operators.add_operator(engine, name=name, password=password, role=role, tenant=tenant, renew=renew)
    typer.echo(f"{name} may sign in.", err=True)


@app.command("list")
def list_(tenant: Annotated[str | None, typer.Option(help="[default: of every tenant]")] = None) -> None:
    """Show every operator."""
    table = Table("name", "tenant", "role", "since", "state")
    for column in table.columns:
        column.overflow = "fold"
    with desk.registering() as engine:
        for each in operators.list_operators(engine, tenant=tenant):
            state = f"disabled {each.disabled_at:%Y-%m-%d %H:%M}" if each.disabled_at else "works"
            table.add_row(each.name, each.tenant, each.role, f"{each.created_at:%Y-%m-%d %H:%M}", state)
    Console().print(table)


@app.command()
def disable(name: Annotated[str, typer.Argument(help="The operator's name.")]) -> None:
    """Sign an operator out and let him in no more."""
    with desk.registering() as engine:
        operators.disable_operator(engine, name)
    typer.echo(f"{name} is disabled.", err=True)


def _password() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    prompt = f"Password, {PASSWORD_MIN} characters or more"
    return typer.prompt(prompt, hide_input=True, confirmation_prompt="And again")
