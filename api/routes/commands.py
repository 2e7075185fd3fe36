"""Commands over HTTP: accept one or many, and say where they stand.

The two POSTs are plain Starlette routes with msgspec: they are the hottest code of the api, and FastAPI's parsing would
cost more than everything else in them. They stand in the OpenAPI document all the same (api.openapi).
"""

from collections.abc import Sequence
from time import perf_counter
from typing import Any, Literal, overload

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.auth import KeyRing, Principal
from api.backlog import Backlog
from api.bodies import decode, read
from api.canonical import InvalidField, Referred, Referring, as_group, needs_admin, new_command, referred_id
from api.intake import Intake, Overloaded, Unavailable
from api.metrics import Metrics
from api.problems import FieldError, Problem, invalid, unavailable
from api.requests import BatchRequest, CommandItem, CommandRequest, raw_batch
from api.shown import pending, represent
from api.waiting import Waiting
from ledger.ids import Kind, command_id, parse_id, unix_ms
from ledger.inbox import Accepted, NewCommand
from ledger.keys import Scope
from ledger.outcomes import CommandState

WAIT_MAX_S = 30  # longer than any healthy outcome takes, shorter than the idle timeouts of common proxies
RETRY_AFTER_S = "1"  # an outcome takes milliseconds, or a second when Redis is down
KEY_MAX = 255
_HEADER_KEY, _QUERY_KEY, _ITEM_KEY = "/header/Idempotency-Key", "/query/idempotency_key", "/idempotency_key"

_command_decoder = msgspec.json.Decoder(CommandRequest)
_batch_decoder = msgspec.json.Decoder(BatchRequest)
_item_decoder = msgspec.json.Decoder(CommandItem)
_encode = msgspec.json.Encoder().encode


# --- accepting -----------------------------------------------------------------------------------------------------


async def post_command(request: Request) -> Response:
    """Accept one command: 202 after the commit, or 200 with the outcome if `Prefer: wait` got it in time."""
    started = perf_counter()
    principal = await _authenticate(request, Scope.COMMANDS_WRITE)
    key = _idempotency_key(request)
    wait_s = _preferred_wait(request)
    body = await read(request, _command_decoder)
    referred = await _referred(request, principal, [body]) if isinstance(body, Referring) else {}
    command = _new_command(request, principal, body, key, referred)
    [accepted] = await _submit(request, [command])
    request.app.state.metrics.accept_seconds.observe(perf_counter() - started)
    if not accepted.same_request:
        raise _key_reused(accepted, key, _HEADER_KEY)

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
    return _answer(pending(command, accepted, referred_id(body)) if state is None else represent(state), headers)


async def post_batch(request: Request) -> Response:
    """Accept up to 1,000 commands in one commit. Each has its own result, in order. One bad item stops no other,
    unless the batch is atomic: then it is all of them or none."""
    principal = await _authenticate(request, Scope.COMMANDS_WRITE)
    wait_s = _preferred_wait(request)
    items, atomic = await _batch_items(request)
    referred = await _referred(request, principal, [item for item in items if isinstance(item, Referring)])
    results: list[dict[str, Any] | None] = []
    commands: list[NewCommand] = []
    refers_to: list[str | None] = []
    for position, item in enumerate(items):
        try:
            if isinstance(item, Problem):
                raise item
            key = _bare(item.idempotency_key, _ITEM_KEY)
            commands.append(_new_command(request, principal, item, key, referred))
            refers_to.append(referred_id(item))
            results.append(None)
        except Problem as problem:
            if atomic:
                raise _in_batch(problem, position) from None
            results.append(_failed(request, problem))
    if atomic:
        accepted = await _submit_group(request, commands)
    else:
        accepted = await _submit(request, commands) if commands else []
    states = await _batch_states(request, accepted, wait_s)
    answers = iter(zip(commands, accepted, refers_to, strict=True))
    for position, result in enumerate(results):
        if result is None:
            results[position] = _batch_result(request, *next(answers), states)
    headers = {"Preference-Applied": f"wait={wait_s}"} if wait_s else {}
    return Response(_encode({"results": results}), media_type="application/json", headers=headers)


async def _batch_items(request: Request) -> tuple[Sequence[CommandItem | Problem], bool]:
    """The items, a Problem in the place of each that is not well-formed, and `atomic`. Raises Problem where the batch
    is not."""
    try:
        batch = await read(request, _batch_decoder)
    except Problem as problem:
        if problem.code not in ("validation_failed", "duplicate_member"):
            raise
        items, atomic = raw_batch(await request.body(), problem)
        return [_item(item) for item in items], atomic
    return batch.commands, batch.atomic


