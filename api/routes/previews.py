"""Previews over HTTP: what would come of a command, now."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.bodies import read
from api.canonical import Referred, Referring
from api.requests import CommandRequest
from api.routes.commands import authenticate, command_of, read_referred
from api.sessions import Sessions
from api.shown import outcome_without_place
from ledger import previews
from ledger.ids import command_id
from ledger.keys import Scope

_decoder = msgspec.json.Decoder(CommandRequest)
_encode = msgspec.json.Encoder().encode


async def preview_command(request: Request) -> Response:
    """What would come of this command if it were decided now. Stores nothing, changes nothing, promises nothing."""
    principal = await authenticate(request, Scope.COMMANDS_WRITE)
    body = await read(request, _decoder)
    referred: Referred = {}
    if isinstance(body, Referring):
        referred = await read_referred(request, principal, [body])
    command = command_of(request, principal, body, "", referred)
    sessions: Sessions = request.app.state.previews
    (foreseen,) = await sessions.run(lambda connection: previews.preview(connection, [command]))
    hold = command_id(command.ref_seq, referred[command.ref_seq].accepted_at) if command.ref_seq else None
    outcome = outcome_without_place(foreseen, hold=hold)
    shown = {"object": "preview", "status": foreseen.status, "outcome": outcome}
    return Response(_encode(shown), media_type="application/json")


routes = [Route("/v1/commands/preview", preview_command, methods=["POST"])]
