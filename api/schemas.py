"""What the api's answers look like: for the OpenAPI document and for whoever checks answers against it.

The routes build their answers themselves, in one pass; a test holds every answer to these models.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Amount = Annotated[str, Field(pattern="^-?[0-9]{1,19}$", description="Minor units of the asset.", examples=["30"])]
WalletId = Annotated[str, Field(examples=["player-42"])]
AssetCode = Annotated[str, Field(examples=["gold_coins"])]
Metadata = Annotated[dict[str, Any], Field(description="The caller's own, as it was sent.")]
NextCursor = Annotated[str, Field(description="Send it as `cursor` for the next page. Empty: this is the last one.")]


class Shown(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Velocity(Shown):
    window_s: int
    max_amount: Amount | None = None
    max_count: int | None = None


class Limits(Shown):
    """Only the members that limit stand here."""

    max_amount: Annotated[Amount | None, Field(description="Of one command.")] = None
    max_balance: Annotated[Amount | None, Field(description="Of a wallet, after a credit.")] = None
    velocity: Annotated[Velocity | None, Field(description="Of the debits in a window that slides.")] = None
    max_supply: Annotated[Amount | None, Field(description="Of all that is in wallets.")] = None
    balance_low_below: Annotated[
        Amount | None, Field(description="Bounds nothing: falling below it is told, `wallet.balance_low`.")
    ] = None


class Lot(Shown):
    """Credits that came together and are spent together (docs/commands.md)."""

    id: Annotated[str, Field(description="The transfer that made it, a dot, and which of its lots it is.")]
    source: Literal["purchased", "promotional"]
    priority: Annotated[int, Field(description="Lower is spent first.")]
    expires_at: datetime | None
    remaining: Amount
    held: Annotated[Amount, Field(description="Of `remaining`, by open holds.")]
    available: Annotated[Amount, Field(description="`remaining` - `held`; `0` past its time.")]


class Account(Shown):
    """A wallet's balance of one asset. `available` = `posted` - `held` - `queued` - what is past its time and has not
    left yet."""

    asset: AssetCode
    posted: Annotated[Amount, Field(description="What the applied commands left.")]
    held: Annotated[Amount, Field(description="Reserved by open holds.")]
    queued: Annotated[Amount, Field(description="Asked for by the wallet's own pending commands. `0` at a past time.")]
    available: Annotated[
        Amount, Field(description="Below zero where the pending debits cannot all succeed: some will be refused.")
    ]
    version: Annotated[int, Field(ge=0, description="One more with each entry.")]
    lots: Annotated[
        list[Lot] | None,
        Field(
            description="Not used up, in the order of spending; what is not in them is plain. Not in lists, nor as_of."
        ),
    ] = None
    limits: Annotated[Limits | None, Field(description="In force. Not in lists, nor as_of.")] = None


class Wallet(Shown):
    id: WalletId
    object: Literal["wallet"]
    status: Literal["active", "debits_frozen", "frozen", "closed"]
    name: str | None
    metadata: Metadata
    created_at: datetime
    accounts: list[Account]


class WalletLimits(Shown):
    """Of one wallet in one asset."""

    object: Literal["limits"]
    wallet: WalletId
    asset: AssetCode
    own: Limits | None
    in_force: Annotated[Limits | None, Field(description="Its own, member by member, before the asset's.")]


class Change(Shown):
    """What somebody did by hand. Of a wallet (its limits: in `asset`), or, without one, of an asset; or a requeue."""

    object: Literal["change"]
    wallet: WalletId | None
    asset: AssetCode | None
    member: Literal["status", "limits", "requeue"]
    before: str | Limits | None
    after: str | Limits | None
    reason: str | None
    client: Annotated[str, Field(description="Whose key it was.")]
    key_id: Annotated[int | None, Field(description="Which key, as `bursar keys list` numbers them.")]
    command: Annotated[
        str | None,
        Field(description="The command that came with it: a sweep, or the requeue of `before`."),
    ]
    at: datetime


class ChangeList(Shown):
    data: list[Change]
    next_cursor: NextCursor


class Hold(Shown):
    """Credits that are reserved. `amount` = `remaining` + `captured` + what was given back."""

    id: Annotated[str, Field(description="The id of the command that placed it.")]
    object: Literal["hold"]
    wallet: WalletId
    asset: AssetCode
    status: Literal["open", "captured", "released", "expired"]
    amount: Amount
    remaining: Annotated[Amount, Field(description="Still held.")]
    captured: Amount
    expires_at: datetime
    ended_at: datetime | None
    reference: str | None
    metadata: Metadata


class HoldList(Shown):
    data: list[Hold]
    next_cursor: NextCursor


class WalletList(Shown):
    data: list[Wallet]
    next_cursor: NextCursor


class Entry(Shown):
    """One line of the journal, as it stands on one wallet's account."""

    id: Annotated[str, Field(examples=["player-42/gold_coins/4"])]
    object: Literal["entry"]
    transfer: Annotated[str, Field(description="The transfer's id.")]
    command: Annotated[str, Field(description="The id of the command that it is the outcome of.")]
    type: Annotated[str, Field(description="The command's type.", examples=["spend"])]
    wallet: WalletId
    asset: AssetCode
    direction: Annotated[
        Literal["debit", "credit", "none"],
        Field(description="`none`: credits were held or given back, and none moved."),
    ]
    amount: Amount
    balance_after: Annotated[Amount | None, Field(description="Null for a system wallet.")]
    held_after: Annotated[Amount | None, Field(description="Null for a system wallet.")]
    version: Annotated[int | None, Field(description="The account's version. Null for a system wallet.")]
    at: datetime
    reference: str | None
    metadata: Metadata


