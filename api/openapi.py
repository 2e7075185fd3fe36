"""The OpenAPI document: what FastAPI knows of its routes, and what the plain Starlette routes say of themselves."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api import schemas
from api.problems import KINDS, MEDIA_TYPE
from ledger.keys import SCOPES

_COMPONENT = "#/components/schemas/{name}"
_PROBLEM = {MEDIA_TYPE: {"schema": {"$ref": _COMPONENT.format(name="Problem")}}}

DESCRIPTION = f"""
A wallet service for virtual credits. Commands are accepted durably (202) and get exactly one outcome each.

Amounts are strings of decimal digits in the asset's minor units. Every error is a problem (RFC 9457) with a `code` to
match on. `/livez`, `/readyz`, `/metrics`, `/docs`, `/openapi.json` and `/.well-known/jwks.json` need no key.

| scope | opens |
|---|---|
{chr(10).join(f"| `{scope}` | {opens} |" for scope, opens in SCOPES.items())}
"""


def problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a FastAPI route that may answer with these problems."""
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(KINDS[code].status, []).append(code)
    return {
        status: {"description": ", ".join(f"`{code}`" for code in found), "content": _PROBLEM}
        for status, found in by_status.items()
    }


def request_body(kind: type[msgspec.Struct], *, required: bool = True) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads this struct. Name the struct to `document`, too."""
    schema = {"$ref": _COMPONENT.format(name=kind.__name__)}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def components(*kinds: Any) -> dict[str, Any]:
    """JSON Schemas of msgspec types, by name."""
    return msgspec.json.schema_components(kinds, ref_template=_COMPONENT)[1]


def document(app: FastAPI, *, bodies: Sequence[Any], fragments: Sequence[Mapping[str, Any]]) -> None:
    """Let the app serve the whole document.

    `bodies`: msgspec structs that routes read. `fragments`: OpenAPI documents of plain routes, `paths` and `components`
    of which are merged in; a path that stands in several gets the operations of all.
    """

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app, bodies, fragments)
        return app.openapi_schema

    app.openapi = build


def _build(app: FastAPI, bodies: Sequence[Any], fragments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    whole = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
    parts = whole.setdefault("components", {})
    named = parts.setdefault("schemas", {})
    named |= components(*bodies)
    named["Problem"] = schemas.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    named |= named["Problem"].pop("$defs")
    for fragment in fragments:
        for path, operations in fragment.get("paths", {}).items():
            whole["paths"].setdefault(path, {}).update(operations)
        for section, entries in fragment.get("components", {}).items():
            parts.setdefault(section, {}).update(entries)
    for operations in whole["paths"].values():
        for operation in operations.values():
            _answer_with_problems(operation)
    for unused in ("HTTPValidationError", "ValidationError"):
        named.pop(unused, None)
    return cast(dict[str, Any], _plain(whole))


def _answer_with_problems(operation: dict[str, Any]) -> None:
    """FastAPI documents an error body of its own, which nobody here gets to see."""
    responses = operation.setdefault("responses", {})
    if "HTTPValidationError" in str(responses.get("422")):
        responses["422"] = {"description": "`validation_failed`", "content": _PROBLEM}
    responses.setdefault("default", {"description": "Any other problem", "content": _PROBLEM})


def _plain(value: Any) -> Any:
    """Without the look-ahead of our patterns (ledger.names): JSON Schema's `$` means the end and nothing else."""
    match value:
        case dict():
            return {key: _plain(inner) for key, inner in cast(dict[str, Any], value).items()}
        case list():
            return [_plain(inner) for inner in cast(list[Any], value)]
        case str():
            return value.replace(r"$(?!\n)", "$")
        case _:
            return value
