"""The command line. Each process of Bursar is one command; heavy imports wait until a command needs them."""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from bursar import audit, keys, operators, receipts
from bursar.bench.command import bench
from bursar.desk import commands as commands_
from bursar.desk import moving
from bursar.desk import status as status_
from bursar.desk import wallets as wallets_
from bursar.desk import webhooks as webhooks_


class _Commands(TyperGroup):
    """Tells of settings that are missing or wrong in a line each."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ValidationError as error:
            if error.title != "Settings":
                raise
            for fault in error.errors(include_url=False, include_input=False, include_context=False):
                name = "".join(f"BURSAR_{part}".upper() for part in fault["loc"])
                what = "is not set" if fault["type"] == "missing" else fault["msg"].removeprefix("Value error, ")
                typer.echo(f"{name}: {what}", err=True)
            typer.echo("Settings are environment variables; docs/settings.md lists them.", err=True)
            raise typer.Exit(2) from None


app = typer.Typer(
    name="bursar",
    cls=_Commands,
    help="A wallet service for virtual credits: durable commands, a double-entry ledger, exactly one outcome each.",
    epilog="Settings are environment variables: BURSAR_DATABASE_URL, BURSAR_REDIS_URL … (docs/settings.md).",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # a local may hold a password
    rich_markup_mode="markdown",
)


@app.command()
def api(
    host: Annotated[str | None, typer.Option(help="Where to listen. [default: BURSAR_HOST or 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="0 takes a free one. [default: BURSAR_PORT or 8000]")] = None,
) -> None:
    """Serve HTTP: accept commands, answer for their outcomes. Run as many as you like behind a balancer."""
    from api.serve import serve

    serve(host=host, port=port)


@app.command()
def worker(
    partitions: Annotated[
        str | None, typer.Option("--partitions", "-Q", help="Serve only these, as in 0,3,5. [default: all]")
    ] = None,
    concurrency: Annotated[int, typer.Option("--concurrency", "-c", help="Processes that drain.", min=1)] = 1,
    name: Annotated[str | None, typer.Option(help="This worker's name in Flower. [default: bursar@host-pid]")] = None,
    webhooks: Annotated[bool, typer.Option("--webhooks", help="Deliver webhooks, and drain nothing.")] = False,
) -> None:
    """Apply commands to the ledger: answer doorbells, and look out for what no doorbell announced."""
    from worker.serve import serve, serve_webhooks

    if webhooks:
        if partitions is not None or concurrency != 1:
            raise typer.BadParameter("--webhooks goes with neither --partitions nor --concurrency")
        serve_webhooks(name=name)
        return
    serve(partitions=partitions, concurrency=concurrency, name=name)


@app.command()
def migrate(
    to: Annotated[str, typer.Option(help="A revision, or head.")] = "head",
    down: Annotated[bool, typer.Option("--down", help="Go down to that revision instead of up.")] = False,
) -> None:
    """Bring the database's schema to this version. Safe to run again, and from several places at once."""
    from bursar.schema import migrate as run

    run(to=to, down=down)


@app.command()
def seed(
    url: Annotated[str, typer.Option(envvar="BURSAR_URL", help="The running api.")] = "http://127.0.0.1:8000",
    *,
    key: Annotated[str, typer.Option(envvar="BURSAR_API_KEY", help="A key with all scopes.")],
) -> None:
    """Put in the demo data: three assets, three players, by real commands. Safe to run again."""
    from bursar.seed import seed as run

    run(url=url, key=key)


@app.command()
def flower(
    basic_auth: Annotated[str, typer.Option(envvar="BURSAR_FLOWER_BASIC_AUTH", help="user:password to ask for.")],
    host: Annotated[str, typer.Option(envvar="BURSAR_FLOWER_HOST", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="BURSAR_FLOWER_PORT", help="Flower's port.")] = 5555,
) -> None:
    """Show workers and doorbells in Flower, read-only and behind a password."""
    from bursar.local.errors import LocalError
    from bursar.local.flower import run_flower

    try:
        run_flower(host=host, port=port, basic_auth=basic_auth)
    except LocalError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


@app.command()
def run(
    home: Annotated[Path, typer.Option(envvar="BURSAR_HOME", help="Where data and logs live.")] = Path(".bursar"),
    host: Annotated[str, typer.Option(envvar="BURSAR_HOST", help="Where the api listens.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="BURSAR_PORT", help="The api's port.")] = 8000,
    database_url: Annotated[
        str, typer.Option(envvar="BURSAR_DATABASE_URL", help="Use this PostgreSQL instead of one of our own.")
    ] = "",
    redis_url: Annotated[
        str, typer.Option(envvar="BURSAR_REDIS_URL", help="Use this Redis instead of one of our own.")
    ] = "",
) -> None:
    """Run the whole service on this machine, databases included, until Ctrl-C. What `make run` does."""
    from bursar.local.stack import run_local

    raise typer.Exit(run_local(home=home, host=host, port=port, database_url=database_url, redis_url=redis_url))


app.command("status")(status_.status)
app.command("partitions")(status_.partitions)
app.add_typer(commands_.app, name="commands")
app.add_typer(wallets_.app, name="wallets")
app.add_typer(webhooks_.app, name="webhooks")
app.command("export")(moving.export)
app.command("import")(moving.import_)
app.command("audit")(audit.audit)
app.add_typer(keys.app, name="keys")
app.add_typer(operators.app, name="operators")
app.add_typer(receipts.app, name="receipts")
app.command("bench")(bench)
