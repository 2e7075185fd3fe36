"""Commands for whoever operates the service: what they share. A connection, a tenant, errors in one line.

Exit codes: 0, it is so, or it is done; 1, it is not; 2, nobody could look.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
import psycopg
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger import db
from ledger.tenants import DEFAULT_TENANT
from runtime.settings import settings

T = TypeVar("T")

PIPE_WIDTH = 160  # of a table that no terminal bounds: a line per row

Tenant = Annotated[str, typer.Option(help="The tenant's code.")]
AnyTenant = Annotated[str | None, typer.Option(help="The tenant's code. [default: every tenant]")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts: JSON on standard output.")]
Named = Annotated[str, typer.Argument(help="A command's id, its transfer's or event's, or its idempotency key.")]
OfClient = Annotated[str | None, typer.Option("--client", help="Whose idempotency key it is, if several have it.")]

NO, COULD_NOT_LOOK = 1, 2


def database_url() -> str:
    return settings().database_url.get_secret_value()


def ask(work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """What `work` reads on a connection of its own. Errors end the process in a line."""

    async def asked() -> T:
        async with reading() as connection:
            return await work(connection)

    with in_a_line():
        return asyncio.run(asked())


class reading:
    """`async with reading() as connection`: each statement is a transaction of its own."""

    def __init__(self) -> None:
        self._engine = db.async_engine(database_url(), application="bursar-cli")

    async def __aenter__(self) -> AsyncConnection:
        try:
            self._connection = await self._engine.connect()
            return await self._connection.execution_options(isolation_level="AUTOCOMMIT")
        except BaseException:
            await self._engine.dispose()
            raise

    async def __aexit__(self, *_: object) -> None:
        await self._connection.close()
        await self._engine.dispose()


@contextmanager
def writing() -> Generator[psycopg.Connection[Any]]:
    """A connection as a drain has one, in no transaction. Errors end the process in a line."""
    with in_a_line(), db.connect(database_url(), application="bursar-cli") as connection:
        connection.autocommit = True
        yield connection


@contextmanager
def registering() -> Generator[Engine]:
    """For what the command line alone writes: keys and operators. Errors end the process in a line."""
    engine = db.engine(database_url(), application="bursar-cli")
    try:
        with in_a_line():
            yield engine
    finally:
        engine.dispose()


_TENANT = text("SELECT id FROM tenants WHERE code = :code")


async def tenant_id(connection: AsyncConnection, code: str | None) -> int | None:
    """None: every tenant's. Raises LookupError."""
    if code is None:
        return None
    found = (await connection.execute(_TENANT, {"code": code})).scalar_one_or_none()
    if found is None:
        raise LookupError(f"no tenant {code!r}; `bursar keys list` shows those that have keys")
    return found


async def one_tenant(connection: AsyncConnection, code: str = DEFAULT_TENANT) -> int:
    found = await tenant_id(connection, code)
    assert found is not None
    return found


@contextmanager
def in_a_line() -> Generator[None]:
    """What goes wrong becomes a sentence that says what to do, and an exit code."""
    try:
        yield
    except (LookupError, ValueError) as error:
        raise refused(str(error.args[0] if error.args else error)) from error
    except (psycopg.Error, DBAPIError) as error:
        raise could_not(why_not(error)) from error
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read has seen enough
        raise typer.Exit(0) from None


def why_not(error: psycopg.Error | DBAPIError) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    said = (str(cause).strip().splitlines() or [""])[0]
    match cause:
        case psycopg.errors.InsufficientPrivilege():
            return f"This database role may not do that: {said}. docs/cli.md says which role each command needs."
        case psycopg.errors.UndefinedTable() | psycopg.errors.UndefinedColumn():
            return f"The database has other tables than this version needs: {said}. Run `bursar migrate`."
        case psycopg.errors.LockNotAvailable():
            return "A drain, or somebody else, has it locked for longer than 5 s. Nothing was changed; try again."
        case psycopg.errors.QueryCanceled():
            return "PostgreSQL took longer than 10 s. Nothing was changed; look at its load, or try again."
        case psycopg.OperationalError() | psycopg.InterfaceError():
            return f"PostgreSQL does not answer: {said}. BURSAR_DATABASE_URL says where it should be."
        case _:
            return f"PostgreSQL refused that, which is a defect of this command: {said}."


def refused(sentence: str) -> typer.Exit:
    """Say it, and exit with NO."""
    typer.echo(f"Error: {sentence}.", err=True)
    return typer.Exit(NO)


def could_not(sentence: str) -> typer.Exit:
    typer.echo(sentence, err=True)
    return typer.Exit(COULD_NOT_LOOK)


# --- showing -------------------------------------------------------------------------------------------------------


def screen() -> Console:
    """Colours for a terminal, unless NO_COLOR is set; a pipe gets plain lines that no width folds."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=PIPE_WIDTH)


_encode = msgspec.json.Encoder(order="sorted").encode


def json_line(value: object) -> None:
    """One JSON value, on a line of its own."""
    sys.stdout.write(_encode(value).decode() + "\n")


def when(at: datetime | None, otherwise: str = "") -> str:
    """UTC, to the second."""
    return f"{at:%Y-%m-%d %H:%M:%S}" if at is not None else otherwise


def age(seconds: float) -> str:
    """`0.3 s`, `42 s`, `7 min`, `3 h`, `2 d`."""
    for unit, size, most in (("s", 1.0, 120), ("min", 60.0, 120), ("h", 3600.0, 48)):
        if seconds < most * size:
            return f"{seconds / size:.1f} {unit}" if seconds < 10 and unit == "s" else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


@contextmanager
def progress(total: int | None, what: str) -> Generator[Callable[[int], None]]:
    """A bar on standard error, where that is a terminal; called with how far it is."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}" + (" of {task.total:,.0f}" if total is not None else "")),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda completed: bar.update(task, completed=completed)