class EntryList(Shown):
    data: list[Entry]
    next_cursor: NextCursor


class Balance(Shown):
    posted: Amount
    held: Amount
    available: Amount
    version: Annotated[int, Field(ge=0, description="The account's version; 0: nothing had been written yet.")]


class Statement(Shown):
    """`opening` and all amounts together, debits subtracted, are `closing`."""

    object: Literal["statement"]
    wallet: WalletId
    asset: AssetCode
    from_: Annotated[datetime | None, Field(alias="from", description="Null: from the beginning.")]
    to: datetime
    opening: Annotated[Balance, Field(description="Just before `from`.")]
    entries: Annotated[list[Entry], Field(description="Oldest first.")]
    closing: Annotated[Balance, Field(description="Just before `to`.")]


class Transfer(Shown):
    """A balanced set of entries, debits first."""

    id: str
    object: Literal["transfer"]
    command: str
    type: str
    at: datetime
    reference: str | None
    metadata: Metadata
    entries: list[Entry]


class Receipt(Shown):
    """A JWS in flattened JSON form; each member is base64url. What is signed, and how to check it: docs/receipts.md."""

    payload: Annotated[str, Field(description="JSON: `object`, `command`, `transfer`.")]
    protected: Annotated[str, Field(description="The header: `alg` EdDSA, `kid`, `typ` bursar-receipt.")]
    signature: str


class Jwk(Shown):
    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    x: Annotated[str, Field(description="The public key, 32 bytes.")]
    kid: Annotated[str, Field(description="Its thumbprint (RFC 7638).")]
    alg: Literal["EdDSA"]
    use: Literal["sig"]


class JwkSet(Shown):
    keys: list[Jwk]


class Asset(Shown):
    code: AssetCode
    object: Literal["asset"]
    name: str
    scale: Annotated[int, Field(description="Decimal places of the minor unit: at scale 2, `150` is 1.50.")]
    status: Literal["active", "frozen"]
    limits: Limits | None
    created_at: datetime


class AssetList(Shown):
    data: list[Asset]
    next_cursor: NextCursor


class Supply(Shown):
    """Of one asset. `in_circulation` = `issued` - `spent` - `expired` - `exchanged` + `adjusted`."""

    object: Literal["supply"]
    asset: AssetCode
    issued: Annotated[Amount, Field(description="Topped up and given as bonus.")]
    spent: Annotated[Amount, Field(description="Come back as revenue.")]
    expired: Annotated[Amount, Field(description="Taken out as credits past their time.")]
    exchanged: Annotated[Amount, Field(description="Taken out by exchanges, less what they put in.")]
    adjusted: Annotated[Amount, Field(description="Put in by adjustments, less what they took out.")]
    in_circulation: Annotated[Amount, Field(description="In the players' wallets.")]
    max_supply: Amount | None
    headroom: Annotated[
        Amount | None,
        Field(description="What may still be issued. Below zero: more circulates than may. Null: no limit."),
    ]


