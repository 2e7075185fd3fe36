"""What clients may send as a command: one msgspec struct per type.

Decoding validates: unknown members, wrong types, lengths and alphabets are refused with the member's name. Amounts are
decimal strings or integers; floats and booleans are neither. The limits are those of `ledger.names` and `ledger.money`.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.bodies import decode
from api.problems import Problem
from ledger.commands import CreditsOrder, Source
from ledger.lots import PRIORITY_MAX
from ledger.money import AMOUNT_MAX, RATE_PATTERN, Rounding
from ledger.names import ASSET_PATTERN, NAME_PATTERN, REFERENCE_MAX, WALLET_PATTERN

WalletId = Annotated[str, Meta(pattern=WALLET_PATTERN, description="The wallet's id, as its owner named it.")]
AssetCode = Annotated[str, Meta(pattern=ASSET_PATTERN, description="An asset's code, such as gold_coins.")]
Amount = (
    Annotated[str, Meta(pattern=r"^[0-9]{1,19}$(?!\n)", description="Minor units of the asset, as decimal digits.")]
    | Annotated[int, Meta(ge=1, le=AMOUNT_MAX)]
)
SignedAmount = (
    Annotated[str, Meta(pattern=r"^-?[0-9]{1,19}$(?!\n)", description="Minor units; below zero takes from the wallet.")]
    | Annotated[int, Meta(ge=-AMOUNT_MAX, le=AMOUNT_MAX)]
)
Reference = Annotated[
    str, Meta(pattern=NAME_PATTERN, max_length=REFERENCE_MAX, description="Yours: an order, a match.")
]
Reason = Annotated[
    str, Meta(pattern=NAME_PATTERN, max_length=REFERENCE_MAX, description="Why the books must be corrected.")
]
Timestamp = Annotated[str, Meta(max_length=40, description="RFC 3339 with an offset.")]
CommandId = Annotated[
    str, Meta(pattern=r"^[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$(?!\n)", description="A command's id.")
]
Rate = Annotated[
    str,
    Meta(
        pattern=RATE_PATTERN,
        description="Minor units of `to_asset` for one minor unit of `asset`, as a decimal number above 0.",
    ),
]
Priority = Annotated[int, Meta(ge=0, le=PRIORITY_MAX, description="Of the lot; lower is spent first. 50 unless said.")]
IdempotencyKey = Annotated[str, Meta(pattern=r"^[!-~]{1,255}$(?!\n)", description="1 to 255 visible ASCII characters.")]

BATCH_MAX = 1_000  # commands of one batch request: a body of some 200 KB, one INSERT of 20 ms


class PreconditionRequest(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """What must be so of the wallet and asset when the command is decided; else it is rejected."""

    version: Annotated[int, Meta(ge=0, le=2**63 - 1)] | None = None
    available_gte: (
        Annotated[str, Meta(pattern=r"^[0-9]{1,19}$(?!\n)")] | Annotated[int, Meta(ge=0, le=AMOUNT_MAX)] | None
    ) = None


class _Common(Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    reference: Reference | None = None
    metadata: dict[str, Any] | None = None
    expires_at: Timestamp | None = None
    precondition: PreconditionRequest | None = None


class _Fields(_Common, kw_only=True):
    wallet: WalletId
    asset: AssetCode
    amount: Amount


class _Credit(_Fields, kw_only=True):
    credits_expire_at: Timestamp | None = None
    priority: Priority | None = None
    source: Source | None = None


class _Debit(_Fields, kw_only=True):
    credits_order: CreditsOrder | None = None


class TopUpRequest(_Credit, tag_field="type", tag="top_up", kw_only=True):
    """Paid-for credits enter a wallet; the first one opens it."""


class BonusRequest(_Credit, tag_field="type", tag="bonus", kw_only=True):
    """Given credits enter a wallet; the first one opens it."""


class SpendRequest(_Debit, tag_field="type", tag="spend", kw_only=True):
    """Credits leave a wallet for good."""


class TransferRequest(_Debit, tag_field="type", tag="transfer", kw_only=True):
    """Credits move to another wallet; the first one opens it."""

    to_wallet: WalletId


class HoldRequest(_Debit, tag_field="type", tag="hold", kw_only=True):
    """Credits are reserved until they are captured, released, or expire."""

    hold_expires_at: Timestamp


class CaptureRequest(_Common, tag_field="type", tag="capture", kw_only=True):
    """Held credits leave for good, or move to another wallet."""

    hold: CommandId
    amount: Amount | None = None
    to_wallet: WalletId | None = None
    final: bool | None = None


class ReleaseRequest(_Common, tag_field="type", tag="release", kw_only=True):
    """What is left of a hold becomes available again."""

    hold: CommandId


class ExchangeRequest(_Debit, tag_field="type", tag="exchange", kw_only=True):
    """Credits of one asset become credits of another in the same wallet."""

    to_asset: AssetCode
    rate: Rate
    rounding: Rounding | None = None


class ReverseRequest(_Common, tag_field="type", tag="reverse", kw_only=True):
    """The exact opposite of an applied command, or of a part of it."""

    command: CommandId
    amount: Amount | None = None
    allow_negative: bool | None = None


class AdjustRequest(_Common, tag_field="type", tag="adjust", kw_only=True):
    """An operator's correction of a balance. Scope: `admin`."""

    wallet: WalletId
    asset: AssetCode
    amount: SignedAmount
    reason: Reason


CommandRequest = (
    TopUpRequest
    | BonusRequest
    | SpendRequest
    | TransferRequest
    | HoldRequest
    | CaptureRequest
    | ReleaseRequest
    | ExchangeRequest
    | ReverseRequest
    | AdjustRequest
)


class TopUpItem(TopUpRequest, tag_field="type", tag="top_up", kw_only=True):
    idempotency_key: IdempotencyKey


class BonusItem(BonusRequest, tag_field="type", tag="bonus", kw_only=True):
    idempotency_key: IdempotencyKey


class SpendItem(SpendRequest, tag_field="type", tag="spend", kw_only=True):
    idempotency_key: IdempotencyKey


class TransferItem(TransferRequest, tag_field="type", tag="transfer", kw_only=True):
    idempotency_key: IdempotencyKey


class HoldItem(HoldRequest, tag_field="type", tag="hold", kw_only=True):
    idempotency_key: IdempotencyKey


class CaptureItem(CaptureRequest, tag_field="type", tag="capture", kw_only=True):
    idempotency_key: IdempotencyKey


class ReleaseItem(ReleaseRequest, tag_field="type", tag="release", kw_only=True):
    idempotency_key: IdempotencyKey


class ExchangeItem(ExchangeRequest, tag_field="type", tag="exchange", kw_only=True):
    idempotency_key: IdempotencyKey


class ReverseItem(ReverseRequest, tag_field="type", tag="reverse", kw_only=True):
    idempotency_key: IdempotencyKey


class AdjustItem(AdjustRequest, tag_field="type", tag="adjust", kw_only=True):
    idempotency_key: IdempotencyKey


CommandItem = (
    TopUpItem
    | BonusItem
    | SpendItem
    | TransferItem
    | HoldItem
    | CaptureItem
    | ReleaseItem
    | ExchangeItem
    | ReverseItem
    | AdjustItem
)


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
