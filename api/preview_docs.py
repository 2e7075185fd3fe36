"""What the OpenAPI document says of previews."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from api.command_docs import answer_of, json_of, operation, problems_of
from api.command_schemas import Amount, Id, MovedAmount, OutcomeAccount, OutcomeLot, ref
from api.openapi import components
from ledger.errors import Code
from ledger.keys import Scope


class PreviewHold(Struct, forbid_unknown_fields=True):
    id: Annotated[Id | None, Meta(description="The command that placed it. Null: this one would.")]
    status: Literal["open", "captured", "released", "expired"]
    remaining: Amount
    captured: Amount


class PreviewOutcome(Struct, forbid_unknown_fields=True):
    """An outcome that is none: without time, transfers and task."""

    code: Code
    accounts: Annotated[
        list[OutcomeAccount], Meta(description="Applied: the balances it would leave. Rejected: as it is.")
    ]
    detail: str | UnsetType = UNSET
    moved: list[MovedAmount] | UnsetType = UNSET
    hold: PreviewHold | UnsetType = UNSET
    lots: Annotated[list[OutcomeLot], Meta(description="A lot that it would make has no id yet.")] | UnsetType = UNSET


class Preview(Struct, forbid_unknown_fields=True):
    """What a command would come to now."""

    object: Literal["preview"]
    status: Literal["applied", "rejected"]
    outcome: PreviewOutcome


class PreviewAnswer(Struct, forbid_unknown_fields=True):
    results: Annotated[list[Preview], Meta(description="One per command, in their order.")]


_PROBLEMS = problems_of(
    "malformed_json",
    "duplicate_member",
    "unauthorized",
    "insufficient_scope",
    "body_too_large",
    "unsupported_media_type",
    "validation_failed",
    "database_unavailable",
    "overloaded",
)

_PREVIEW_COMMAND = operation(
    "preview_command",
    "What would come of this command if it were decided now: by the very rules that will decide it, on the books as "
    "they stand, not counting what is queued. Stores nothing, changes nothing and binds nobody.",
    Scope.COMMANDS_WRITE,
    requestBody={"required": True, **json_of("CommandRequest")},
    responses={"200": answer_of("What it would come to.", "Preview", {}), **_PROBLEMS},
)
_PREVIEW_BATCH = operation(
    "preview_batch",
    "The same of a batch with `atomic`: what would come of each of its commands, each on what those before it left.",
    Scope.COMMANDS_WRITE,
    requestBody={"required": True, **json_of("AtomicBatchRequest")},
    responses={"200": answer_of("What they would come to.", "PreviewAnswer", {}), **_PROBLEMS},
)

_ATOMIC = {"allOf": [ref("BatchRequest"), {"required": ["atomic"], "properties": {"atomic": {"const": True}}}]}

FRAGMENT: dict[str, Any] = {
    "paths": {
        "/v1/commands/preview": {"post": _PREVIEW_COMMAND},
        "/v1/commands/batch/preview": {"post": _PREVIEW_BATCH},
    },
    "components": {"schemas": {**components(PreviewAnswer), "AtomicBatchRequest": _ATOMIC}},
}
