"""From a request to a command for the inbox: what msgspec cannot check, and the request's canonical form.

What depends on the clock is not refused here where it could stand in the way of a replay: a time that has passed is an
outcome, `expired`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Annotated

import msgspec
from msgspec import Meta

from api.requests import (
    AdjustRequest,
    Amount,
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
from ledger.commands import (
    LEDGER_CLIENT,
    NO_OPTIONS,
    REVERSIBLE_TYPES,
    Options,
    Precondition,
    write_options,
)
from ledger.inbox import NewCommand
from ledger.money import AMOUNT_MAX, exchanged
from ledger.names import metadata_text
from ledger.outcomes import CommandState
from ledger.partitions import partition_of

# A hold keeps a player's credits from him; whoever needs longer places another one. Also what docs/commands.md says.
HOLD_MAX = timedelta(days=31)

Referring = (CaptureRequest, ReleaseRequest, ReverseRequest)  # they name another command
Referred = Mapping[str, CommandState]  # by the id that the request gave; what the tenant does not have is not in it


class InvalidField(ValueError):
    """A member that is well-formed and still cannot be meant. `pointer` is a JSON pointer into the command."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(detail)
        self.pointer = pointer
        self.detail = detail


def referred_id(request: CommandRequest | CommandItem) -> str | None:
    """The id of the command that this one names."""
    if isinstance(request, (CaptureRequest, ReleaseRequest)):
        return request.hold
    return request.command if isinstance(request, ReverseRequest) else None


def needs_admin(request: CommandRequest | CommandItem) -> bool:
    """Corrections of the books, and debts, are an operator's."""
    return isinstance(request, AdjustRequest) or (isinstance(request, ReverseRequest) and request.allow_negative)


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
    options, ref = NO_OPTIONS, None
    if isinstance(request, Referring):
        ref = _referred(request, referred)
        wallet, asset, partition = ref.wallet, ref.asset, ref.partition
        assert wallet is not None
        assert asset is not None
    else:
        wallet, asset, partition = request.wallet, request.asset, partition_of(tenant_id, request.wallet, partitions)
    amount = _amount(request)
    to_wallet = request.to_wallet if isinstance(request, (TransferRequest, CaptureRequest)) else None
    if to_wallet == wallet:
        raise InvalidField("/to_wallet", "must be another wallet than `wallet`")
    match request:
        case SpendRequest() | TransferRequest() | TopUpRequest() | BonusRequest() if _plain(request):
            pass
        case _:
            options = _options(request, amount)
    metadata = None
    if request.metadata is not None:
        try:
            metadata = metadata_text(request.metadata)
        except ValueError as error:
            raise InvalidField("/metadata", str(error)) from error
    expires_at = _instant(request.expires_at, "/expires_at") if request.expires_at is not None else None
    kind = request.__struct_config__.tag
    assert isinstance(kind, str)
    stored_options = write_options(options) if options is not NO_OPTIONS else None
    form: tuple[object, ...] = (kind, wallet, to_wallet, asset, amount, request.reference, metadata, expires_at)
    if stored_options is not None or ref is not None:
        form = (*form, stored_options, ref.seq if ref else None)
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
        options=stored_options,
        ref_seq=ref.seq if ref else None,
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


def _plain(request: SpendRequest | TransferRequest | TopUpRequest | BonusRequest) -> bool:
    """Whether it has nothing but what every command has."""
    if request.precondition is not None:
        return False
    if isinstance(request, (SpendRequest, TransferRequest)):
        return request.credits_order == "soonest_to_expire"
    return request.credits_expire_at is None and request.priority is None and request.source is None


def _referred(request: CaptureRequest | ReleaseRequest | ReverseRequest, referred: Referred) -> CommandState:
    if isinstance(request, ReverseRequest):
        found = referred.get(request.command)
        if found is None or found.client_id == LEDGER_CLIENT:
            raise InvalidField("/command", "there is no command with this id")
        if found.type not in REVERSIBLE_TYPES:
            raise InvalidField("/command", f"a {found.type} cannot be reversed; {', '.join(REVERSIBLE_TYPES)} can")
        return found
    found = referred.get(request.hold)
    if found is None or found.type != "hold":
        raise InvalidField("/hold", "there is no hold with this id; it is the id of the command that placed it")
    return found


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


def _options(request: CommandRequest | CommandItem, amount: int | None) -> Options:
    options = Options(precondition=_precondition(request.precondition))
    if isinstance(request, (SpendRequest, TransferRequest, HoldRequest, ExchangeRequest)):
        options = msgspec.structs.replace(options, credits_order=request.credits_order)
    match request:
        case TopUpRequest() | BonusRequest():
            ends = request.credits_expire_at
            at = _instant(ends, "/credits_expire_at") if ends is not None else None
            return msgspec.structs.replace(
                options, credits_expire_at=at, priority=request.priority, source=request.source
            )
        case HoldRequest():
            ends = _instant(request.hold_expires_at, "/hold_expires_at")
            if ends > datetime.now(UTC) + HOLD_MAX:
                raise InvalidField("/hold_expires_at", f"must be at most {HOLD_MAX.days} days ahead")
            return msgspec.structs.replace(options, hold_expires_at=ends)
        case CaptureRequest():
            return msgspec.structs.replace(options, final=request.final)
        case ExchangeRequest():
            if request.to_asset == request.asset:
                raise InvalidField("/to_asset", "must be another asset than `asset`")
            assert amount is not None
            to_amount = exchanged(amount, request.rate, request.rounding)
            if not 1 <= to_amount <= AMOUNT_MAX:
                detail = (
                    f"makes {to_amount} minor units of {request.to_asset} at this rate; from 1 to {AMOUNT_MAX} may be"
                )
                raise InvalidField("/amount", detail)
            return msgspec.structs.replace(
                options,
                to_asset=request.to_asset,
                to_amount=to_amount,
                rate=format(Decimal(request.rate).normalize(), "f"),
                rounding=request.rounding,
            )
        case ReverseRequest():
            return msgspec.structs.replace(options, allow_negative=request.allow_negative)
        case AdjustRequest():
            return msgspec.structs.replace(options, reason=request.reason)
        case _:
            return options


def _precondition(asked: PreconditionRequest | None) -> Precondition | None:
    if asked is None:
        return None
    if asked.version is None and asked.available_gte is None:
        raise InvalidField("/precondition", "must have `version` or `available_gte`")
    available = _available(asked.available_gte) if asked.available_gte is not None else None
    return Precondition(version=asked.version, available_gte=available)


def _available(amount: Amount) -> int:
    if int(amount) > AMOUNT_MAX:
        raise InvalidField("/precondition/available_gte", f"must be from 0 to {AMOUNT_MAX} minor units")
    return int(amount)


def _instant(text: str, pointer: str) -> datetime:
    try:
        return msgspec.convert(text, Annotated[datetime, Meta(tz=True)]).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError) as error:
        raise InvalidField(pointer, "must be an RFC 3339 time with offset, like 2026-11-21T12:00:05Z") from error
