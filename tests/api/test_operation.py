"""For operators: health, figures, the reference. None of it needs a key."""

import inspect
import json
import re
from pathlib import Path

import httpx2
import jsonschema_rs
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import Route

from api import docs
from ledger import reads
from tests.api.conftest import NewKey
from tests.api.serving import Served, code
from tests.books import Bank
from tests.servers import ROOT


@pytest.fixture
def anyone(api: Served) -> httpx2.Client:
    return api.client()


def test_alive_and_ready(anyone: httpx2.Client) -> None:
    assert anyone.get("/livez").json() == {"status": "alive"}
    assert anyone.get("/readyz").json() == {"status": "ready", "schema_revision": reads.SCHEMA, "oldest_pending_s": 0.0}


def test_ready_tells_how_long_the_oldest_command_waits(anyone: httpx2.Client, bank: Bank) -> None:
    bank.order("spend", "alice", 1)
    bank.do("SELECT pg_sleep(0.05)")
    bank.order("spend", "alice", 1)
    assert 0.05 <= anyone.get("/readyz").json()["oldest_pending_s"] < 60


def test_the_code_needs_the_newest_migration() -> None:
    """`reads.SCHEMA` moves with the migrations, or an api that is ahead of its database calls itself ready."""
    assert max(path.name[:4] for path in Path(ROOT, "migrations/versions").glob("0*.py")) == reads.SCHEMA


def test_not_ready_on_an_older_schema_and_ready_on_a_newer_one(anyone: httpx2.Client, bank: Bank) -> None:
    for revision, expected in (("0006", 503), ("0099", 200), (reads.SCHEMA, 200)):
        bank.do("UPDATE alembic_version SET version_num = %s", revision)
        answer = anyone.get("/readyz")
        assert answer.status_code == expected
        if expected == 503:
            assert code(answer) == "503 not_ready"


def figures(client: httpx2.Client) -> dict[str, float]:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = (line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def test_figures(anyone: httpx2.Client, bank: Bank) -> None:
    before = figures(anyone)
    assert (before["bursar_pending_commands"], before["bursar_oldest_pending_seconds"]) == (0, 0)
    assert before["bursar_database_up"] == 1
    assert before["bursar_waiting_commands"] == 0
    assert before["process_resident_memory_bytes"] > 0
    for name in (
        'bursar_commands_total{result="replayed"}',
        "bursar_accept_seconds_count",
        "bursar_intake_group_commands_sum",
    ):
        assert name in before
    for _ in range(3):
        bank.order("spend", "alice", 1)
    bank.do("SELECT pg_sleep(0.05)")
    after = figures(anyone)
    assert after["bursar_pending_commands"] == 3
    assert after["bursar_oldest_pending_seconds"] >= 0.05


# --- the reference -------------------------------------------------------------------------------------------------


def test_the_document_is_openapi_and_all_its_references_lead_somewhere(api: Served) -> None:
    schemas = api.document["components"]["schemas"]
    named = re.findall(r"#/components/schemas/(\w+)", str(api.document))
    assert set(named) <= set(schemas)
    for schema in schemas.values():
        jsonschema_rs.validator_for({**schema, "components": api.document["components"]})
    assert api.document["openapi"].startswith("3.1")
    assert "HTTPValidationError" not in str(api.document)
    assert r"$(?!\\n)" not in json.dumps(api.document)


def test_every_route_stands_in_the_document(api: Served) -> None:
    for route in api.app.routes:
        if isinstance(route, APIRoute | Route) and route.path.startswith("/v1/"):
            for method in (route.methods or set()) - {"HEAD"}:
                assert method.lower() in api.document["paths"].get(route.path, {}), f"{method} {route.path}"


def test_every_operation_that_needs_a_key_says_so(api: Served) -> None:
    for path, operations in api.document["paths"].items():
        for operation in operations.values():
            assert bool(operation.get("security")) == path.startswith("/v1/"), path
            assert "application/problem+json" in operation["responses"]["default"]["content"]


def test_the_docs_page_loads_nothing_from_elsewhere(anyone: httpx2.Client) -> None:
    page = anyone.get("/docs")
    assert page.headers["content-security-policy"] == docs.CONTENT_SECURITY_POLICY
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert loaded
    assert all(path.startswith(("/", "data:")) and not path.startswith("//") for path in loaded)
    assert "<script>" not in page.text
    assert "style=" not in page.text
    for path in loaded:
        if path.startswith("/"):
            assert anyone.get(path).status_code == 200, path


def test_the_static_folder_has_no_way_out(anyone: httpx2.Client) -> None:
    for path in ("/docs/static/../app.py", "/docs/static/%2e%2e/app.py", "/docs/static/..%2fapp.py", "/docs/static/"):
        assert code(anyone.get(path)) == "404 not_found"


def test_no_key_opens_what_needs_none(api: Served, new_key: NewKey) -> None:
    for client in (api.client(), api.client("nonsense"), api.client(new_key())):
        for path in ("/livez", "/readyz", "/metrics", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200
        client.close()


def test_no_request_is_handed_to_a_thread(api: Served) -> None:
    """FastAPI runs what is not `async` in a thread: half a millisecond of waiting on a busy machine, for a look at a
    query string."""
    found: list[object] = []

    def look(dependant: Dependant) -> None:
        call = dependant.call
        if not inspect.iscoroutinefunction(call) and not inspect.iscoroutinefunction(type(call).__call__):
            found.append(call)
        for inner in dependant.dependencies:
            look(inner)

    for route in api.app.routes:
        if isinstance(route, APIRoute):
            look(route.dependant)
    assert found == []