def _in_batch(problem: Problem, position: int) -> Problem:
    """An item's problem as that of the whole batch: its pointers lead into the batch."""
    place = f"/commands/{position}"
    errors = [
        FieldError(pointer=f"{place}{fault['pointer']}", code=fault["code"], detail=fault["detail"])
        for fault in problem.errors
    ]
    return Problem(
        problem.code, f"{place}: {problem.detail}; nothing of the batch was stored", errors=errors,
        headers=problem.headers,
    )  # fmt: skip


async def _submit_group(request: Request, commands: Sequence[NewCommand]) -> list[Accepted]:
    """An atomic batch: stored whole, or not at all. Raises Problem."""
    first = commands[0]
    for position, command in enumerate(commands):
        if (command.wallet, command.partition) != (first.wallet, first.partition):
            detail = f"all commands of an atomic batch must be of one wallet; the first one is of {first.wallet}"
            raise invalid(f"/commands/{position}", detail)
    if len({command.idempotency_key for command in commands}) < len(commands):
        raise invalid("/commands", "two commands of an atomic batch have the same idempotency_key")
    accepted = await _submit(request, as_group(commands), atomic=True)
    there = [answer for answer in accepted if answer is not None]
    for position, (command, answer) in enumerate(zip(commands, accepted, strict=True)):
        if answer is not None and (not answer.same_request or len(there) < len(commands)):
            raise _in_batch(_key_reused(answer, command.idempotency_key, _ITEM_KEY), position)
    return there


def _failed(request: Request, problem: Problem) -> dict[str, Any]:
    body = problem.body(instance=request.url.path, request_id=request.state.request_id)
    return {"status": problem.status, "problem": body}


def _item(body: bytes) -> CommandItem | Problem:
    try:
        return decode(body, _item_decoder)
    except Problem as problem:
        return problem


async def _batch_states(request: Request, accepted: Sequence[Accepted], wait_s: int) -> dict[int, CommandState]:
    waiting: Waiting = request.app.state.waiting
    mine = {answer.seq for answer in accepted if answer.same_request}
    if wait_s > 0:
        return await waiting.outcomes(mine, wait_s)
    replayed = mine & {answer.seq for answer in accepted if answer.replayed}
    return await waiting.states(replayed)


def _batch_result(
    request: Request,
    command: NewCommand,
    accepted: Accepted,
    refers_to: str | None,
    states: dict[int, CommandState],
) -> dict[str, Any]:
    if not accepted.same_request:
        return _failed(request, _key_reused(accepted, command.idempotency_key, _ITEM_KEY))
    state = states.get(accepted.seq)
    shown = pending(command, accepted, refers_to) if state is None else represent(state)
    result: dict[str, Any] = {"status": _status(shown), "command": shown}
    if accepted.replayed:
        result["idempotent_replayed"] = True
    return result


async def _referred(
    request: Request, principal: Principal, bodies: Sequence[CommandRequest | CommandItem]
) -> dict[str, CommandState]:
    """The tenant's commands that these requests name, by id."""
    names: dict[str, tuple[int, int]] = {}
    for body in bodies:
        id_ = referred_id(body)
        if id_ is not None and (name := parse_id(Kind.COMMAND, id_)) is not None:
            names[id_] = name
    if not names:
        return {}
    waiting: Waiting = request.app.state.waiting
    states = await waiting.states({seq for seq, _ in names.values()})
    return {
        id_: state
        for id_, (seq, at_ms) in names.items()
        if (state := states.get(seq)) and state.tenant_id == principal.tenant_id and unix_ms(state.accepted_at) == at_ms
    }


def _new_command(
    request: Request, principal: Principal, body: CommandRequest | CommandItem, key: str, referred: Referred
) -> NewCommand:
    if needs_admin(body):
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


@overload
async def _submit(request: Request, commands: Sequence[NewCommand]) -> list[Accepted]: ...
@overload
async def _submit(
    request: Request, commands: Sequence[NewCommand], *, atomic: Literal[True]
) -> list[Accepted | None]: ...
async def _submit(
    request: Request, commands: Sequence[NewCommand], *, atomic: bool = False
) -> list[Accepted] | list[Accepted | None]:
    """Raises Problem: 429, 503. Of an atomic batch that is there in part, None stands for what is not there."""
    intake: Intake = request.app.state.intake
    backlog: Backlog = request.app.state.backlog
    if backlog.full:
        raise Problem("backlogged", "send again when the backlog is worked off", headers={"Retry-After": "5"})
    try:
        accepted = await intake.submit(commands, atomic=atomic)
    except Overloaded as overloaded:
        raise Problem("overloaded", "nothing was stored; send again") from overloaded
    except Unavailable as gone:
        raise unavailable() from gone
    metrics: Metrics = request.app.state.metrics
    answers = [answer for answer in accepted if answer is not None]
    fresh = sum(not answer.replayed for answer in answers)
    same = sum(answer.same_request for answer in answers)
    metrics.accepted.inc(fresh)
    if same != fresh:
        metrics.replayed.inc(same - fresh)
    if same != len(answers):
        metrics.mismatched.inc(len(answers) - same)
    return accepted


