"""The feed: what became of all that a client sent, without asking for each (docs/outcomes.md)."""

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, Awaitable
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec
import psycopg
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.auth import Principal, needs
from api.feed import Feed, Wanted
from api.lists import CURSOR_MAX, LIMIT_DEFAULT, LIMIT_MAX, each_once, json_response, whole_number
from api.openapi import problems
from api.problems import Problem, invalid, unavailable
from ledger.commands import OWN_TYPES, TYPES
from ledger.events import outcome_type
from ledger.feed import Cursor, Told
from ledger.keys import Scope as KeyScope
from ledger.names import ASSET_MAX, WALLET_MAX
from runtime.shown import represent

router = APIRouter(tags=["outcomes"])

T = TypeVar("T")

WAIT_MAX_S = 30  # as a command's `wait`: shorter than the idle timeouts of common proxies
KEEP_ALIVE_S = 15.0  # a comment in a stream that has nothing to say, for the proxies between, and to find who has gone
STREAM_MAX_S = 3_600.0  # then the stream ends, and the client comes back where it was: keys are asked for anew
SEND_MAX_S = 30.0  # a client that reads nothing for this long has gone
STREAM = "text/event-stream"

_ANSWER = {
    "description": "As a stream (`Accept: text/event-stream`): an event for each outcome, with its cursor as id.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["data", "next_cursor"],
                "additionalProperties": False,
                "properties": {
                    "data": {"type": "array", "items": {"$ref": "#/components/schemas/FinalCommand"}},
                    "next_cursor": {"type": "string", "minLength": 1},
                },
            }
        },
        STREAM: {"schema": {"type": "string"}},
    },
}
_cursor_decoder = msgspec.msgpack.Decoder(tuple[Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)], ...])


class AskedOutcomes(BaseModel):
    """Filters; an outcome passes them all."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[
        str | None,
        Field(max_length=CURSOR_MAX, description="A `next_cursor`, or an event's id. Absent: what comes from now."),
    ] = None
    wait: Annotated[
        int,
        Field(ge=0, description=f"Seconds to wait for the first outcome. More give {WAIT_MAX_S}."),
        BeforeValidator(whole_number(WAIT_MAX_S, least=0)),
    ] = 0
    limit: Annotated[
        int,
        Field(ge=1, description=f"Outcomes of one answer. More give {LIMIT_MAX}."),
        BeforeValidator(whole_number(LIMIT_MAX)),
    ] = LIMIT_DEFAULT
    type: Annotated[str | None, Field(description="The command's type.", examples=["spend"])] = None
    status: Literal["applied", "rejected", "cancelled", "failed"] | None = None
    wallet: Annotated[str | None, StringConstraints(max_length=WALLET_MAX), Field(description="Either one.")] = None
    asset: Annotated[str | None, StringConstraints(max_length=ASSET_MAX)] = None

    @property
    def wanted(self) -> Wanted | None:
        """None: all are."""
        filters = (self.type, self.status, self.wallet, self.asset)
        return None if filters == (None,) * len(filters) else self._wants

    def _wants(self, told: Told) -> bool:
        command = told.state
        return (
            (self.type is None or command.type == self.type)
            and (self.status is None or command.status == self.status)
            and (self.wallet is None or self.wallet in (command.wallet, command.to_wallet))
            and (self.asset is None or command.asset == self.asset)
        )


async def _asked(request: Request, asked: Annotated[AskedOutcomes, Query()]) -> AskedOutcomes:
    each_once(request)
    if asked.type is not None and asked.type not in (*TYPES, *OWN_TYPES):
        raise invalid("/query/type", f"must be one of {', '.join((*TYPES, *OWN_TYPES))}")
    return asked


@router.get(
    "/v1/outcomes",
    responses=problems("invalid_cursor", "cursor_expired", "overloaded") | {200: _ANSWER},
)
async def list_outcomes(
    request: Request,
    principal: Annotated[Principal, needs(KeyScope.COMMANDS_READ)],
    asked: Annotated[AskedOutcomes, Depends(_asked)],
) -> Response:
    """The outcomes of this client's commands, none skipped and none twice, in the order in which each wallet got its
    own. `next_cursor` is always there: ask with it for what comes next, at once or a month later. With
    `Accept: text/event-stream` the answer does not end (server-sent events; `Last-Event-ID` resumes one)."""
    feed: Feed = request.app.state.feed
    streaming = STREAM in request.headers.get("accept", "")
    resumed = request.headers.get("last-event-id") if streaming else None
    cursor = _decoded(request, resumed if resumed is not None else asked.after)
    if cursor is None:
        cursor = await feed.end(principal.client_id)
    if streaming:
        return EventStream(_events(feed, principal.client_id, cursor, asked))
    look = feed.next(principal.client_id, cursor, limit=asked.limit, wait_s=asked.wait, wanted=asked.wanted)
    answer = await _unless_gone(request, look)
    if answer is None:
        return Response(status_code=499)  # nobody reads it
    told, passed = answer
    return json_response({"data": [represent(each.state) for each in told], "next_cursor": _encoded(passed)})


async def _events(feed: Feed, client_id: int, cursor: Cursor, asked: AskedOutcomes) -> AsyncGenerator[bytes]:
    """One event an outcome; comments keep the connection alive. What comes first is no event: it tells a client when to
    come back, and from where, should the stream break before it has told anything."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + STREAM_MAX_S
    yield f"retry: 1000\nid: {_encoded(cursor)}\n\n".encode()
    while not feed.stopping and loop.time() < ends_at:
        try:
            told, passed = await feed.next(
                client_id, cursor, limit=asked.limit, wait_s=KEEP_ALIVE_S, wanted=asked.wanted
            )
        except (Problem, psycopg.OperationalError) as fault:
            problem = fault if isinstance(fault, Problem) else unavailable()
            yield _event("problem", {"code": problem.code, "status": problem.status, "detail": problem.detail})
            return
        if told:
            yield b"".join(_told(each) for each in told)
        elif passed != cursor:
            yield f"id: {_encoded(passed)}\n\n".encode()  # no event: nothing here to be looked at again
        else:
            yield b": nothing new\n\n"
        cursor = passed


def _told(each: Told) -> bytes:
    type_ = outcome_type(cast(str, each.state.status), cast(str, each.state.code))
    return _event(type_, represent(each.state), each.cursor)


def _event(name: str, data: dict[str, Any], cursor: Cursor | None = None) -> bytes:
    id_line = f"id: {_encoded(cursor)}\n" if cursor is not None else ""
    return f"{id_line}event: {name}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"


class EventStream(Response):
    """Server-sent events (HTML, 9.2). Ends with its source, or when the client has gone or reads no more."""

    media_type = STREAM

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            sending.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await self._events.aclose()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for part in self._events:
            async with asyncio.timeout(SEND_MAX_S):
                await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _unless_gone(request: Request, work: Awaitable[T]) -> T | None:
    """What `work` comes to. None: the client went away, and the work was cut off."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(request.receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _decoded(request: Request, text: str | None) -> Cursor | None:
    """None where there is none. Raises Problem, 400."""
    if not text:
        return None
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        cursor = _cursor_decoder.decode(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise Problem("invalid_cursor") from None
    if len(cursor) != request.app.state.partitions + 1:
        raise Problem("invalid_cursor")
    return cursor


def _encoded(cursor: Cursor) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(cursor)).decode().rstrip("=")
