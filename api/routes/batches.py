"""Many commands in one request: each with a result of its own, or, as an atomic batch, all of them or none."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.auth import Principal
from api.bodies import decode, read
from api.canonical import Referred, as_group, referring_member
from api.problems import FieldError, Problem
from api.requests import BatchRequest, CommandItem, raw_batch
from api.routes.commands import (
    authenticate,
    bare_key,
    command_of,
    key_cancelled,
    key_reused,
    preferred_wait,
    read_referred,
    status_of,
    submit,
)
from api.waiting import Waiting
from ledger.inbox import Accepted, NewCommand
from ledger.keys import Scope
from ledger.outcomes import CommandState
from runtime.shown import pending, represent

FAULTS_TOLD = 20  # bad items of an atomic batch that its refusal names: enough to see what is wrong
_ITEM_KEY = "/idempotency_key"

_batch_decoder = msgspec.json.Decoder(BatchRequest)
_item_decoder = msgspec.json.Decoder(CommandItem)
_encode = msgspec.json.Encoder().encode


async def post_batch(request: Request) -> Response:
    """Accept up to 1,000 commands in one commit. Each has its own result, in order; one bad item stops no other,
    unless the batch is atomic."""
    principal = await authenticate(request, Scope.COMMANDS_WRITE)
    wait_s = preferred_wait(request)
    items, atomic = await items_of(request)
    referred = await read_referred(request, principal, items)
    if atomic:
        results = await _all_or_none(request, principal, items, referred, wait_s)
    else:
        results = await _one_by_one(request, principal, items, referred, wait_s)
    headers = {"Preference-Applied": f"wait={wait_s}"} if wait_s else {}
    return Response(_encode({"results": results}), media_type="application/json", headers=headers)


async def items_of(request: Request) -> tuple[Sequence[CommandItem | Problem], bool]:
    """The items, a Problem in the place of each that is not well-formed, and whether the batch is atomic.

    Raises Problem where the batch itself is not well-formed, or is atomic and has a bad item.
    """
    try:
        batch = await read(request, _batch_decoder)
    except Problem as problem:
        if problem.code not in ("validation_failed", "duplicate_member"):
            raise
        items, atomic = raw_batch(await request.body(), problem)
        if atomic:
            raise
        return [_item(item) for item in items], False
    return batch.commands, batch.atomic


def _item(body: bytes) -> CommandItem | Problem:
    try:
        return decode(body, _item_decoder)
    except Problem as problem:
        return problem


# --- each for itself -------------------------------------------------------------------------------------------------


async def _one_by_one(
    request: Request,
    principal: Principal,
    items: Sequence[CommandItem | Problem],
    referred: Referred,
    wait_s: int,
) -> list[dict[str, Any]]:
    taken: list[NewCommand | Problem] = []
    for item in items:
        try:
            if isinstance(item, Problem):
                raise item
            taken.append(command_of(request, principal, item, bare_key(item.idempotency_key, _ITEM_KEY), referred))
        except Problem as problem:
            taken.append(problem)
    commands = [command for command in taken if isinstance(command, NewCommand)]
    answers = await submit(request, commands) if commands else []
    accepted = [answer for answer in answers if answer is not None]
    states = await _states(request, accepted, wait_s)
    in_turn = iter(accepted)
    return [
        _failed(request, command)
        if isinstance(command, Problem)
        else _result(request, command, next(in_turn), referred, states)
        for command in taken
    ]


def _failed(request: Request, problem: Problem) -> dict[str, Any]:
    body = problem.body(instance=request.url.path, request_id=request.state.request_id)
    return {"status": problem.status, "problem": body}


async def _states(request: Request, accepted: Sequence[Accepted], wait_s: int) -> dict[int, CommandState]:
    waiting: Waiting = request.app.state.waiting
    mine = {answer.seq for answer in accepted if answer.same_request}
    if wait_s > 0:
        return await waiting.outcomes(mine, wait_s)
    replayed = mine & {answer.seq for answer in accepted if answer.replayed}
    return await waiting.states(replayed)


def _result(
    request: Request,
    command: NewCommand,
    accepted: Accepted,
    referred: Referred,
    states: Mapping[int, CommandState],
    group_seq: int | None = None,
) -> dict[str, Any]:
    if not accepted.same_request:
        return _failed(request, key_reused(accepted, command.idempotency_key, _ITEM_KEY))
    state = states.get(accepted.seq)
    shown = pending(command, accepted, referred, group_seq) if state is None else represent(state)
    result: dict[str, Any] = {"status": status_of(shown), "command": shown}
    if accepted.replayed:
        result["idempotent_replayed"] = True
    return result


# --- all or none -----------------------------------------------------------------------------------------------------


async def _all_or_none(
    request: Request,
    principal: Principal,
    items: Sequence[CommandItem | Problem],
    referred: Referred,
    wait_s: int,
) -> list[dict[str, Any]]:
    """Raises Problem, and has stored nothing, where any of the items cannot be taken."""
    commands = group_of(request, principal, items, referred)
    answers = await submit(request, commands, atomic=True)
    accepted = [answer for answer in answers if answer is not None and answer.same_request]
    if len(accepted) < len(commands):
        raise _keys_taken(answers, commands)
    states = await _states(request, accepted, wait_s)
    return [
        _result(request, command, answer, referred, states, accepted[0].seq)
        for command, answer in zip(commands, accepted, strict=True)
    ]


def group_of(
    request: Request, principal: Principal, items: Sequence[CommandItem | Problem], referred: Referred
) -> list[NewCommand]:
    """The commands of an atomic batch. Raises Problem, which tells every bad item."""
    commands: list[NewCommand] = []
    keys: set[str] = set()
    faults: list[FieldError] = []
    for position, item in enumerate(items):
        at = f"/commands/{position}"
        try:
            if isinstance(item, Problem):
                raise item
            command = command_of(request, principal, item, bare_key(item.idempotency_key, _ITEM_KEY), referred)
            commands.append(command)
            faults += _below(at, _odd_one_out(item, command, commands[0], keys))
            keys.add(command.idempotency_key)
        except Problem as problem:
            if not problem.errors:  # a scope that the key lacks
                raise
            faults += _below(at, problem.errors)
    if faults:
        raise _refused("validation_failed", faults)
    return as_group(commands)


def _below(at: str, faults: Sequence[FieldError]) -> list[FieldError]:
    return [{**fault, "pointer": at + fault["pointer"]} for fault in faults]


def _odd_one_out(item: CommandItem, command: NewCommand, first: NewCommand, keys: set[str]) -> list[FieldError]:
    """What keeps a command from being in one group with the first, and with those of these keys."""
    faults: list[FieldError] = []
    if (command.wallet, command.partition) != (first.wallet, first.partition):
        detail = f"an atomic batch is of one wallet: {first.wallet}, not {command.wallet}"
        faults.append(FieldError(pointer=f"/{referring_member(item) or 'wallet'}", code="invalid", detail=detail))
    if command.idempotency_key in keys:
        faults.append(FieldError(pointer=_ITEM_KEY, code="duplicate", detail="is another item's key, too"))
    return faults


def _keys_taken(answers: Sequence[Accepted | None], commands: Sequence[NewCommand]) -> Problem:
    """A group is there whole or not at all: what is there in part and answers any request are tombstones."""
    taken: list[Problem] = []
    for position, (answer, command) in enumerate(zip(answers, commands, strict=True)):
        if answer is not None:
            problem = key_cancelled if answer.same_request else key_reused
            taken.append(problem(answer, command.idempotency_key, f"/commands/{position}{_ITEM_KEY}"))
    faults = [fault for problem in taken for fault in problem.errors]
    return _refused(taken[0].code, faults, {"Location": taken[0].headers["Location"]})


def _refused(code: str, faults: Sequence[FieldError], headers: Mapping[str, str] | None = None) -> Problem:
    told = faults[:FAULTS_TOLD]
    more = f" (and {len(faults) - len(told)} more)" if len(faults) > len(told) else ""
    detail = f"{told[0]['pointer']}: {told[0]['detail']}; nothing was stored{more}"
    return Problem(code, detail, errors=told, headers=headers)


hot = {"/v1/commands/batch": post_batch}  # for api.edge
routes = [Route(path, endpoint, methods=["POST"]) for path, endpoint in hot.items()]
