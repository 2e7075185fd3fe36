"""`bursar receipts`: check one offline, make a key to sign them with."""

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from runtime import base64url
from runtime.receipts import Unverified, jwk, verify
from runtime.receipts import new_key as make_key

app = typer.Typer(help="Receipts: check one offline, make a key to sign them with.", no_args_is_help=True)


@app.command("new-key")
def new_key() -> None:
    """Print a new private key, for BURSAR_RECEIPT_KEY. Its public half goes to standard error."""
    key, public = make_key()
    typer.echo(f"Keep it where secrets are kept. Its public key is {public['x']}, its name {public['kid']}.", err=True)
    typer.echo(key)


@app.command("verify")
def verify_file(
    file: Annotated[str, typer.Argument(help="The receipt; - reads standard input.")],
    jwks: Annotated[Path | None, typer.Option(help="The service's /.well-known/jwks.json, as you saved it.")] = None,
    key: Annotated[list[str] | None, typer.Option(help="A public key you trust, in base64; may be repeated.")] = None,
) -> None:
    """Check a receipt: its signature, and that its hash is that of what it says. No network, no database.

    Exits with 1 where it is not good, with 2 where it could not look.
    """
    try:
        keys: list[dict[str, Any]] = [dict(jwk(base64url.key_bytes(public))) for public in key or ()]
        if jwks is not None:
            keys += msgspec.json.decode(jwks.read_bytes(), type=dict[str, list[dict[str, Any]]])["keys"]
        receipt = msgspec.json.decode(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
    except (OSError, ValueError, KeyError, msgspec.MsgspecError) as error:
        typer.echo(f"Cannot look: {error}", err=True)
        raise typer.Exit(2) from error
    if not keys:
        typer.echo("Cannot look: give --jwks or --key, from somebody you trust.", err=True)
        raise typer.Exit(2)
    try:
        said = verify(receipt, keys)
    except Unverified as error:
        typer.echo(f"Not good: {error}.", err=True)
        raise typer.Exit(1) from error
    command, transfer = said["command"], said["transfer"]
    typer.echo(f"Good: {command['type']} {command['id']} is {command['status']}.")
    if transfer and transfer["hash"]:
        typer.echo(f"It is transfer {transfer['position']} of partition {transfer['partition']}, {transfer['hash']}.")
