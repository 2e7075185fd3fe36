"""What the OpenAPI document says of commands. Their plain Starlette routes (api.routes.commands) say nothing of it."""

from datetime import UTC, datetime
from typing import Any

from api.canonical import HOLD_MAX
from api.command_schemas import KEY_PATTERN, ref, schemas
from api.openapi import problems
from api.requests import BATCH_MAX
from api.routes.commands import WAIT_MAX_S
from ledger.keys import Scope

# --- examples ------------------------------------------------------------------------------------------------------

_ID = "01a1fc89-fb3f-8c0d-8000-00000000000b"
_HOLD_ENDS = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + HOLD_MAX / 2
_OF_A_PLAYER = {"wallet": "player-42", "asset": "gold_coins"}

# In this order each of them is applied, where the assets are there, and each id is that of the example it speaks of.
# A test posts them.
_EXAMPLES: dict[str, dict[str, Any]] = {
    "top_up": {"type": "top_up", **_OF_A_PLAYER, "amount": "100"},
    "bonus": {"type": "bonus", **_OF_A_PLAYER, "amount": 50, "reference": "season-3"},
    "bonus_that_expires": {
        "type": "bonus",
        **_OF_A_PLAYER,
        "amount": "20",
        "credits_expire_at": "2099-12-31T00:00:00Z",
        "priority": 10,
    },
    "spend": {
        "type": "spend",
        **_OF_A_PLAYER,
        "amount": "30",
        "reference": "order-99",
        "metadata": {"item": "sword"},
        "expires_at": "2099-11-21T12:00:05Z",
    },
    "spend_on_a_condition": {
        "type": "spend",
        **_OF_A_PLAYER,
        "amount": "5",
        "credits_order": "purchased_first",
        "precondition": {"available_gte": "100"},
    },
    "transfer": {"type": "transfer", **_OF_A_PLAYER, "to_wallet": "player-7", "amount": "5"},
    "hold": {"type": "hold", **_OF_A_PLAYER, "amount": "40", "hold_expires_at": _HOLD_ENDS.isoformat()},
    "capture": {"type": "capture", "hold": _ID, "amount": "15", "final": False},
    "release": {"type": "release", "hold": _ID},
    "exchange": {"type": "exchange", **_OF_A_PLAYER, "amount": "50", "to_asset": "diamonds", "rate": "0.1"},
    "reverse": {"type": "reverse", "command": _ID, "amount": "10"},
    "adjust": {"type": "adjust", **_OF_A_PLAYER, "amount": "-3", "reason": "Doubled by the outage of 3 May"},
}


def _examples() -> dict[str, Any]:
    return {name: {"summary": name.replace("_", " "), "value": body} for name, body in _EXAMPLES.items()}


def _batch_examples() -> dict[str, Any]:
    several = [
        {"idempotency_key": f"match-7-{name}", **_EXAMPLES[name]} for name in ("top_up", "bonus", "spend", "transfer")
    ]
    sword = {
        "gold": {"type": "spend", "wallet": "player-42", "asset": "gold_coins", "amount": "30"},
        "diamonds": {"type": "spend", "wallet": "player-42", "asset": "diamonds", "amount": "2"},
        "points": {"type": "bonus", "wallet": "player-42", "asset": "points", "amount": "50"},
    }
    legs = [{"idempotency_key": f"sword-7-{name}", **body} for name, body in sword.items()]
    return {
        "results_in_order": {"summary": "One of each", "value": {"commands": several}},
        "all_or_none": {"summary": "A price of several legs", "value": {"commands": legs, "atomic": True}},
    }


# --- operations ----------------------------------------------------------------------------------------------------


def header(description: str, *, required: bool = True, **schema: Any) -> dict[str, Any]:
    return {"description": description, "required": required, "schema": {"type": "string", **schema}}


RETRY_AFTER = header("Seconds to wait before asking again.", pattern="^[0-9]+$")
_HEADERS = {
    "Location": header("Where the command is.", pattern="^/v1/commands/"),
    "Content-Location": header("The same: the body is what a GET there gives.", pattern="^/v1/commands/"),
    "Idempotency-Key": header("The key, bare."),
    "Idempotent-Replayed": header(
        "There where the key had come before with this request.", required=False, const="true"
    ),
    "Preference-Applied": header(
        "What was granted, as in `wait=5, projection`.",
        required=False,
        pattern="^(?:wait=[0-9]+(?:, projection)?|projection)$",
    ),
}
_PREFER = {
    "name": "Prefer",
    "in": "header",
    "description": f"`wait=N`: up to N seconds (more than {WAIT_MAX_S} are {WAIT_MAX_S}) the answer is held until the "
    "outcome is there (RFC 7240). `projection`: what is still pending then tells what will most likely come of it; of "
    "a single post only. Anything else is passed over.",
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
    },
    "cancel": {
        "operationId": "cancel_command",
        "parameters": {"id": "$response.body#/id"},
        "description": "While it is pending, it can be cancelled.",
    },
}


