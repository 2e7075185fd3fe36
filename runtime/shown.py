"""What a command looks like to clients, as JSON: pending, or with its outcome."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

import msgspec

from ledger.commands import Options, read_options
from ledger.ids import command_id, transfer_id
from ledger.inbox import Accepted, NewCommand
from ledger.outcomes import CommandState
from ledger.previews import Foreseen, Projection

# The members of its own that a command of this type always shows; others it shows where they were given.
_OWN: dict[str, tuple[str, ...]] = {
    "hold": ("hold_expires_at",),
    "capture": ("final",),
    "exchange": ("to_asset", "rate", "rounding"),
    "reverse": ("allow_negative",),
    "adjust": ("reason",),
}
_GIVEN = ("credits_expire_at", "priority", "source", "reason", "requeue_of")
_REFERS = {"capture": "hold", "release": "hold", "expire_hold": "hold", "reverse": "command"}
_PLAIN = frozenset(("top_up", "bonus", "spend", "transfer"))
_result = msgspec.json.Decoder(dict[str, Any])


def pending(
    command: NewCommand, accepted: Accepted, referred: Mapping[int, CommandState], group_seq: int | None = None
) -> dict[str, Any]:
    """A command just accepted. `referred`: among them the one that it names; `group_seq`: the first of its batch."""
    refers_to = None
    if command.ref_seq is not None:
        refers_to = command_id(command.ref_seq, referred[command.ref_seq].accepted_at)
    return _shown(command, accepted.seq, accepted.accepted_at, "pending", None, refers_to, group_seq)


def represent(state: CommandState) -> dict[str, Any]:
    """A command with where it stands."""
    refers_to = None
    if state.ref_seq is not None and state.ref_accepted_at is not None:
        refers_to = command_id(state.ref_seq, state.ref_accepted_at)
    if state.status is None:
        return _shown(state, state.seq, state.accepted_at, "pending", None, refers_to, state.group_seq)
    hold = command_id(state.seq, state.accepted_at) if state.type == "hold" else refers_to
    outcome = {"code": state.code, "at": state.at, **outcome_without_place(state, hold=hold)}
    applied = state.status == "applied"
    outcome["transfers"] = [transfer_id(state.seq, cast(datetime, state.at))] if applied else []
    outcome["task"] = str(state.task_id) if state.task_id is not None else None
    return _shown(state, state.seq, state.accepted_at, state.status, outcome, refers_to, state.group_seq)


def outcome_without_place(decided: CommandState | Foreseen, *, hold: str | None) -> dict[str, Any]:
    """What a command came to, or would, apart from when, where and by whom. `hold`: the id of the hold it concerns."""
    outcome: dict[str, Any] = {"code": decided.code}
    if decided.detail is not None:
        outcome["detail"] = decided.detail
    outcome["accounts"] = msgspec.Raw(decided.accounts.encode()) if decided.accounts is not None else []
    if decided.result is not None:
        result = _result.decode(decided.result)
        if "hold" in result:
            result["hold"] = {"id": hold, **result["hold"]}
        outcome |= result
    return outcome


def show_projection(projection: Projection) -> dict[str, Any]:
    available = None if projection.available is None else str(projection.available)
    return {**msgspec.structs.asdict(projection), "available": available}


def _shown(
    command: NewCommand | CommandState,
    seq: int,
    accepted_at: datetime,
    status: str,
    outcome: dict[str, Any] | None,
    refers_to: str | None,
    group_seq: int | None,
) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": command_id(seq, accepted_at),
        "object": "command",
        "type": command.type,
        "status": status,
        "wallet": command.wallet,
        "asset": command.asset,
        "amount": str(command.amount) if command.amount is not None else None,
        "reference": command.reference,
        "metadata": msgspec.Raw(command.metadata.encode()) if command.metadata is not None else {},
        "idempotency_key": command.idempotency_key,
        "accepted_at": accepted_at,
        "expires_at": command.expires_at,
        "outcome": outcome,
    }
    if command.to_wallet is not None:
        shown["to_wallet"] = command.to_wallet
    if group_seq is not None:
        shown["group"] = command_id(group_seq, accepted_at)  # a group is accepted at one time
    if command.options is not None or command.type not in _PLAIN:
        shown |= _own_members(command.type, read_options(command.options), refers_to)
    return shown


def _own_members(type_: str, options: Options, refers_to: str | None) -> dict[str, Any]:
    """What only some commands have."""
    shown: dict[str, Any] = {name: getattr(options, name) for name in _OWN.get(type_, ())}
    shown |= {name: value for name in _GIVEN if (value := getattr(options, name)) is not None}
    if options.credits_order != "soonest_to_expire":
        shown["credits_order"] = options.credits_order
    if options.to_amount is not None:
        shown["to_amount"] = str(options.to_amount)
    if type_ in _REFERS:
        shown[_REFERS[type_]] = refers_to
    if (expected := options.precondition) is not None:
        available = None if expected.available_gte is None else str(expected.available_gte)
        given = {"version": expected.version, "available_gte": available}
        shown["precondition"] = {name: value for name, value in given.items() if value is not None}
    return shown
