"""Cancelling commands over HTTP: by id, or by the key under which they were sent, or will be."""

from collections.abc import Callable
from typing import Any

import msgspec
import psycopg
from msgspec import Struct
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.bodies import read
from api.feed import Feed
from api.metrics import Metrics
from api.problems import Problem
from api.requests import IdempotencyKey
from api.routes.commands import authenticate, bare_key, named_in_path
from api.sessions import Sessions
from api.state import ring_couriers
from api.waiting import Waiting
from ledger import cancelling
from ledger.cancelling import Cancelled
from ledger.commands import LEDGER_CLIENT
from ledger.keys import Scope
from runtime.announce import Announcer
from runtime.shown import represent


class CancelRequest(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Cancels what this client sent under the key, or will send."""

    idempotency_key: IdempotencyKey


_decoder = msgspec.json.Decoder(CancelRequest)
_encode = msgspec.json.Encoder().encode


async def cancel_command(request: Request) -> Response:
    """Cancel one of the client's own commands; with `admin`, any of the tenant's."""
    principal = await authenticate(request, Scope.COMMANDS_WRITE)
    state = await named_in_path(request, principal)
    if state.client_id == LEDGER_CLIENT:
        raise Problem("command_not_found", "this is a command of the ledger's own, which no client can cancel")
    if state.client_id != principal.client_id:
        principal.require(Scope.ADMIN)
    return await _cancelled(request, lambda connection: cancelling.cancel(connection, state.seq))


async def cancel_key(request: Request) -> Response:
    """Cancel what this client sent under an idempotency key; if nothing came under it yet, nothing ever will."""
    principal = await authenticate(request, Scope.COMMANDS_WRITE)
    body = await read(request, _decoder)
    key = bare_key(body.idempotency_key, "/idempotency_key")
    tenant_id, client_id = principal.tenant_id, principal.client_id
    return await _cancelled(
        request,
        lambda connection: cancelling.cancel_key(connection, tenant_id=tenant_id, client_id=client_id, key=key),
    )


async def _cancelled(request: Request, cancel: Callable[[psycopg.Connection[Any]], Cancelled]) -> Response:
    """200 with the command where it is cancelled, by this request or before it; else 409 with its outcome."""

    def committed(connection: psycopg.Connection[Any]) -> Cancelled:
        with connection.transaction():
            return cancel(connection)

    sessions: Sessions = request.app.state.cancels
    waiting: Waiting = request.app.state.waiting
    announcer: Announcer = request.app.state.announcer
    metrics: Metrics = request.app.state.metrics
    cancelled = await sessions.run(committed)
    if cancelled.deliveries:
        ring_couriers(request)
    waiting.announced(cancelled.seqs)
    feed: Feed = request.app.state.feed
    state = await waiting.state(cancelled.seq)
    assert state is not None
    if cancelled.seqs:
        feed.announced([state.client_id])
        metrics.cancelled.inc()
        metrics.outcomes.cancelled(state.type, len(cancelled.seqs))
    shown = represent(state)
    if state.status != "cancelled":
        metrics.cancelled_late.inc()
        detail = f"the command was {state.status} before; that is final"
        raise Problem("already_decided", detail, more={"command": shown})
    if not cancelled.seqs:
        metrics.cancelled_before.inc()
    announcing = BackgroundTask(announcer.announce, cancelled.seqs, [state.client_id]) if cancelled.seqs else None
    return Response(_encode(shown), media_type="application/json", background=announcing)


routes = [
    Route("/v1/commands/cancel", cancel_key, methods=["POST"]),
    Route("/v1/commands/{id}/cancel", cancel_command, methods=["POST"]),
]