def json_of(schema: str, **more: Any) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": ref(schema), **more}}}


def answer_of(description: str, schema: str, headers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"description": description, "headers": headers, **json_of(schema), **more}


def problems_of(*codes: str) -> dict[str, Any]:
    answers = {str(status): answer for status, answer in problems(*codes).items()}
    for status in answers.keys() & {"429", "503"}:
        answers[status]["headers"] = {"Retry-After": RETRY_AFTER}
    return answers


def operation(name: str, description: str, scope: Scope, **rest: Any) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": name.replace("_", " ").capitalize(),
        "description": f"{description}\n\nScope: `{scope}`.",
        "tags": ["commands"],
        "security": [{"api_key": []}],
        **rest,
    }


POST_PROBLEMS = (
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

_POST_COMMAND = operation(
    "post_command",
    "Ask for one movement of credits. 202 means committed: it will get exactly one outcome, which no retry, crash or "
    "race doubles. What the books refuse is an outcome too (`rejected`), never an HTTP error. The same key with the "
    "same request, in whatever spelling, finds the same command again; with another request it is refused, and "
    "nothing is stored. Keys never expire.\n\n"
    "A capture, a release and a reverse name another command of this tenant by its id; an id that names none that fits "
    f"is a 422. Scope `{Scope.ADMIN}` for an adjustment, its reversal, and a reversal that leaves a debt.",
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
    requestBody={"required": True, **json_of("CommandRequest", examples=_examples())},
    responses={
        "202": answer_of(
            "Committed; the outcome is to come.",
            "PendingCommand",
            {"Retry-After": RETRY_AFTER, **_HEADERS},
            links=_LINKS,
        ),
        "200": answer_of(
            "With its outcome: a replay, or in time for `Prefer: wait`.", "FinalCommand", _HEADERS, links=_LINKS
        ),
        **problems_of(*POST_PROBLEMS, "idempotency_key_missing", "idempotency_key_invalid", "idempotency_key_reused"),
    },
)
_POST_BATCH = operation(
    "post_batch",
    f"Up to {BATCH_MAX:,} commands in one commit, a key each. Each has a result of its own, in order: 202 or 200 with "
    "the command, or the status and the problem of an item that could not be taken; one bad item stops no other.\n\n"
    'With `"atomic": true` the commands are of one wallet and stand or fall together, in one transaction: all are '
    "applied, or none is; then the one that was refused has its own code, and the others have `group_refused`. A bad "
    "item is a 422 for the whole, with pointers below `/commands`, and nothing is stored.",
    Scope.COMMANDS_WRITE,
    parameters=[_PREFER],
    requestBody={"required": True, **json_of("BatchRequest", examples=_batch_examples())},
    responses={
        "200": answer_of("A result for each.", "BatchAnswer", {"Preference-Applied": _HEADERS["Preference-Applied"]}),
        **problems_of(*POST_PROBLEMS, "idempotency_key_reused", "key_cancelled"),
    },
)

_STANDS = answer_of(
    "Where it stands.",
    "Command",
    {"Retry-After": {**RETRY_AFTER, "required": False, "description": "Seconds. There while it is pending."}},
)
GET_PROBLEMS = ("unauthorized", "insufficient_scope", "command_not_found", "validation_failed", "database_unavailable")

_GET_COMMAND = operation(
    "get_command",
    "Where a command of this tenant stands.",
    Scope.COMMANDS_READ,
    parameters=[{"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}, _WAIT],
    responses={"200": _STANDS, **problems_of(*GET_PROBLEMS)},
)
_FIND_COMMAND = operation(
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
    responses={"200": _STANDS, **problems_of(*GET_PROBLEMS, "idempotency_key_invalid")},
)

FRAGMENT: dict[str, Any] = {
    "paths": {
        "/v1/commands": {"post": _POST_COMMAND, "get": _FIND_COMMAND},
        "/v1/commands/batch": {"post": _POST_BATCH},
        "/v1/commands/{id}": {"get": _GET_COMMAND},
    },
    "components": {"schemas": schemas()},
}