class SupplyList(Shown):
    data: list[Supply]
    next_cursor: NextCursor


class WebhookEndpoint(Shown):
    """Where events are sent (docs/webhooks.md)."""

    id: str
    object: Literal["webhook_endpoint"]
    url: str
    description: str | None
    event_types: Annotated[list[str] | None, Field(description="Null: all.")]
    wallets: Annotated[list[str] | None, Field(description="Null: all.")]
    ordering: Literal["none", "per_wallet"]
    max_per_second: int | None
    header_names: Annotated[list[str], Field(description="Of your own headers. Their values are not shown again.")]
    status: Literal["enabled", "disabled"]
    disabled_reason: Annotated[str | None, Field(description="Null: it is enabled, or was disabled by hand.")]
    failing_since: Annotated[datetime | None, Field(description="Nothing but failures since then.")]
    paused_until: Annotated[datetime | None, Field(description="It asked for a pause.")]
    former_secret_until: Annotated[datetime | None, Field(description="Until then the secret before signs, too.")]
    created_at: datetime


class NewWebhookEndpoint(WebhookEndpoint):
    secret: Annotated[str, Field(description="Shown this once.", examples=["whsec_…"])]


class WebhookEndpointList(Shown):
    data: list[WebhookEndpoint]
    next_cursor: NextCursor


class Delivery(Shown):
    """An event that an endpoint is owed."""

    id: Annotated[str, Field(description="The event's: `webhook-id` of every attempt.")]
    object: Literal["delivery"]
    event_type: str
    command: Annotated[str | None, Field(description="Whose outcome it is. Null: of none.")]
    status: Literal["pending", "delivered", "exhausted"]
    attempts: int
    next_attempt_at: datetime | None
    at: Annotated[datetime, Field(description="When it happened.")]


class DeliveryList(Shown):
    data: list[Delivery]
    next_cursor: NextCursor


class Attempt(Shown):
    number: int
    at: datetime
    status: Annotated[int | None, Field(description="Of the answer. Null: there was none.")]
    failure: Annotated[str | None, Field(description="Null: it was delivered.")]
    detail: str | None
    took_ms: int
    response: Annotated[str, Field(description="The answer's body, as far as it was read.")]


class DeliveryWithAttempts(Delivery):
    attempt_list: list[Attempt]


class DeliveryStats(Shown):
    """Of the newest 10,000 deliveries."""

    object: Literal["delivery_stats"]
    pending: int
    delivered: int
    exhausted: int
    attempts: int
    failed_attempts: int
    p50_ms: Annotated[int | None, Field(description="Of the attempts that were delivered.")]
    p99_ms: int | None
    oldest_pending_at: datetime | None


class Queued(Shown):
    queued: int
    next_cursor: Annotated[str, Field(description="Send it as `cursor` to go on. Empty: that was all.")]


class Live(Shown):
    status: Literal["alive"]


class Ready(Shown):
    status: Literal["ready"]
    schema_revision: Annotated[str, Field(description="The migration that the database is at.")]
    oldest_pending_s: Annotated[float, Field(description="Age of the oldest pending command in seconds; 0: none.")]


class FieldProblem(Shown):
    pointer: Annotated[
        str,
        Field(description="A JSON pointer into the body; `/query/…`, `/path/…` and `/header/…` name parameters."),
    ]
    code: str
    detail: str


class Problem(Shown):
    """RFC 9457. Match on `code`; `detail` is for people."""

    type: Annotated[str, Field(examples=["/problems/wallet_not_found"])]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    instance: str
    code: Annotated[str, Field(examples=["wallet_not_found"])]
    request_id: str
    retryable: Annotated[bool, Field(description="The very same request may succeed later.")]
    errors: list[FieldProblem]
    command: Annotated[
        dict[str, Any] | None, Field(description="Of `already_decided` alone: the command, with its outcome.")
    ] = None
