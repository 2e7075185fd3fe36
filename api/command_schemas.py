"""Commands and their outcomes in the OpenAPI document: what may be sent, and what answers look like.

The schemas are those of the structs that the routes decode, sharpened where JSON Schema can tell more than msgspec
checks while it decodes. Tests hold every answer, every example and the limits to them.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from api.canonical import HOLD_MAX
from api.openapi import components
from api.requests import BatchRequest, CommandRequest
from ledger.commands import OWN_TYPES, REVERSIBLE_TYPES, TOMBSTONE, TYPES, CreditsOrder, Source
from ledger.errors import Code
from ledger.money import AMOUNT_MAX, Rounding
from ledger.names import METADATA_DEPTH_MAX, METADATA_MAX_BYTES

# --- answers -------------------------------------------------------------------------------------------------------

Amount = Annotated[str, Meta(pattern="^-?[0-9]{1,19}$", description="Minor units of the asset.")]
Id = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Time = Annotated[datetime, Meta(tz=True, extra_json_schema={"format": "date-time"})]
Type = Annotated[str, Meta(extra_json_schema={"enum": [*TYPES, *OWN_TYPES, TOMBSTONE]})]
Metadata = Annotated[dict[str, Any], Meta(description="As it was sent; `{}` where none was.")]


class OutcomeAccount(Struct, forbid_unknown_fields=True):
    """A balance that the command left. System wallets are not shown."""

    wallet: str
    asset: str
    posted: Amount
    held: Amount
    available: Annotated[Amount, Meta(description="`posted` - `held`.")]
    version: Annotated[int, Meta(ge=0, description="One more with each entry. Later ones are newer.")]


class MovedAmount(Struct, forbid_unknown_fields=True):
    asset: str
    amount: Amount


class OutcomeHold(Struct, forbid_unknown_fields=True):
    """Where a hold stood after the command."""

    id: Annotated[Id, Meta(description="Of the hold's command.")]
    status: Literal["open", "captured", "released", "expired"]
    remaining: Annotated[Amount, Meta(description="Still held.")]
    captured: Annotated[Amount, Meta(description="Captured so far.")]


class OutcomeLot(Struct, kw_only=True, forbid_unknown_fields=True):
    """A lot that the command took from or gave to, in the order in which it did."""

    lot: Annotated[str | None, Meta(description="`<transfer>.<n>`: the transfer that made it. Null: the plain rest.")]
    wallet: str
    asset: str
    amount: Annotated[Amount, Meta(description="Taken: below zero; given: above; `0` where it was only reserved.")]
    held: Annotated[Amount, Meta(description="What more, or less, of it is held.")] | UnsetType = UNSET
    source: Source | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    expires_at: Time | UnsetType | None = UNSET


class Outcome(Struct, forbid_unknown_fields=True):
    """What became of a command. It never changes."""

    code: Annotated[Code, Meta(description="Match on this. Newer versions add codes; treat an unknown one as final.")]
    at: Time
    transfers: Annotated[list[Id], Meta(description="What it wrote; empty unless it was applied.")]
    accounts: Annotated[
        list[OutcomeAccount],
        Meta(description="Applied: the balances it left. Rejected: the wallet's own balance at that moment, if any."),
    ]
    task: Annotated[Id | None, Meta(description="The worker's task, as Flower shows it. Null: the look-out.")]
    detail: Annotated[str, Meta(description="Why not, for a person. Not there when applied.")] | UnsetType = UNSET
    moved: (
        Annotated[list[MovedAmount], Meta(description="What it came to, where the command did not say it all.")]
        | UnsetType
    ) = UNSET
    hold: OutcomeHold | UnsetType = UNSET
    lots: (
        Annotated[list[OutcomeLot], Meta(description="Which credits it took and gave, where lots are concerned.")]
        | UnsetType
    ) = UNSET


class ShownPrecondition(Struct, forbid_unknown_fields=True):
    version: int | UnsetType = UNSET
    available_gte: Amount | UnsetType = UNSET


class _Shown(Struct, kw_only=True, forbid_unknown_fields=True):
    id: Id
    object: Literal["command"]
    type: Type
    wallet: Annotated[str | None, Meta(description="Null for a tombstone alone.")]
    to_wallet: Annotated[str, Meta(description="Of a transfer, or of a capture to a wallet.")] | UnsetType = UNSET
    asset: Annotated[str | None, Meta(description="Null for a tombstone alone.")]
    amount: Annotated[Amount | None, Meta(description="Null: all that is left.")]
    reference: str | None
    metadata: Metadata
    idempotency_key: str
    accepted_at: Time
    expires_at: Time | None
    group: Annotated[Id, Meta(description="The first command of its atomic batch.")] | UnsetType = UNSET
    precondition: ShownPrecondition | UnsetType = UNSET
    credits_order: CreditsOrder | UnsetType = UNSET
    credits_expire_at: Time | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    source: Source | UnsetType = UNSET
    hold_expires_at: Annotated[Time, Meta(description="Of a hold.")] | UnsetType = UNSET
    hold: Annotated[Id, Meta(description="The hold that a capture or release names.")] | UnsetType = UNSET
    final: Annotated[bool, Meta(description="Of a capture.")] | UnsetType = UNSET
    to_asset: Annotated[str, Meta(description="Of an exchange.")] | UnsetType = UNSET
    to_amount: Annotated[Amount, Meta(description="Of an exchange: minor units of `to_asset`.")] | UnsetType = UNSET
    rate: Annotated[str, Meta(description="Of an exchange.")] | UnsetType = UNSET
    rounding: Annotated[Rounding, Meta(description="Of an exchange.")] | UnsetType = UNSET
    command: Annotated[Id, Meta(description="The command that a reverse names.")] | UnsetType = UNSET
    allow_negative: Annotated[bool, Meta(description="Of a reverse.")] | UnsetType = UNSET
    reason: Annotated[str, Meta(description="Of an adjust.")] | UnsetType = UNSET
    requeue_of: (
        Annotated[Id, Meta(description="The failed command whose request an operator had accepted again.")] | UnsetType
    ) = UNSET


class Projection(Struct, forbid_unknown_fields=True):
    """What will most likely come of a pending command: after all that is queued before it, on the books of now. It
    binds nobody. Null: the queue is too long to tell."""

    queued_ahead: Annotated[
        int | None, Meta(description="Pending commands before it that touch its wallet, however indirectly.")
    ]
    available: Annotated[Amount | None, Meta(description="What its wallet would have left, all that included.")]
    status: Literal["applied", "rejected"] | None
    code: Code | None


class PendingCommand(_Shown, kw_only=True):
    """Accepted and durable; its outcome is to come."""

    status: Literal["pending"]
    outcome: None
    projection: Annotated[Projection, Meta(description="There where it was asked for.")] | UnsetType = UNSET


class FinalCommand(_Shown, kw_only=True):
    """With its outcome, which never changes."""

    status: Literal["applied", "rejected", "cancelled", "failed"]
    outcome: Outcome


class PendingResult(Struct, forbid_unknown_fields=True):
    status: Literal[202]
    command: PendingCommand
    idempotent_replayed: Literal[True] | UnsetType = UNSET


class FinalResult(Struct, forbid_unknown_fields=True):
    status: Literal[200]
    command: FinalCommand
    idempotent_replayed: Literal[True] | UnsetType = UNSET


# --- schemas -------------------------------------------------------------------------------------------------------

_NAMES = {tag: "".join(map(str.capitalize, tag.split("_"))) for tag in TYPES}  # `TopUp`, as the structs are named

# 1 to AMOUNT_MAX, a power of ten, leading zeros allowed: what the api checks in two steps (api.canonical) in one.
_ABOVE_0 = f"(?:0*[1-9][0-9]{{0,{len(str(AMOUNT_MAX)) - 2}}}|{AMOUNT_MAX})"
_AMOUNT, _SIGNED, _OR_NONE = f"^{_ABOVE_0}$", f"^(?![0-9]{{20}})-?{_ABOVE_0}$", f"^(?:0{{1,19}}|{_ABOVE_0})$"
# A bare key; or a quoted one, which may have two characters more. `""` is an empty one.
KEY_PATTERN = r'^(?!""$)[!-~]{1,255}$|^"[!-~]{254,255}"$'

_MEMBERS = {  # what is told of members, whichever type has them
    "metadata": f"Yours; comes back with the command and its entries. At most {METADATA_MAX_BYTES} bytes of JSON and "
    f"{METADATA_DEPTH_MAX} levels; no NUL in any string.",
    "expires_at": "Not applied by then: rejected `expired`.",
    "precondition": "Else rejected `precondition_failed`.",
    "credits_expire_at": "From then on the credits cannot be spent; what is left of them goes to `@expired`.",
    "priority": "Lots of a lower one are spent first; 50 unless said.",
    "source": "Unless said: `promotional` for a bonus, `purchased` for a top-up.",
    "credits_order": "Which lots it takes first; `soonest_to_expire` unless said.",
    "hold_expires_at": f"At most {HOLD_MAX.days} days ahead. From then on the credits are available again.",
    "hold": "The id of the hold's command.",
    "final": "`true` unless said: what is left of the hold is given back.",
    "to_asset": "Another asset than `asset`.",
    "rate": "Minor units of `to_asset` per minor unit of `asset`. What it comes to is at least 1.",
    "rounding": "To whole minor units of `to_asset`: `down` unless said, so that we keep the rest.",
    "command": f"The id of the command to reverse: {', '.join(f'`{kind}`' for kind in REVERSIBLE_TYPES)}.",
    "allow_negative": "The wallet may go below zero. Scope: `admin`.",
}


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def schemas() -> dict[str, Any]:
    """All that the document's operations on commands refer to, by name."""
    named = components(CommandRequest, BatchRequest, PendingCommand, FinalCommand, PendingResult, FinalResult)
    for name in _NAMES.values():
        _sharpen(named[f"{name}Request"]["properties"])
        _sharpen(named[f"{name}Item"]["properties"])
    digits = named["PreconditionRequest"]["properties"]["available_gte"]["anyOf"][0]
    digits |= {"pattern": _OR_NONE, "maxLength": 19, "examples": ["100"]}
    named["PreconditionRequest"]["anyOf"] = [
        {"required": [member], "properties": {member: {"not": {"type": "null"}}}}
        for member in ("version", "available_gte")
    ]
    named["CommandRequest"] = _by_type("Request")
    named["CommandItem"] = _by_type("Item")
    batch = named["BatchRequest"]["properties"]
    batch["commands"]["items"] = ref("CommandItem")
    batch["atomic"]["description"] = "All of them or none, in one transaction; all are of one wallet."
    named["Command"] = {"oneOf": [ref("PendingCommand"), ref("FinalCommand")]}
    named["FailedResult"] = _strict(
        status={"type": "integer", "minimum": 400, "maximum": 599},
        problem={**ref("Problem"), "description": "Its pointers lead into the item, not into the whole body."},
    )
    results = [ref("PendingResult"), ref("FinalResult"), ref("FailedResult")]
    named["BatchAnswer"] = _strict(
        results={"type": "array", "items": {"oneOf": results}, "description": "One per command, in their order."}
    )
    return named


def _strict(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _by_type(role: str) -> dict[str, Any]:
    mapping = {tag: ref(f"{name}{role}")["$ref"] for tag, name in _NAMES.items()}
    return {
        "oneOf": [{"$ref": reference} for reference in mapping.values()],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }


def _sharpen(properties: dict[str, Any]) -> None:
    """What JSON Schema can tell and msgspec does not check while it decodes."""
    for name, told in _MEMBERS.items():
        if name in properties:
            properties[name]["description"] = told
    if "amount" in properties:
        signed = "reason" in properties
        digits = next(schema for schema in properties["amount"]["anyOf"] if schema.get("type") == "string")
        digits |= {"pattern": _SIGNED if signed else _AMOUNT, "maxLength": 20 if signed else 19, "examples": ["30"]}
        if signed:
            properties["amount"]["not"] = {"const": 0}
    for name in ("expires_at", "credits_expire_at", "hold_expires_at"):
        if name in properties:
            property = properties[name]
            next(schema for schema in property.get("anyOf", [property]) if schema["type"] == "string").update(
                format="date-time"
            )
