"""Requeuing over HTTP: an operator has the request of a failed command accepted again."""

from typing import Any

import msgspec
import psycopg
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.bodies import read_optional
from api.problems import Problem
from api.routes.changes import Reason, by
from api.routes.commands import authenticate, named_in_path
from api.sessions import Sessions
from api.waiting import Waiting
from ledger import requeuing
from ledger.keys import Scope
from ledger.requeuing import NotFailed, Requeued
from runtime.doorbell import Doorbell
from runtime.shown import represent

_reason = msgspec.json.Decoder(Reason)
_encode = msgspec.json.Encoder().encode


async def requeue_command(request: Request) -> Response:
    """202 with the command that asks it again; 200 once that one has its outcome."""
    principal = await authenticate(request, Scope.ADMIN)
    asked = await read_optional(request, _reason)
    state = await named_in_path(request, principal)
    author = by(principal, asked.reason)

    def committed(connection: psycopg.Connection[Any]) -> Requeued:
        with connection.transaction():
            return requeuing.requeue(connection, state.seq, by=author)

    sessions: Sessions = request.app.state.cancels
    waiting: Waiting = request.app.state.waiting
    try:
        requeued = await sessions.run(committed)
    except NotFailed as status:
        detail = f"the command is {status}; only a failed one is requeued"
        raise Problem("command_not_failed", detail, more={"command": represent(state)}) from status
    if requeued.new:
        doorbell: Doorbell = request.app.state.doorbell
        doorbell.ring(requeued.partition)
    again = await waiting.state(requeued.seq)
    assert again is not None
    shown = represent(again)
    headers = {"Location": f"/v1/commands/{shown['id']}"}
    if not requeued.new:
        headers["Idempotent-Replayed"] = "true"
    return Response(_encode(shown), 200 if again.status else 202, headers, media_type="application/json")


routes = [Route("/v1/commands/{id}/requeue", requeue_command, methods=["POST"])]
