"""Commands over HTTP: accept one, and say where one stands. Many in one request: api.routes.batches.

The two POSTs are plain Starlette routes with msgspec: they are the hottest code of the api, and FastAPI's parsing would
cost more than everything else in them. They stand in the OpenAPI document all the same (api.command_docs).
"""

from collections.abc import Iterable, Sequence
from time import perf_counter
from typing import Any

import msgspec
import psycopg
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.auth import PRINCIPAL, KeyRing, Principal
from api.backlog import Backlog
from api.bodies import read
from api.canonical import InvalidField, Referred, Referring, needs_admin, new_command, referred_seq
from api.intake import Intake, Overloaded, Unavailable
from api.metrics import Metrics
from api.problems import FieldError, Problem, invalid, unavailable
from api.requests import CommandItem, CommandRequest
from api.sessions import Sessions
from api.waiting import Waiting
from ledger import previews
from ledger.ids import Kind, command_id, parse_id, unix_ms
from ledger.inbox import Accepted, NewCommand
from ledger.keys import Scope
from ledger.outcomes import CommandState
from runtime.shown import pending, represent, show_projection

log = structlog.get_logger()

WAIT_MAX_S = 30  # longer than any healthy outcome takes, shorter than the idle timeouts of common proxies
RETRY_AFTER_S = "1"  # an outcome takes milliseconds, or a second when Redis is down
KEY_MAX = 255
_HEADER_KEY, _QUERY_KEY = "/header/Idempotency-Key", "/query/idempotency_key"

_command_decoder = msgspec.json.Decoder(CommandRequest)
_encode = msgspec.json.Encoder().encode


# --- accepting -----------------------------------------------------------------------------------------------------


async def post_command(request: Request) -> Response:
    """Accept one command: 202 after the commit, or 200 with the outcome if `Prefer: wait` got it in time."""
    started = perf_counter()
    principal = await authenticate(request, Scope.COMMANDS_WRITE)
    key = _idempotency_key(request)
    wait_s, projecting = _preferences(request)
    body = await read(request, _command_decoder)
    referred: Referred = {}
    if isinstance(body, Referring):
        referred = await read_referred(request, principal, (body,))
    command = command_of(request, principal, body, key, referred)
    [accepted] = await submit(request, [command])
    assert accepted is not None
    request.app.state.metrics.accept_seconds.observe(perf_counter() - started)
    if not accepted.same_request:
        raise key_reused(accepted, key, _HEADER_KEY)

    headers = {"Idempotency-Key": key}
    if accepted.replayed:
        headers["Idempotent-Replayed"] = "true"
    if wait_s > 0:
        headers["Preference-Applied"] = f"wait={wait_s}"
    waiting: Waiting = request.app.state.waiting
    if wait_s > 0:
        state = (await waiting.outcomes([accepted.seq], wait_s)).get(accepted.seq)
    elif accepted.replayed:
        state = await waiting.state(accepted.seq)
    else:
        state = None
    shown = pending(command, accepted, referred) if state is None else represent(state)
    if projecting and shown["outcome"] is None:
        shown = await _projected(request, command, accepted, shown, headers)
    return _answer(shown, headers)


async def _projected(
    request: Request, command: NewCommand, accepted: Accepted, shown: dict[str, Any], headers: dict[str, str]
) -> dict[str, Any]:
    """With what will most likely come of it, or with what has by now; as it is where that cannot be told in time."""
    sessions: Sessions = request.app.state.previews
    seq, partition = accepted.seq, command.partition
    try:
        projection = await sessions.run(lambda connection: previews.project(connection, seq=seq, partition=partition))
    except (Problem, psycopg.Error) as fault:
        log.warning("projection.left_out", error=type(fault).__name__)
        return shown
    if projection is None:  # its outcome came first
        waiting: Waiting = request.app.state.waiting
        state = await waiting.state(seq)
        assert state is not None
        return represent(state)
    granted = headers.get("Preference-Applied")
    headers["Preference-Applied"] = f"{granted}, projection" if granted else "projection"
    return shown | {"projection": show_projection(projection)}


