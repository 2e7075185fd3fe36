"""`bursar migrate`: alembic, found beside the installed code."""

import time
from pathlib import Path

import psycopg
import typer
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import OperationalError

import migrations
from runtime.settings import settings

READY_WITHIN_S = 30  # a database that starts beside us is there within seconds


def alembic_config(database_url: str) -> Config:
    """Alembic's configuration without a file: where the migrations lie and which database to migrate."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["url"] = database_url
    return config


def migrate(*, to: str = "head", down: bool = False) -> None:
    """Raises typer.Exit with a clear sentence where the database cannot be reached or a lock cannot be had."""
    url = settings().database_url.get_secret_value()
    config = alembic_config(url)
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            (command.downgrade if down else command.upgrade)(config, to)
            break
        except OperationalError as error:
            if isinstance(error.orig, psycopg.errors.LockNotAvailable):
                typer.echo("No lock within 4 s, so nothing was changed. Try again at a calmer moment.", err=True)
                raise typer.Exit(1) from error
            if time.monotonic() > deadline:
                typer.echo(f"The database does not answer: {str(error.orig).strip()}", err=True)
                raise typer.Exit(1) from error
            time.sleep(0.5)
    typer.echo(f"The schema is at {to}.")
