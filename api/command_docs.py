"""What the OpenAPI document says of commands. Their plain Starlette routes (api.routes.commands) say nothing of it.

The schemas are those of the structs that the routes decode, sharpened where JSON Schema can tell more than msgspec
checks while it decodes. Tests hold every answer, every example and the limits to this document.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from api.canonical import HOLD_MAX
from api.openapi import components, problems
from api.requests import BATCH_MAX, BatchRequest, CommandRequest
from api.routes.commands import WAIT_MAX_S
from ledger.commands import OWN_TYPES, TOMBSTONE, TYPES, CreditsOrder, Source
from ledger.errors import Code
from ledger.keys import Scope
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


class Moved(Struct, forbid_unknown_fields=True):
    asset: str
    amount: Amount


class OutcomeHold(Struct, forbid_unknown_fields=True):
    id: Annotated[Id, Meta(description="The command that placed it.")]
    status: Literal["open", "captured", "released", "expired"]
    remaining: Annotated[Amount, Meta(description="Still held.")]
    captured: Amount


class LotPart(Struct, forbid_unknown_fields=True):
    """A part of an amount, by lot. Taken from it: below zero; given to it: above."""

    lot: Annotated[str | None, Meta(description="The lot's id. Null: plain credits.")]
    wallet: str
    asset: str
    amount: Amount
    held: Annotated[Amount, Meta(description="Change of what holds have taken of it.")] | UnsetType = UNSET
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
        Annotated[list[Moved], Meta(description="Where the command did not say it all: by asset, what it moved.")]
        | UnsetType
    ) = UNSET
    hold: Annotated[OutcomeHold, Meta(description="The hold, as the command left it.")] | UnsetType = UNSET
    lots: (
        Annotated[list[LotPart], Meta(description="What it took from lots and gave to them, in order.")] | UnsetType
    ) = UNSET


class ShownPrecondition(Struct, forbid_unknown_fields=True):
    version: int | UnsetType = UNSET
    available_gte: Amount | UnsetType = UNSET


class _Shown(Struct, kw_only=True, forbid_unknown_fields=True):
    id: Id
    object: Literal["command"]
    type: Type
    wallet: Annotated[str | None, Meta(description="Null for a tombstone.")]
    asset: Annotated[str | None, Meta(description="Null for a tombstone.")]
    amount: Annotated[Amount | None, Meta(description="Null where all that is left was asked for.")]
    reference: str | None
    metadata: Metadata
    idempotency_key: str
    accepted_at: Time
    expires_at: Time | None
    to_wallet: Annotated[str, Meta(description="Of a transfer, a capture.")] | UnsetType = UNSET
    precondition: ShownPrecondition | UnsetType = UNSET
    credits_expire_at: Time | UnsetType = UNSET
    priority: int | UnsetType = UNSET
    source: Source | UnsetType = UNSET
    credits_order: CreditsOrder | UnsetType = UNSET
    hold_expires_at: Time | UnsetType = UNSET
    hold: Annotated[Id | None, Meta(description="The hold that it captures, releases or ends.")] | UnsetType = UNSET
    final: bool | UnsetType = UNSET
    to_asset: str | UnsetType = UNSET
    rate: str | UnsetType = UNSET
    rounding: Rounding | UnsetType = UNSET
    command: Annotated[Id | None, Meta(description="The command that it reverses.")] | UnsetType = UNSET
    allow_negative: bool | UnsetType = UNSET
    reason: str | UnsetType = UNSET


class PendingCommand(_Shown, kw_only=True):
    """Accepted and durable; its outcome is to come."""

    status: Literal["pending"]
    outcome: None


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

_KINDS = (
    "TopUp", "Bonus", "Spend", "Transfer", "Hold", "Capture", "Release", "Exchange", "Reverse", "Adjust",
)  # fmt: skip

# 1 to AMOUNT_MAX, a power of ten, leading zeros allowed: what the api checks in two steps (api.requests) in one.
_AMOUNT = f"^(?:0*[1-9][0-9]{{0,{len(str(AMOUNT_MAX)) - 2}}}|{AMOUNT_MAX})$"
_SIGNED = f"^(?=-?[0-9]{{1,19}}$)-?{_AMOUNT[1:]}"
_AVAILABLE = f"^(?:0*[0-9]{{1,{len(str(AMOUNT_MAX)) - 1}}}|{AMOUNT_MAX})$"
# A bare key; or a quoted one, which may have two characters more. `""` is an empty one.
KEY_PATTERN = r'^(?!""$)[!-~]{1,255}$|^"[!-~]{254,255}"$'


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> dict[str, Any]:
    named = components(CommandRequest, BatchRequest, PendingCommand, FinalCommand, PendingResult, FinalResult)
    for kind in _KINDS:
        for role in ("Request", "Item"):
            _sharpen(named[f"{kind}{role}"]["properties"], signed=kind == "Adjust")
    expected = named["PreconditionRequest"]
    # An explicit null is as if it were absent.
    expected["anyOf"] = [
        {"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in expected["properties"]
    ]
    expected["properties"]["available_gte"]["anyOf"][0] |= {"pattern": _AVAILABLE, "maxLength": 19}
    named["CommandRequest"] = _by_type("Request")
    named["CommandItem"] = _by_type("Item")
    batch = named["BatchRequest"]["properties"]
    batch["commands"]["items"] = _ref("CommandItem")
    batch["atomic"]["description"] = "All of them in one transaction, or none: commands of one wallet."
    named["Command"] = {"oneOf": [_ref("PendingCommand"), _ref("FinalCommand")]}
    named["FailedResult"] = _strict(
        status={"type": "integer", "minimum": 400, "maximum": 599},
        problem={**_ref("Problem"), "description": "Its pointers lead into the item, not into the whole body."},
    )
    results = [_ref("PendingResult"), _ref("FinalResult"), _ref("FailedResult")]
    named["BatchAnswer"] = _strict(
        results={"type": "array", "items": {"oneOf": results}, "description": "One per command, in their order."}
    )
    return named


def _strict(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _by_type(role: str) -> dict[str, Any]:
    mapping = {tag: _ref(f"{kind}{role}")["$ref"] for tag, kind in zip(TYPES, _KINDS, strict=True)}
    return {
        "oneOf": [{"$ref": reference} for reference in mapping.values()],
        "discriminator": {"propertyName": "type", "mapping": mapping},
    }


def _sharpen(properties: dict[str, Any], *, signed: bool) -> None:
    if "amount" in properties:
        digits, number = properties["amount"]["anyOf"][:2]
        digits |= {"pattern": _SIGNED if signed else _AMOUNT, "maxLength": 20 if signed else 19, "examples": ["30"]}
        if signed:
            number["not"] = {"const": 0}
    properties["metadata"]["description"] = (
        f"Yours; comes back with the command and its entries. At most {METADATA_MAX_BYTES} bytes of JSON and "
        f"{METADATA_DEPTH_MAX} levels; no NUL in any string."
    )
    for name, description in _TIMES.items():
        if name in properties:
            schema = properties[name]
            schema.get("anyOf", [schema])[0]["format"] = "date-time"
            schema["description"] = description


_TIMES = {
    "expires_at": "Not applied by then: rejected `expired`.",
    "hold_expires_at": f"When what is left of the hold becomes available again; at most {HOLD_MAX.days} days ahead.",
    "credits_expire_at": "When what is left of these credits goes to `@expired`.",
}


# --- examples ------------------------------------------------------------------------------------------------------

# In this order each of them is applied, where the asset gold_coins is there. A test posts them.
_EXAMPLES: dict[str, dict[str, Any]] = {
    "top_up": {"type": "top_up", "wallet": "player-42", "asset": "gold_coins", "amount": "100"},
    "bonus": {"type": "bonus", "wallet": "player-42", "asset": "gold_coins", "amount": 50, "reference": "season-3"},
    "spend": {
        "type": "spend",
        "wallet": "player-42",
        "asset": "gold_coins",
        "amount": "30",
        "reference": "order-99",
        "metadata": {"item": "sword"},
        "expires_at": "2099-11-21T12:00:05Z",
    },
    "transfer": {
        "type": "transfer",
        "wallet": "player-42",
        "to_wallet": "player-7",
        "asset": "gold_coins",
        "amount": "5",
    },
    "hold": {
        "type": "hold",
        "wallet": "player-42",
        "asset": "gold_coins",
        "amount": "10",
        "hold_expires_at": "2026-11-21T12:15:00Z",
    },
    "exchange": {
        "type": "exchange",
        "wallet": "player-42",
        "asset": "gold_coins",
        "amount": "10",
        "to_asset": "diamonds",
        "rate": "0.25",
    },
    "adjust": {
        "type": "adjust",
        "wallet": "player-42",
        "asset": "gold_coins",
        "amount": "-1",
        "reason": "credited twice before the move",
    },
}
_ID = "01a1fc89-fb3f-8c0d-8000-00000000000b"
# These name a command, which a reader must put in.
_REFERRING: dict[str, dict[str, Any]] = {
    "capture": {"type": "capture", "hold": _ID, "amount": "7", "reference": "order-99"},
    "release": {"type": "release", "hold": _ID},
    "reverse": {"type": "reverse", "command": _ID, "amount": "5"},
}


def _examples() -> dict[str, Any]:
    return {name: {"summary": body["type"], "value": body} for name, body in (_EXAMPLES | _REFERRING).items()}


def _batch_example() -> dict[str, Any]:
    keyed = [{"idempotency_key": f"match-7-{name}", **_EXAMPLES[name]} for name in ("top_up", "bonus", "spend")]
    bought = [
        {"type": "spend", "wallet": "player-42", "asset": "gold_coins", "amount": "30"},
        {"type": "spend", "wallet": "player-42", "asset": "diamonds", "amount": "2"},
        {"type": "bonus", "wallet": "player-42", "asset": "points", "amount": "50"},
    ]
    sword = [{"idempotency_key": f"sword-1-{part}", **leg} for part, leg in enumerate(bought, 1)]
    return {
        "results_in_order": {"summary": "One of each", "value": {"commands": keyed}},
        "all_or_nothing": {"summary": "All or nothing", "value": {"commands": sword, "atomic": True}},
    }


# --- operations ----------------------------------------------------------------------------------------------------


def _header(description: str, *, required: bool = True, **schema: Any) -> dict[str, Any]:
    return {"description": description, "required": required, "schema": {"type": "string", **schema}}


_RETRY_AFTER = _header("Seconds to wait before asking again.", pattern="^[0-9]+$")
_HEADERS = {
    "Location": _header("Where the command is.", pattern="^/v1/commands/"),
    "Content-Location": _header("The same: the body is what a GET there gives.", pattern="^/v1/commands/"),
    "Idempotency-Key": _header("The key, bare."),
    "Idempotent-Replayed": _header(
        "There where the key had come before with this request.", required=False, const="true"
    ),
    "Preference-Applied": _header(
        "The wait that was granted, as in `wait=5`.", required=False, pattern="^wait=[0-9]+$"
    ),
}
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "description": f"`wait=N`: up to N seconds (more than {WAIT_MAX_S} are {WAIT_MAX_S}) the answer is held until the "
    "outcome is there (RFC 7240). Anything else is passed over.",
    "schema": {"type": "string"},
}
_WAIT = {
    "name": "wait",
    "in": "query",
    "description": f"Hold the answer until the outcome is there, or so many seconds are over; more than {WAIT_MAX_S} "
    f"are {WAIT_MAX_S}.",
    "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999},
}
_LINKS = {
    "command": {
        "operationId": "get_command",
        "parameters": {"id": "$response.body#/id"},
        "description": "The id of the answer names the command.",
    }
}


def _json(schema: str, **more: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": _ref(schema), **more}}}


def _answer(description: str, schema: str, headers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"description": description, "headers": headers, **_json(schema), **more}


def _problems(*codes: str) -> dict[str, Any]:
    answers = {str(status): answer for status, answer in problems(*codes).items()}
    for status in answers.keys() & {"429", "503"}:
        answers[status]["headers"] = {"Retry-After": _RETRY_AFTER}
    return answers


def _operation(name: str, description: str, scope: Scope, **rest: Any) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": name.replace("_", " ").capitalize(),
        "description": f"{description}\n\nScope: `{scope}`.",
        "tags": ["commands"],
        "security": [{"api_key": []}],
        **rest,
    }


_POST_PROBLEMS = (
    "malformed_json",
    "duplicate_member",
    "unauthorized",
    "insufficient_scope",
    "body_too_large",
    "unsupported_media_type",
    "validation_failed",
    "backlogged",
    "database_unavailable",
    "overloaded",
)

_POST_COMMAND = _operation(
    "post_command",
    "Ask for one movement of credits. 202 means committed: it will get exactly one outcome, which no retry, crash or "
    "race doubles. What the books refuse is an outcome too (`rejected`), never an HTTP error. The same key with the "
    "same request, in whatever spelling, finds the same command again; with another request it is refused, and "
    "nothing is stored. Keys never expire.",
    Scope.COMMANDS_WRITE,
    parameters=[
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": True,
            "description": 'Of your own choosing: 1 to 255 visible ASCII characters. `k-1` and `"k-1"` are one key.',
            "schema": {"type": "string", "pattern": KEY_PATTERN},
        },
        _PREFER,
    ],
    requestBody={"required": True, **_json("CommandRequest", examples=_examples())},
    responses={
        "202": _answer(
            "Committed; the outcome is to come.",
            "PendingCommand",
            {"Retry-After": _RETRY_AFTER, **_HEADERS},
            links=_LINKS,
        ),
        "200": _answer(
            "With its outcome: a replay, or in time for `Prefer: wait`.", "FinalCommand", _HEADERS, links=_LINKS
        ),
        **_problems(*_POST_PROBLEMS, "idempotency_key_missing", "idempotency_key_invalid", "idempotency_key_reused"),
    },
)
_POST_BATCH = _operation(
    "post_batch",
    f"Up to {BATCH_MAX:,} commands in one commit, a key each. Each has a result of its own, in order: 202 or 200 with "
    "the command, or the status and the problem of an item that could not be taken; one bad item stops no other. With "
    "`atomic` they are one transaction: all are applied or none is, and one bad item refuses the batch. If one is "
    "refused by the books, it has its own code and all others have `group_refused`.",
    Scope.COMMANDS_WRITE,
    parameters=[_PREFER],
    requestBody={"required": True, **_json("BatchRequest", examples=_batch_example())},
    responses={
        "200": _answer("A result for each.", "BatchAnswer", {"Preference-Applied": _HEADERS["Preference-Applied"]}),
        **_problems(*_POST_PROBLEMS, "idempotency_key_reused"),
    },
)

_STANDS = _answer(
    "Where it stands.",
    "Command",
    {"Retry-After": {**_RETRY_AFTER, "required": False, "description": "Seconds. There while it is pending."}},
)
_GET_PROBLEMS = ("unauthorized", "insufficient_scope", "command_not_found", "validation_failed", "database_unavailable")

_GET_COMMAND = _operation(
    "get_command",
    "Where a command of this tenant stands.",
    Scope.COMMANDS_READ,
    parameters=[{"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}, _WAIT],
    responses={"200": _STANDS, **_problems(*_GET_PROBLEMS)},
)
_FIND_COMMAND = _operation(
    "find_command",
    "The command that this client sent under an idempotency key: for whoever lost the answer to a post.",
    Scope.COMMANDS_READ,
    parameters=[
        {
            "name": "idempotency_key",
            "in": "query",
            "required": True,
            "description": "The key, as it was sent.",
            "schema": {"type": "string", "pattern": KEY_PATTERN},
        },
        _WAIT,
    ],
    responses={"200": _STANDS, **_problems(*_GET_PROBLEMS, "idempotency_key_invalid")},
)

FRAGMENT: dict[str, Any] = {
    "paths": {
        "/v1/commands": {"post": _POST_COMMAND, "get": _FIND_COMMAND},
        "/v1/commands/batch": {"post": _POST_BATCH},
        "/v1/commands/{id}": {"get": _GET_COMMAND},
    },
    "components": {"schemas": _schemas()},
}