async def read_referred(
    request: Request, principal: Principal, bodies: Iterable[CommandRequest | CommandItem | Problem]
) -> Referred:
    """The commands that these requests name, as far as this tenant has them, in one read."""
    seqs = {seq for body in bodies if isinstance(body, Referring) and (seq := referred_seq(body)) is not None}
    if not seqs:
        return {}
    waiting: Waiting = request.app.state.waiting
    states = await waiting.states(seqs)
    return {seq: state for seq, state in states.items() if state.tenant_id == principal.tenant_id}


def command_of(
    request: Request, principal: Principal, body: CommandRequest | CommandItem, key: str, referred: Referred
) -> NewCommand:
    """What goes into the inbox. Raises Problem: 422, or 403 where only an operator may ask for it."""
    if needs_admin(body, referred):
        principal.require(Scope.ADMIN)
    try:
        return new_command(
            body,
            key=key,
            tenant_id=principal.tenant_id,
            client_id=principal.client_id,
            partitions=request.app.state.partitions,
            referred=referred,
        )
    except InvalidField as field:
        raise invalid(field.pointer, field.detail) from field


async def submit(request: Request, commands: Sequence[NewCommand], *, atomic: bool = False) -> list[Accepted | None]:
    """The intake's answers (api.intake). Raises Problem: 429, 503."""
    intake: Intake = request.app.state.intake
    backlog: Backlog = request.app.state.backlog
    if backlog.full:
        raise Problem("backlogged", "send again when the backlog is worked off", headers={"Retry-After": "5"})
    try:
        answers = await intake.submit(commands, atomic=atomic)
    except Overloaded as overloaded:
        raise Problem("overloaded", "nothing was stored; send again") from overloaded
    except Unavailable as gone:
        raise unavailable() from gone
    metrics: Metrics = request.app.state.metrics
    accepted = [answer for answer in answers if answer is not None]
    fresh = sum(not answer.replayed for answer in accepted)
    same = sum(answer.same_request for answer in accepted)
    metrics.accepted.inc(fresh)
    if same != fresh:
        metrics.replayed.inc(same - fresh)
    if same != len(accepted):
        metrics.mismatched.inc(len(accepted) - same)
    return answers


def key_reused(accepted: Accepted, key: str, pointer: str) -> Problem:
    return _key_taken("idempotency_key_reused", "used for another request", accepted, key, pointer)


def key_cancelled(accepted: Accepted, key: str, pointer: str) -> Problem:
    return _key_taken("key_cancelled", "cancelled before the batch came", accepted, key, pointer)


def _key_taken(code: str, how: str, accepted: Accepted, key: str, pointer: str) -> Problem:
    original = command_id(accepted.seq, accepted.accepted_at)
    detail = f"the key was {how}, command {original}; nothing was stored"
    return Problem(
        code,
        detail,
        errors=[FieldError(pointer=pointer, code=code, detail=detail)],
        headers={"Location": f"/v1/commands/{original}", "Idempotency-Key": key},
    )


# --- asking --------------------------------------------------------------------------------------------------------


async def get_command(request: Request) -> Response:
    """One command of this tenant; `wait=N` holds the answer until its outcome is there or N seconds are over."""
    principal = await authenticate(request, Scope.COMMANDS_READ)
    wait_s = _wait_parameter(request)
    state = await named_in_path(request, principal)
    return await _where_it_stands(request.app.state.waiting, state, wait_s)


async def named_in_path(request: Request, principal: Principal) -> CommandState:
    """The tenant's command whose id stands in the path. Raises Problem, 404."""
    waiting: Waiting = request.app.state.waiting
    name = parse_id(Kind.COMMAND, request.path_params["id"])
    state = await waiting.state(name[0]) if name else None
    if name is None or state is None or state.tenant_id != principal.tenant_id or unix_ms(state.accepted_at) != name[1]:
        raise Problem("command_not_found")
    return state


async def find_command(request: Request) -> Response:
    """The command that this client sent under an idempotency key: for whoever lost the response."""
    principal = await authenticate(request, Scope.COMMANDS_READ)
    keys = request.query_params.getlist("idempotency_key")
    if len(keys) != 1:
        raise invalid("/query/idempotency_key", "give it, once", "missing")
    key = bare_key(keys[0], _QUERY_KEY)
    waiting: Waiting = request.app.state.waiting
    wait_s = _wait_parameter(request)
    state = await waiting.state_by_key(principal.client_id, key)
    if state is None:
        raise Problem("command_not_found", "this client has sent no command under this key")
    return await _where_it_stands(waiting, state, wait_s)


