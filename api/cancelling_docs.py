"""What the OpenAPI document says of cancelling."""

from typing import Any

from api.command_docs import answer_of, json_of, operation, problems_of
from api.command_schemas import ref
from api.openapi import components
from api.routes.cancelling import CancelRequest
from ledger.keys import Scope

_NOW_OR_BEFORE = "Cancelled, by this request or by one before."
_DECIDED = {
    "409": {
        "description": "`already_decided`: the command has another outcome, which it carries",
        "content": {"application/problem+json": {"schema": ref("AlreadyDecided")}},
    }
}
_PROBLEMS = ("unauthorized", "insufficient_scope", "database_unavailable", "overloaded")

_CANCEL_COMMAND = operation(
    "cancel_command",
    "Cancel a pending command: it never applies. One that a worker has under way is waited for. If it is one of an "
    "atomic batch, all of them are cancelled. A client's own commands only; with `admin`, any of the tenant's.",
    Scope.COMMANDS_WRITE,
    parameters=[{"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}],
    responses={
        "200": answer_of(_NOW_OR_BEFORE, "FinalCommand", {}),
        **_DECIDED,
        **problems_of(*_PROBLEMS, "command_not_found"),
    },
)
_CANCEL_KEY = operation(
    "cancel_key",
    "Cancel what this client sent under an idempotency key. If nothing came under it yet, nothing ever will: the key "
    "is taken by a *tombstone*, and a request that arrives late under it is answered with that, `cancelled`.",
    Scope.COMMANDS_WRITE,
    requestBody={"required": True, **json_of("CancelRequest")},
    responses={
        "200": answer_of(_NOW_OR_BEFORE, "FinalCommand", {}),
        **_DECIDED,
        **problems_of(
            *_PROBLEMS,
            "malformed_json",
            "duplicate_member",
            "idempotency_key_invalid",
            "body_too_large",
            "unsupported_media_type",
            "validation_failed",
        ),
    },
)


def _schemas() -> dict[str, Any]:
    named = components(CancelRequest)
    named["AlreadyDecided"] = {
        "description": "A problem that carries the command.",
        "allOf": [ref("Problem"), {"required": ["command"], "properties": {"command": ref("FinalCommand")}}],
    }
    return named


FRAGMENT: dict[str, Any] = {
    "paths": {
        "/v1/commands/cancel": {"post": _CANCEL_KEY},
        "/v1/commands/{id}/cancel": {"post": _CANCEL_COMMAND},
    },
    "components": {"schemas": _schemas()},
}
