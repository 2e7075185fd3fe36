"""From a request to a command for the inbox: what msgspec cannot check, and the request's canonical form.

What depends on the clock is not refused here where it could stand in the way of a replay: a time that has passed is an
outcome, `expired`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import assert_never

import msgspec

from api.requests import (
    AdjustRequest,
    BonusRequest,
    CaptureRequest,
    CommandItem,
    CommandRequest,
    ExchangeRequest,
    HoldRequest,
    PreconditionRequest,
    ReleaseRequest,
    ReverseRequest,
    SpendRequest,
    TopUpRequest,
    TransferRequest,
)
from api.times import instant
from ledger.commands import (
    LEDGER_CLIENT,
    REVERSIBLE_TYPES,
    Options,
    Precondition,
    write_options,
)
from ledger.ids import Kind, parse_id, unix_ms
from ledger.inbox import NewCommand
from ledger.money import AMOUNT_MAX, canonical_rate, exchanged
from ledger.names import metadata_text
from ledger.outcomes import CommandState
from ledger.partitions import partition_of

# A hold keeps a player's credits from him; whoever needs longer places another one. Also what docs/commands.md says.
HOLD_MAX = timedelta(days=31)

Referring = (CaptureRequest, ReleaseRequest, ReverseRequest)  # they name another command
Referred = Mapping[int, CommandState]  # by seq: those of the tenant's commands that requests name


class InvalidField(ValueError):
    """A member that is well-formed and still cannot be meant. `pointer` is a JSON pointer into the command."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(detail)
        self.pointer = pointer
        self.detail = detail


def referring_member(request: CommandRequest | CommandItem) -> str | None:
    """The member of this request that names another command."""
    if isinstance(request, (CaptureRequest, ReleaseRequest)):
        return "hold"
    return "command" if isinstance(request, ReverseRequest) else None


def referred_seq(request: CaptureRequest | ReleaseRequest | ReverseRequest) -> int | None:
    """The seq in the id of the command that this one names; None: no command has such an id."""
    name = parse_id(Kind.COMMAND, _referred_id(request))
    return name[0] if name else None


def needs_admin(request: CommandRequest | CommandItem, referred: Referred) -> bool:
    """Corrections of the books, debts, and what undoes a correction are an operator's."""
    if isinstance(request, ReverseRequest):
        original = referred.get(referred_seq(request) or 0)
        return request.allow_negative is True or (original is not None and original.type == "adjust")
    return isinstance(request, AdjustRequest)


def new_command(
    request: CommandRequest | CommandItem,
    *,
    key: str,
    tenant_id: int,
    client_id: int,
    partitions: int,
    referred: Referred,
) -> NewCommand:
    """The request as it goes into the inbox. Raises InvalidField."""
    amount = _amount(request)
    metadata = None
    if request.metadata is not None:
        try:
            metadata = metadata_text(request.metadata)
        except ValueError as error:
            raise InvalidField("/metadata", str(error)) from error
    expires_at = _instant(request.expires_at, "/expires_at") if request.expires_at is not None else None
    options = _options(request)
    asked = write_options(options)
    ref_seq = asked_wallet = asked_asset = None
    if isinstance(request, Referring):
        ref_seq, wallet, asset, partition = _referred(request, referred)
    else:
        asked_wallet, asked_asset = wallet, asset = request.wallet, request.asset
        partition = partition_of(tenant_id, wallet, partitions)
    to_wallet = request.to_wallet if isinstance(request, (TransferRequest, CaptureRequest)) else None
    if to_wallet == wallet:
        raise InvalidField("/to_wallet", "must be another wallet than the one that pays")
    kind = request.__struct_config__.tag
    assert isinstance(kind, str)
    # The last two only where they say something: the keys of plain commands are older than they are.
    form = (kind, asked_wallet, to_wallet, asked_asset, amount, request.reference, metadata, expires_at)
    if asked is not None or ref_seq is not None:
        form = (*form, asked, ref_seq)
    return NewCommand(
        tenant_id=tenant_id,
        client_id=client_id,
        partition=partition,
        type=kind,
        idempotency_key=key,
        request_hash=_hash(form),
        wallet=wallet,
        to_wallet=to_wallet,
        asset=asset,
        amount=amount,
        reference=request.reference,
        metadata=metadata,
        expires_at=expires_at,
        options=_with_to_amount(request, options) if isinstance(request, ExchangeRequest) else asked,
        ref_seq=ref_seq,
    )


def as_group(commands: Sequence[NewCommand]) -> list[NewCommand]:
    """The same commands as one request: the hash of each is of the whole group, and of its place in it."""
    group = [(command.idempotency_key, command.request_hash.hex()) for command in commands]
    return [
        msgspec.structs.replace(command, request_hash=_hash((position, group)))
        for position, command in enumerate(commands)
    ]