def _key_reused(accepted: Accepted, key: str, pointer: str) -> Problem:
    original = command_id(accepted.seq, accepted.accepted_at)
    detail = f"the key was used for another request, command {original}; nothing was stored"
    return Problem(
        "idempotency_key_reused",
        detail,
        errors=[FieldError(pointer=pointer, code="idempotency_key_reused", detail=detail)],
        headers={"Location": f"/v1/commands/{original}", "Idempotency-Key": key},
    )


# --- asking --------------------------------------------------------------------------------------------------------


async def get_command(request: Request) -> Response:
    """One command of this tenant; `wait=N` holds the answer until its outcome is there or N seconds are over."""
    principal = await _authenticate(request, Scope.COMMANDS_READ)
    wait_s = _wait_parameter(request)
    waiting: Waiting = request.app.state.waiting
    name = parse_id(Kind.COMMAND, request.path_params["id"])
    state = await waiting.state(name[0]) if name else None
    if name is None or state is None or state.tenant_id != principal.tenant_id or unix_ms(state.accepted_at) != name[1]:
        raise Problem("command_not_found")
    return await _where_it_stands(waiting, state, wait_s)


async def find_command(request: Request) -> Response:
    """The command that this client sent under an idempotency key: for whoever lost the response."""
    principal = await _authenticate(request, Scope.COMMANDS_READ)
    keys = request.query_params.getlist("idempotency_key")
    if len(keys) != 1:
        raise invalid("/query/idempotency_key", "give it, once", "missing")
    key = _bare(keys[0], _QUERY_KEY)
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


def _status(shown: dict[str, Any]) -> int:
    return 202 if shown["outcome"] is None else 200


def _answer(shown: dict[str, Any], headers: dict[str, str]) -> Response:
    location = f"/v1/commands/{shown['id']}"
    headers["Location"] = headers["Content-Location"] = location
    status = _status(shown)
    if status == 202:
        headers["Retry-After"] = RETRY_AFTER_S
    return Response(_encode(shown), status, headers, media_type="application/json")


# --- headers -------------------------------------------------------------------------------------------------------


async def _authenticate(request: Request, scope: Scope) -> Principal:
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
    return _bare(values[0].decode("latin-1").strip(" \t"), _HEADER_KEY)


def _bare(key: str, pointer: str) -> str:
    """`"k-1"` and `k-1` are the same key (a structured-field string, RFC 8941, and what people send)."""
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if not 1 <= len(key) <= KEY_MAX or not (key.isascii() and key.isprintable() and " " not in key):
        raise _bad_key(pointer, "idempotency_key_invalid", f"must be 1 to {KEY_MAX} visible ASCII characters")
    return key


def _bad_key(pointer: str, code: str, detail: str) -> Problem:
    return Problem(code, detail, errors=[FieldError(pointer=pointer, code=code, detail=detail)])


def _preferred_wait(request: Request) -> int:
    """Seconds of `Prefer: wait=N` (RFC 7240), at most WAIT_MAX_S; 0 where none is given or it makes no sense."""
    for preference in ",".join(request.headers.getlist("prefer")).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        value = value.strip().strip('"')
        if name.strip().lower() == "wait" and value.isascii() and value.isdigit() and len(value) < 10:
            return min(int(value), WAIT_MAX_S)
    return 0


def _wait_parameter(request: Request) -> int:
    value = request.query_params.get("wait")
    if value is None:
        return 0
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise invalid("/query/wait", f"must be a whole number of seconds, 0 to {WAIT_MAX_S}")
    return min(int(value), WAIT_MAX_S)


hot = {"/v1/commands": post_command, "/v1/commands/batch": post_batch}  # for api.edge
routes = [
    *(Route(path, endpoint, methods=["POST"]) for path, endpoint in hot.items()),
    Route("/v1/commands", find_command, methods=["GET"]),
    Route("/v1/commands/{id}", get_command, methods=["GET"]),
]
