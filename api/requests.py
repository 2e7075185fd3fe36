"""What clients may send as a command: one msgspec struct per type, and its canonical form.

Decoding validates: unknown members, wrong types, lengths and alphabets are refused with the member's name. Amounts are
decimal strings or integers; floats and booleans are neither. The limits are those of `ledger.names` and `ledger.money`.
"""

from datetime import UTC, datetime
from hashlib import blake2b
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.bodies import decode
from api.problems import Problem
from ledger.inbox import NewCommand
from ledger.money import AMOUNT_MAX
from ledger.names import ASSET_PATTERN, NAME_PATTERN, REFERENCE_MAX, WALLET_PATTERN, metadata_text
from ledger.partitions import partition_of

WalletId = Annotated[str, Meta(pattern=WALLET_PATTERN, description="The wallet's id, as its owner named it.")]
AssetCode = Annotated[str, Meta(pattern=ASSET_PATTERN, description="An asset's code, such as gold_coins.")]
Amount = (
    Annotated[str, Meta(pattern=r"^[0-9]{1,19}$(?!\n)", description="Minor units of the asset, as decimal digits.")]
    | Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]
)
Reference = Annotated[
    str, Meta(pattern=NAME_PATTERN, max_length=REFERENCE_MAX, description="Yours: an order, a match.")
]
Timestamp = Annotated[str, Meta(max_length=40, description="RFC 3339 with an offset.")]
IdempotencyKey = Annotated[str, Meta(pattern=r"^[!-~]{1,255}$(?!\n)", description="1 to 255 visible ASCII characters.")]

BATCH_MAX = 1_000  # commands of one batch request: a body of some 200 KB, one INSERT of 20 ms


class _Fields(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    wallet: WalletId
    asset: AssetCode
    amount: Amount
    reference: Reference | None = None
    metadata: dict[str, Any] | None = None
    expires_at: Timestamp | None = None


class TopUpRequest(_Fields, tag_field="type", tag="top_up", kw_only=True):
    """Paid-for credits enter a wallet; the first one opens it."""


class BonusRequest(_Fields, tag_field="type", tag="bonus", kw_only=True):
    """Given credits enter a wallet; the first one opens it."""


class SpendRequest(_Fields, tag_field="type", tag="spend", kw_only=True):
    """Credits leave a wallet for good."""


class TransferRequest(_Fields, tag_field="type", tag="transfer", kw_only=True):
    """Credits move to another wallet; the first one opens it."""

    to_wallet: WalletId


CommandRequest = TopUpRequest | BonusRequest | SpendRequest | TransferRequest


class TopUpItem(TopUpRequest, tag_field="type", tag="top_up", kw_only=True):
    idempotency_key: IdempotencyKey


class BonusItem(BonusRequest, tag_field="type", tag="bonus", kw_only=True):
    idempotency_key: IdempotencyKey


class SpendItem(SpendRequest, tag_field="type", tag="spend", kw_only=True):
    idempotency_key: IdempotencyKey


class TransferItem(TransferRequest, tag_field="type", tag="transfer", kw_only=True):
    idempotency_key: IdempotencyKey


CommandItem = TopUpItem | BonusItem | SpendItem | TransferItem


class BatchRequest(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    commands: Annotated[list[CommandItem], Meta(min_length=1, max_length=BATCH_MAX)]
    atomic: bool = False


class RawBatch(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A batch whose items are looked at one by one, because not all of them are well-formed."""

    commands: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=BATCH_MAX)]
    atomic: bool | msgspec.UnsetType = msgspec.UNSET


_raw_batch = msgspec.json.Decoder(RawBatch)


def raw_batch(body: bytes, problem: Problem) -> tuple[list[bytes], bool]:
    """The items' own bytes, and `atomic`. Raises `problem` where not only an item is at fault, but the batch itself."""
    batch = decode(body, _raw_batch, inspect=False)
    items = [bytes(item) for item in batch.commands]
    members = body.count(b":") - sum(item.count(b":") for item in items)  # of the batch; its names have no colon
    if members != (1 if batch.atomic is msgspec.UNSET else 2):
        raise problem
    return items, batch.atomic is True


class InvalidField(ValueError):
    """A member that is well-formed and still cannot be meant. `pointer` is a JSON pointer into the command."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(detail)
        self.pointer = pointer
        self.detail = detail


def new_command(
    request: CommandRequest | CommandItem, *, key: str, tenant_id: int, client_id: int, partitions: int
) -> NewCommand:
    """The request as it goes into the inbox. Raises InvalidField."""
    amount = int(request.amount)
    if not 1 <= amount <= AMOUNT_MAX:
        raise InvalidField("/amount", f"must be from 1 to {AMOUNT_MAX} minor units")
    to_wallet = request.to_wallet if isinstance(request, TransferRequest) else None
    if to_wallet == request.wallet:
        raise InvalidField("/to_wallet", "must be another wallet than `wallet`")
    metadata = None
    if request.metadata is not None:
        try:
            metadata = metadata_text(request.metadata)
        except ValueError as error:
            raise InvalidField("/metadata", str(error)) from error
    expires_at = _instant(request.expires_at) if request.expires_at is not None else None
    kind = request.__struct_config__.tag
    assert isinstance(kind, str)
    return NewCommand(
        tenant_id=tenant_id,
        client_id=client_id,
        partition=partition_of(tenant_id, request.wallet, partitions),
        type=kind,
        idempotency_key=key,
        request_hash=_request_hash(kind, request, to_wallet, amount, metadata, expires_at),
        wallet=request.wallet,
        to_wallet=to_wallet,
        asset=request.asset,
        amount=amount,
        reference=request.reference,
        metadata=metadata,
        expires_at=expires_at,
    )


def _request_hash(
    kind: str,
    request: CommandRequest | CommandItem,
    to_wallet: str | None,
    amount: int,
    metadata: str | None,
    expires_at: datetime | None,
) -> bytes:
    """Of what the caller asked, in canonical form: member order, spaces, `"30"` or `30`, and the offset of a time are
    no difference; an absent member and an explicit null are the same."""
    form = (
        kind,
        request.wallet,
        to_wallet,
        request.asset,
        amount,
        request.reference,
        metadata,
        expires_at,
    )
    return blake2b(msgspec.json.encode(form), digest_size=16).digest()


def _instant(text: str) -> datetime:
    try:
        return msgspec.convert(text, Annotated[datetime, Meta(tz=True)]).astimezone(UTC)
    except (msgspec.ValidationError, OverflowError) as error:
        raise InvalidField("/expires_at", "must be an RFC 3339 time with offset, like 2026-11-21T12:00:05Z") from error