def _hash(form: object) -> bytes:
    """Of what the caller asked, in canonical form: member order, spaces, `"30"` or `30`, and the offset of a time are
    no difference; an absent member, an explicit null and a stated default are the same."""
    return blake2b(msgspec.json.encode(form), digest_size=16).digest()


def _referred_id(request: CaptureRequest | ReleaseRequest | ReverseRequest) -> str:
    return request.command if isinstance(request, ReverseRequest) else request.hold


def _referred(
    request: CaptureRequest | ReleaseRequest | ReverseRequest, referred: Referred
) -> tuple[int, str, str, int]:
    """Seq, wallet, asset and partition of the command that this one names. Raises InvalidField."""
    member, types = ("command", REVERSIBLE_TYPES) if isinstance(request, ReverseRequest) else ("hold", ("hold",))
    name = parse_id(Kind.COMMAND, _referred_id(request))
    found = referred.get(name[0]) if name else None
    if found is None or name != (found.seq, unix_ms(found.accepted_at)):
        raise InvalidField(f"/{member}", "must be the id of a command that is there")
    if found.type not in types or found.client_id == LEDGER_CLIENT:
        raise InvalidField(f"/{member}", f"names a {found.type}; it must name one of: {', '.join(types)}")
    assert found.wallet is not None
    assert found.asset is not None
    return found.seq, found.wallet, found.asset, found.partition


def _amount(request: CommandRequest | CommandItem) -> int | None:
    if isinstance(request, ReleaseRequest) or request.amount is None:
        return None
    amount = int(request.amount)
    if isinstance(request, AdjustRequest):
        if not 1 <= abs(amount) <= AMOUNT_MAX:
            raise InvalidField("/amount", f"must be from 1 to {AMOUNT_MAX} minor units, or as much below zero")
    elif not 1 <= amount <= AMOUNT_MAX:
        raise InvalidField("/amount", f"must be from 1 to {AMOUNT_MAX} minor units")
    return amount


def _options(request: CommandRequest | CommandItem) -> Options:
    """What only some commands have, as it was asked."""
    precondition = _precondition(request.precondition) if request.precondition is not None else None
    match request:
        case SpendRequest() | TransferRequest():
            return Options(precondition, request.credits_order or "soonest_to_expire")
        case TopUpRequest() | BonusRequest():
            ends = request.credits_expire_at
            at = _instant(ends, "/credits_expire_at") if ends is not None else None
            return Options(precondition, credits_expire_at=at, priority=request.priority, source=request.source)
        case HoldRequest():
            at = _instant(request.hold_expires_at, "/hold_expires_at")
            if at > datetime.now(UTC) + HOLD_MAX:
                raise InvalidField("/hold_expires_at", f"must be at most {HOLD_MAX.days} days ahead")
            return Options(precondition, request.credits_order or "soonest_to_expire", hold_expires_at=at)
        case CaptureRequest():
            return Options(precondition, final=request.final is not False)
        case ReleaseRequest():
            return Options(precondition)
        case ExchangeRequest():
            if request.to_asset == request.asset:
                raise InvalidField("/to_asset", "must be another asset than `asset`")
            return Options(
                precondition,
                request.credits_order or "soonest_to_expire",
                to_asset=request.to_asset,
                rate=canonical_rate(request.rate),
                rounding=request.rounding or "down",
            )
        case ReverseRequest():
            return Options(precondition, allow_negative=request.allow_negative is True)
        case AdjustRequest():
            return Options(precondition, reason=request.reason)
        case _:
            assert_never(request)


def _with_to_amount(request: ExchangeRequest, options: Options) -> str | None:
    """The options with what the exchange comes to, which follows from the request and is no part of its hash."""
    assert options.rate is not None
    to_amount = exchanged(int(request.amount), options.rate, options.rounding)
    if not 1 <= to_amount <= AMOUNT_MAX:
        detail = f"comes to {to_amount} minor units of {request.to_asset}; from 1 to {AMOUNT_MAX} may be"
        raise InvalidField("/amount", detail)
    return write_options(msgspec.structs.replace(options, to_amount=to_amount))


def _precondition(asked: PreconditionRequest) -> Precondition:
    if asked.version is None and asked.available_gte is None:
        raise InvalidField("/precondition", "must have `version` or `available_gte`")
    available = int(asked.available_gte) if asked.available_gte is not None else None
    if available is not None and available > AMOUNT_MAX:
        raise InvalidField("/precondition/available_gte", f"must be from 0 to {AMOUNT_MAX} minor units")
    return Precondition(version=asked.version, available_gte=available)


def _instant(text: str, pointer: str) -> datetime:
    try:
        return instant(text)
    except ValueError as error:
        raise InvalidField(pointer, str(error)) from error