async def _where_it_stands(waiting: Waiting, state: CommandState, wait_s: int) -> Response:
    if state.status is None and wait_s > 0:
        state = (await waiting.outcomes([state.seq], wait_s)).get(state.seq, state)
    shown = represent(state)
    headers = {"Retry-After": RETRY_AFTER_S} if state.status is None else {}
    return Response(_encode(shown), media_type="application/json", headers=headers)


def status_of(shown: dict[str, Any]) -> int:
    return 202 if shown["outcome"] is None else 200


def _answer(shown: dict[str, Any], headers: dict[str, str]) -> Response:
    location = f"/v1/commands/{shown['id']}"
    headers["Location"] = headers["Content-Location"] = location
    status = status_of(shown)
    if status == 202:
        headers["Retry-After"] = RETRY_AFTER_S
    return Response(_encode(shown), status, headers, media_type="application/json")


# --- headers -------------------------------------------------------------------------------------------------------


async def authenticate(request: Request, scope: Scope) -> Principal:
    principal: Principal | None = request.scope.get(PRINCIPAL)
    if principal is None:
        values = [value for name, value in request.scope["headers"] if name == b"authorization"]
        if len(values) > 1:
            raise Problem("unauthorized", "send one Authorization header")
        keys: KeyRing = request.app.state.keys
        principal = await keys.authenticate(values[0].decode("latin-1") if values else None)
    principal.require(scope)
    return principal


def _idempotency_key(request: Request) -> str:
    """The one Idempotency-Key, bare. Two headers are refused: which of them was meant is not for us to guess."""
    values = [value for name, value in request.scope["headers"] if name == b"idempotency-key"]
    if not values:
        raise _bad_key(_HEADER_KEY, "idempotency_key_missing", f"send one, your own, of at most {KEY_MAX} characters")
    if len(values) > 1:
        raise _bad_key(_HEADER_KEY, "idempotency_key_invalid", "send it once")
    # White space around a value is no part of it (RFC 9110, 5.5); the parser leaves what stands behind.
    return bare_key(values[0].decode("latin-1").strip(" \t"), _HEADER_KEY)


def bare_key(key: str, pointer: str) -> str:
    """`"k-1"` and `k-1` are the same key (a structured-field string, RFC 8941, and what people send)."""
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if not 1 <= len(key) <= KEY_MAX or not (key.isascii() and key.isprintable() and " " not in key):
        raise _bad_key(pointer, "idempotency_key_invalid", f"must be 1 to {KEY_MAX} visible ASCII characters")
    return key


def _bad_key(pointer: str, code: str, detail: str) -> Problem:
    return Problem(code, detail, errors=[FieldError(pointer=pointer, code=code, detail=detail)])


def preferred_wait(request: Request) -> int:
    """Seconds of `Prefer: wait=N`; 0 where none is given or it makes no sense."""
    return _preferences(request)[0]


def _preferences(request: Request) -> tuple[int, bool]:
    """What `Prefer` (RFC 7240) asks for: seconds of `wait=N`, at most WAIT_MAX_S; and whether `projection`."""
    wait_s: int | None = None
    projecting = False
    for preference in ",".join(request.headers.getlist("prefer")).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        name, value = name.strip().lower(), value.strip().strip('"')
        if name == "wait" and value.isascii() and value.isdigit() and len(value) < 10:
            wait_s = min(int(value), WAIT_MAX_S) if wait_s is None else wait_s  # the first one counts
        elif name == "projection":
            projecting = True
    return wait_s or 0, projecting


def _wait_parameter(request: Request) -> int:
    value = request.query_params.get("wait")
    if value is None:
        return 0
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise invalid("/query/wait", f"must be a whole number of seconds, 0 to {WAIT_MAX_S}")
    return min(int(value), WAIT_MAX_S)


hot = {"/v1/commands": post_command}  # for api.edge
routes = [
    *(Route(path, endpoint, methods=["POST"]) for path, endpoint in hot.items()),
    Route("/v1/commands", find_command, methods=["GET"]),
    Route("/v1/commands/{id}", get_command, methods=["GET"]),
]
