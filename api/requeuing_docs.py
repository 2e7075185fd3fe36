"""What the OpenAPI document says of requeuing."""

from typing import Any

from api.command_docs import answer_of, header, operation, problems_of
from api.command_schemas import ref
from api.openapi import request_body
from api.routes.changes import Reason
from ledger.keys import Scope

_HEADERS = {
    "Location": header("Where the new command is.", pattern="^/v1/commands/"),
    "Idempotent-Replayed": header("There where it had been requeued before.", required=False, const="true"),
}
_REQUEUE = operation(
    "requeue_command",
    "Have the request of a failed command accepted again, once the defect that it met is mended: as a new command, "
    "which names it in `requeue_of`. Nothing of what was asked changes, `expires_at` and preconditions included. A "
    "failed command is requeued once, however often this is asked; if it is one of an atomic batch, the whole batch "
    "is. The client that sent it is told of the new outcome. Ask it first: it may have sent a command of its own "
    "instead. Who did it, and the reason, stand in the wallet's changes.",
    Scope.ADMIN,
    parameters=[{"name": "id", "in": "path", "required": True, "schema": {"type": "string", "format": "uuid"}}],
    responses={
        "202": answer_of("Committed; the outcome is to come.", "PendingCommand", _HEADERS),
        "200": answer_of("It was requeued before, and has its outcome.", "FinalCommand", _HEADERS),
        "409": {
            "description": "`command_not_failed`: the command is pending or has another outcome; it comes along",
            "content": {"application/problem+json": {"schema": ref("NotFailed")}},
        },
        **problems_of(
            "malformed_json",
            "duplicate_member",
            "unauthorized",
            "insufficient_scope",
            "command_not_found",
            "body_too_large",
            "unsupported_media_type",
            "validation_failed",
            "database_unavailable",
            "overloaded",
        ),
    },
    **request_body(Reason, required=False),
)

FRAGMENT: dict[str, Any] = {
    "paths": {"/v1/commands/{id}/requeue": {"post": _REQUEUE}},
    "components": {
        "schemas": {
            "NotFailed": {
                "description": "A problem that carries the command.",
                "allOf": [ref("Problem"), {"required": ["command"], "properties": {"command": ref("Command")}}],
            }
        }
    },
}
