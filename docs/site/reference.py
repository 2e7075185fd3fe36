"""The pages of the API reference, from the OpenAPI document that the app itself serves.

They are made while the site is built and stand in no repository, so they cannot be out of date. docs/api.md is the page
before them, for people.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from api.app import create_app
from api.problems import KINDS

FOLDER = "api/"
# The order in which a reader meets them. A group that is not named here comes after them.
GROUPS = ("commands", "outcomes", "wallets", "transfers", "assets", "webhooks", "receipts", "operation")
SCHEMAS = "schemas"
PROBLEMS = "problems"

Json = Mapping[str, Any]


@cache
def pages() -> dict[str, str]:
    """Place in the site → Markdown, in the order of the navigation."""
    document: Json = create_app().openapi()
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    tags = {operation["tags"][0] for _, _, operation in operations}
    order = [*(tag for tag in GROUPS if tag in tags), *sorted(tags.difference(GROUPS))]
    found = {
        f"{FOLDER}{tag}.md": _group(tag, [each for each in operations if each[2]["tags"][0] == tag]) for tag in order
    }
    schemas: Json = document["components"]["schemas"]
    return found | {f"{FOLDER}{SCHEMAS}.md": _schemas(schemas), f"{FOLDER}{PROBLEMS}.md": _problems()}


def _group(tag: str, operations: list[tuple[str, str, Json]]) -> str:
    rows = [
        f"| [`{method} {path}`](#{_anchor(method, path)}) | {operation['summary']} |"
        for method, path, operation in operations
    ]
    table = "\n".join(["| request | |", "|---|---|", *rows])
    return "\n\n".join([f"# {tag.capitalize()}", table, *(_operation(*each) for each in operations)]) + "\n"


def _anchor(method: str, path: str) -> str:
    """As the site makes one of the heading."""
    return "".join(char for char in f"{method} {path}".lower() if char.isalnum() or char in "_- ").replace(" ", "-")


def _operation(method: str, path: str, operation: Json) -> str:
    parts = [f"## {method} {path}", operation.get("description", operation["summary"]).strip()]
    if parameters := operation.get("parameters"):
        rows = [
            [f"`{each['name']}`", each["in"], _kind(each["schema"]), _needed(each.get("required")), _said(each)]
            for each in parameters
        ]
        parts.append(_table(["parameter", "in", "is", "", "what"], rows))
    if body := operation.get("requestBody"):
        for content in body["content"].values():
            parts.append(f"**Body**: {_kind(content['schema'])}")
            parts += _examples(content)
    rows = [
        [f"`{status}`", _bodies(response), _headers(response), response.get("description", "")]
        for status, response in sorted(operation["responses"].items())
    ]
    parts.append(_table(["answer", "body", "headers", "when"], rows))
    return "\n\n".join(parts)


def _examples(content: Json) -> Iterator[str]:
    for example in content.get("examples", {}).values():
        text = json.dumps(example["value"], ensure_ascii=False)
        yield f"{example.get('summary', '').capitalize()}:\n\n```json\n{text}\n```"


def _bodies(response: Json) -> str:
    kinds = [_kind(content.get("schema", {})) for content in response.get("content", {}).values()]
    return ", ".join(dict.fromkeys(kinds))


def _headers(response: Json) -> str:
    return ", ".join(f"`{name}`" for name in response.get("headers", {}))


def _schemas(schemas: Json) -> str:
    return "\n\n".join(["# Schemas", *(_schema(name, schemas[name]) for name in sorted(schemas))]) + "\n"


def _schema(name: str, schema: Json) -> str:
    parts = [f"## {name}"]
    if said := schema.get("description"):
        parts.append(said.strip())
    if members := schema.get("properties"):
        required = schema.get("required", ())
        rows = [
            [f"`{member}`", _kind(inner), _needed(member in required), _said(inner)]
            for member, inner in members.items()
        ]
        parts.append(_table(["member", "is", "", "what"], rows))
    else:
        parts.append(_kind(schema))
    return "\n\n".join(parts)


def _problems() -> str:
    rows = [
        [f"`{code}`", str(kind.status), kind.title, "yes" if kind.retryable else ""] for code, kind in KINDS.items()
    ]
    text = (
        "Every error is a problem (RFC 9457). Match on `code`. *Again*: the very same request, with its idempotency "
        "key, may succeed later. What the books refuse is no problem but an outcome: [the rules](../commands.md)."
    )
    return "\n\n".join(["# Problems", text, _table(["code", "status", "says", "again"], rows)]) + "\n"


def _kind(schema: Json) -> str:
    """What a value of this schema is, in a few words."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}]({SCHEMAS}.md#{name.lower()})"
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            return " or ".join(dict.fromkeys(_kind(each) for each in schema[union]))
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if kind == "object" and schema.get("additionalProperties") not in (None, True, False, {}):
        return f"object of {_kind(schema['additionalProperties'])}"
    if not isinstance(kind, str):
        return " or ".join(kind)
    return " ".join([schema.get("format", kind), *_bounds(schema)])


def _bounds(schema: Json) -> Iterator[str]:
    least, most = (
        next((schema[name] for name in names if name in schema), None)
        for names in (("minimum", "minLength", "minItems"), ("maximum", "maxLength", "maxItems"))
    )
    if "format" in schema:
        return
    if least is not None and most is not None:
        yield f"({int(least)} to {int(most)})"
    elif most is not None:
        yield f"(at most {int(most)})"
    elif least is not None:
        yield f"(at least {int(least)})"


def _said(schema: Json) -> str:
    return schema.get("description", schema.get("schema", {}).get("description", ""))


def _needed(required: bool | None) -> str:
    return "required" if required else ""


def _table(heads: list[str], rows: list[list[str]]) -> str:
    kept = [number for number in range(len(heads)) if any(row[number] for row in rows)]
    lines = [[heads[number] for number in kept], ["---"] * len(kept)]
    lines += [[" ".join(row[number].split()).replace("|", "\\|") for number in kept] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
