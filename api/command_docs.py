"""What the OpenAPI document says of commands. Their plain Starlette routes (api.routes.commands) say nothing of it.

The schemas are those of the structs that the routes decode, sharpened where JSON Schema can tell more than msgspec
checks while it decodes. Tests hold every answer, every example and the limits to this document.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from api.openapi import components, problems
from api.requests import BATCH_MAX, BatchRequest, CommandRequest
from api.routes.commands import WAIT_MAX_S
from ledger.commands import TYPES
from ledger.errors import Code
from ledger.keys import Scope
from ledger.money import AMOUNT_MAX
from ledger.names import METADATA_DEPTH_MAX, METADATA_MAX_BYTES

# --- answers -------------------------------------------------------------------------------------------------------

Amount = Annotated[str, Meta(pattern="^-?[0-9]{1,19}$", description="Minor units of the asset.")]
Id = Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
Time = Annotated[datetime, Meta(tz=True, extra_json_schema={"format": "date-time"})]
Type = Annotated[str, Meta(extra_json_schema={"enum": list(TYPES)})]
Metadata = Annotated[dict[str, Any], Meta(description="As it was sent; `{}` where none was.")]


class OutcomeAccount(Struct, forbid_unknown_fields=True):
    """A balance that the command left. System wallets are not shown."""

    wallet: str
    asset: str
    posted: Amount
    held: Amount
    available: Annotated[Amount, Meta(description="`posted` - `held`.")]
    version: Annotated[int, Meta(ge=0, description="One more with each entry. Later ones are newer.")]


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


class _Shown(Struct, kw_only=True, forbid_unknown_fields=True):
    id: Id
    object: Literal["command"]
    type: Type
    wallet: str
    to_wallet: Annotated[str, Meta(description="Of a transfer.")] | UnsetType = UNSET
    asset: str
    amount: Amount
    reference: str | None
    metadata: Metadata
    idempotency_key: str
    accepted_at: Time
    expires_at: Time | None


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

_KINDS = ("TopUp", "Bonus", "Spend", "Transfer")

# 1 to AMOUNT_MAX, a power of ten, leading zeros allowed: what the api checks in two steps (api.requests) in one.
_AMOUNT = f"^(?:0*[1-9][0-9]{{0,{len(str(AMOUNT_MAX)) - 2}}}|{AMOUNT_MAX})$"
# A bare key; or a quoted one, which may have two characters more. `""` is an empty one.
KEY_PATTERN = r'^(?!""$)[!-~]{1,255}$|^"[!-~]{254,255}"$'


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _schemas() -> dict[str, Any]:
    named = components(CommandRequest, BatchRequest, PendingCommand, FinalCommand, PendingResult, FinalResult)
    for kind in _KINDS:
        _sharpen(named[f"{kind}Request"]["properties"])
        _sharpen(named[f"{kind}Item"]["properties"])
    named["CommandRequest"] = _by_type("Request")
    named["CommandItem"] = _by_type("Item")
    batch = named["BatchRequest"]["properties"]
    batch["commands"]["items"] = _ref("CommandItem")
    batch["atomic"] |= {"const": False, "description": "All-or-nothing batches are not offered yet."}
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


def _sharpen(properties: dict[str, Any]) -> None:
    digits = properties["amount"]["anyOf"][0]
    digits |= {"pattern": _AMOUNT, "maxLength": 19, "examples": ["30"]}
    properties["metadata"]["description"] = (
        f"Yours; comes back with the command and its entries. At most {METADATA_MAX_BYTES} bytes of JSON and "
        f"{METADATA_DEPTH_MAX} levels; no NUL in any string."
    )
    properties["expires_at"]["anyOf"][0]["format"] = "date-time"
    properties["expires_at"]["description"] = "Not applied by then: rejected `expired`."


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
}


def _examples() -> dict[str, Any]:
    return {name: {"summary": body["type"], "value": body} for name, body in _EXAMPLES.items()}


def _batch_example() -> dict[str, Any]:
    keyed = [{"idempotency_key": f"match-7-{name}", **body} for name, body in _EXAMPLES.items()]
    return {"results_in_order": {"summary": "One of each", "value": {"commands": keyed}}}


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
    "the command, or the status and the problem of an item that could not be taken; one bad item stops no other.",
    Scope.COMMANDS_WRITE,
    parameters=[_PREFER],
    requestBody={"required": True, **_json("BatchRequest", examples=_batch_example())},
    responses={
        "200": _answer("A result for each.", "BatchAnswer", {"Preference-Applied": _HEADERS["Preference-Applied"]}),
        **_problems(*_POST_PROBLEMS),
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
