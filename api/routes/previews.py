"""Previews over HTTP: what would come of a command, now."""

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.bodies import read
from api.canonical import Referred, Referring
from api.problems import invalid
from api.requests import CommandRequest
from api.routes.batches import group_of, items_of
from api.routes.commands import authenticate, command_of, read_referred
from api.sessions import Sessions
from ledger import previews
from ledger.ids import command_id
from ledger.inbox import NewCommand
from ledger.keys import Scope
from runtime.shown import outcome_without_place

_decoder = msgspec.json.Decoder(CommandRequest)
_encode = msgspec.json.Encoder().encode


async def preview_command(request: Request) -> Response:
    """What would come of this command if it were decided now. Stores nothing, changes nothing, promises nothing."""
    principal = await authenticate(request, Scope.COMMANDS_WRITE)
    body = await read(request, _decoder)
    referred: Referred = {}
    if isinstance(body, Referring):
        referred = await read_referred(request, principal, [body])
    (shown,) = await _previewed(request, [command_of(request, principal, body, "", referred)], referred)
    return Response(_encode(shown), media_type="application/json")


async def preview_batch(request: Request) -> Response:
    """The same of an atomic batch: what would come of each of its commands, in their order."""
    principal = await authenticate(request, Scope.COMMANDS_WRITE)
    items, atomic = await items_of(request)
    if not atomic:
        raise invalid("/atomic", "must be true: what is not one transaction is previewed one by one")
    referred = await read_referred(request, principal, items)
    results = await _previewed(request, group_of(request, principal, items, referred), referred)
    return Response(_encode({"results": results}), media_type="application/json")


async def _previewed(request: Request, commands: Sequence[NewCommand], referred: Referred) -> list[dict[str, Any]]:
    sessions: Sessions = request.app.state.previews
    foreseen = await sessions.run(lambda connection: previews.preview(connection, commands))
    shown: list[dict[str, Any]] = []
    for command, each in zip(commands, foreseen, strict=True):
        hold = command_id(command.ref_seq, referred[command.ref_seq].accepted_at) if command.ref_seq else None
        outcome = outcome_without_place(each, hold=hold)
        shown.append({"object": "preview", "status": each.status, "outcome": outcome})
    return shown


routes = [
    Route("/v1/commands/preview", preview_command, methods=["POST"]),
    Route("/v1/commands/batch/preview", preview_batch, methods=["POST"]),
]
