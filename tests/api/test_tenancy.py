"""Tenants do not see each other: every route is tried from a second tenant with the first one's ids.

A route without a case here fails the suite.
"""

from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute
from msgspec import msgpack
from starlette.routing import Route

from api.dashboard import routes as dashboard
from ledger import db
from ledger.keys import Scope, create_key
from tests.api.serving import Served, code
from tests.books import GOLD, PARTITIONS, Bank

Ids = dict[str, str]
Case = tuple[dict[str, Any], Callable[[httpx2.Response, Ids], bool]]


def hidden(answer: httpx2.Response, _: Ids) -> bool:
    return answer.status_code == 404


def empty(answer: httpx2.Response, _: Ids) -> bool:
    return answer.status_code == 200 and answer.json()["data"] == []


def only_ours(answer: httpx2.Response, ids: Ids) -> bool:
    """A list of what every tenant has one of; nothing in it is the other's."""
    return answer.status_code == 200 and not any(id in answer.text for id in ids.values())


def own_wallet(answer: httpx2.Response, _: Ids) -> bool:
    """The same name is another wallet: created, empty."""
    return answer.status_code == 201 and answer.json()["accounts"] == [] and answer.json()["name"] is None


def own_asset(answer: httpx2.Response, _: Ids) -> bool:
    return answer.status_code == 201 and answer.json()["name"] == "Mine"


def own_command(answer: httpx2.Response, ids: Ids) -> bool:
    """The first tenant's key, wallet and asset: a command of our own, not its command replayed."""
    return (
        answer.status_code == 202 and "idempotent-replayed" not in answer.headers and ids["command"] not in answer.text
    )


def own_commands(answer: httpx2.Response, ids: Ids) -> bool:
    (result,) = answer.json()["results"]
    return result["status"] == 202 and "idempotent_replayed" not in result and ids["command"] not in answer.text


def own_tombstone(answer: httpx2.Response, ids: Ids) -> bool:
    """A key of our own, under which nothing came yet."""
    return answer.status_code == 200 and answer.json()["type"] == "tombstone" and ids["command"] not in answer.text


def own_preview(answer: httpx2.Response, _: Ids) -> bool:
    return answer.status_code == 200 and answer.json()["outcome"]["code"] == "asset_not_found"


def own_previews(answer: httpx2.Response, _: Ids) -> bool:
    (preview,) = answer.json()["results"]
    return preview["outcome"]["code"] == "asset_not_found"


def own_endpoint(answer: httpx2.Response, ids: Ids) -> bool:
    return answer.status_code == 201 and answer.json()["id"] != ids["endpoint"]


FROM_THE_BEGINNING = urlsafe_b64encode(msgpack.encode([0] * (PARTITIONS + 1))).decode().rstrip("=")
SPEND = {"type": "spend", "wallet": "alice", "asset": "sapphires", "amount": "1"}
SINCE = {"since": "1970-01-01T00:00:00Z"}
CASES: dict[str, Case] = {
    "GET /v1/wallets": ({}, empty),
    "GET /v1/wallets/{id}": ({"id": "wallet"}, hidden),
    "GET /v1/wallets/{id}/entries": ({"id": "wallet"}, hidden),
    "GET /v1/wallets/{id}/statement": ({"id": "wallet", "params": {"asset": "sapphires"}}, hidden),
    "POST /v1/wallets/{id}/freeze": ({"id": "wallet"}, hidden),
    "POST /v1/wallets/{id}/unfreeze": ({"id": "wallet"}, hidden),
    "POST /v1/wallets/{id}/close": ({"id": "wallet"}, hidden),
    "GET /v1/wallets/{id}/holds": ({"id": "wallet"}, hidden),
    "GET /v1/holds/{id}": ({"id": "hold"}, hidden),
    "GET /v1/wallets/{id}/changes": ({"id": "wallet"}, hidden),
    "GET /v1/wallets/{id}/limits/{asset}": ({"id": "wallet", "asset": "asset"}, hidden),
    "PUT /v1/wallets/{id}/limits/{asset}": ({"id": "wallet", "asset": "asset", "json": {"max_amount": "0"}}, hidden),
    "DELETE /v1/wallets/{id}/limits/{asset}": ({"id": "wallet", "asset": "asset"}, hidden),
    "PUT /v1/wallets/{id}": ({"id": "wallet", "json": {}}, own_wallet),
    "GET /v1/transfers/{id}": ({"id": "transfer"}, hidden),
    "GET /v1/assets": ({}, only_ours),
    "GET /v1/supply": ({}, only_ours),
    "GET /v1/outcomes": ({"params": {"after": FROM_THE_BEGINNING}}, only_ours),
    "POST /v1/assets": ({"json": {"code": "sapphires", "name": "Mine"}}, own_asset),
    "PATCH /v1/assets/{code}": ({"code": "asset", "json": {"status": "frozen"}}, hidden),
    "GET /v1/assets/{code}/changes": ({"code": "asset"}, hidden),
    "POST /v1/assets/{code}/freeze": ({"code": "asset"}, hidden),
    "POST /v1/assets/{code}/unfreeze": ({"code": "asset"}, hidden),
    "POST /v1/commands": ({"json": SPEND, "headers": {"Idempotency-Key": "known"}}, own_command),
    "POST /v1/commands/batch": ({"json": {"commands": [{**SPEND, "idempotency_key": "known"}]}}, own_commands),
    "POST /v1/commands/cancel": ({"json": {"idempotency_key": "known"}}, own_tombstone),
    "POST /v1/commands/{id}/cancel": ({"id": "command"}, hidden),
    "POST /v1/commands/{id}/requeue": ({"id": "command"}, hidden),
    "POST /v1/commands/batch/preview": (
        {"json": {"commands": [{**SPEND, "idempotency_key": "known"}], "atomic": True}},
        own_previews,
    ),
    "POST /v1/commands/preview": ({"json": SPEND}, own_preview),
    "GET /v1/commands": ({"params": {"idempotency_key": "known"}}, hidden),
    "GET /v1/commands/{id}": ({"id": "command"}, hidden),
    "GET /v1/commands/{id}/receipt": ({"id": "command"}, hidden),
    "POST /v1/webhook_endpoints": ({"json": {"url": "https://receiver.example.com/"}}, own_endpoint),
    "GET /v1/webhook_endpoints": ({}, empty),
    "GET /v1/webhook_endpoints/{id}": ({"id": "endpoint"}, hidden),
    "PATCH /v1/webhook_endpoints/{id}": ({"id": "endpoint", "json": {"status": "disabled"}}, hidden),
    "DELETE /v1/webhook_endpoints/{id}": ({"id": "endpoint"}, hidden),
    "POST /v1/webhook_endpoints/{id}/rotate_secret": ({"id": "endpoint"}, hidden),
    "POST /v1/webhook_endpoints/{id}/test": ({"id": "endpoint"}, hidden),
    "GET /v1/webhook_endpoints/{id}/deliveries": ({"id": "endpoint"}, hidden),
    "GET /v1/webhook_endpoints/{id}/deliveries/{delivery}": ({"id": "endpoint", "delivery": "delivery"}, hidden),
    "POST /v1/webhook_endpoints/{id}/deliveries/{delivery}/resend": (
        {"id": "endpoint", "delivery": "delivery"},
        hidden,
    ),
    "POST /v1/webhook_endpoints/{id}/recover": ({"id": "endpoint", "json": SINCE}, hidden),
    "POST /v1/webhook_endpoints/{id}/replay": ({"id": "endpoint", "json": SINCE}, hidden),
    "GET /v1/webhook_endpoints/{id}/stats": ({"id": "endpoint"}, hidden),
}

PLACES = ("id", "code", "asset", "delivery")

# No tenant's data behind these. `/problems/{code}` is a table of the code's.
KEYLESS = {
    "GET /livez",
    "GET /readyz",
    "GET /metrics",
    "GET /docs",
    "GET /openapi.json",
    "GET /problems/{code}",
    "GET /.well-known/jwks.json",
}


def routes(api: Served) -> set[str]:
    """The dashboard has its own (tests/api/test_dashboard_pages.py)."""
    found: set[str] = set()
    for route in api.app.routes:
        if isinstance(route, APIRoute | Route) and route not in dashboard.routes:
            found |= {f"{method} {route.path}" for method in (route.methods or set()) - {"HEAD"}}
    return found


def test_every_route_has_its_case(api: Served) -> None:
    assert routes(api) == CASES.keys() | KEYLESS


@pytest.fixture
def ids(client: httpx2.Client, bank: Bank) -> Ids:
    """What the first tenant has, by every kind of name."""
    endpoint = client.post("/v1/webhook_endpoints", json={"url": "https://s3cret.example.com/"}).json()["id"]
    bank.open_asset("sapphires")
    bank.top_up("alice", 100, asset="sapphires")
    client.put("/v1/wallets/alice", json={"name": "Alice", "metadata": {"secret": "s3cret"}})
    posted = client.post("/v1/commands", json=SPEND, headers={"Idempotency-Key": "known"})
    assert posted.status_code == 202
    bank.drain()
    (newest, _) = client.get("/v1/wallets/alice/entries").json()["data"]
    bank.hold("alice", 1, asset="sapphires")
    (hold,) = client.get("/v1/wallets/alice/holds").json()["data"]
    return {
        "wallet": "alice",
        "asset": "sapphires",
        "transfer": newest["transfer"],
        "command": posted.json()["id"],
        "hold": hold["id"],
        "endpoint": endpoint,
        "delivery": client.get(f"/v1/webhook_endpoints/{endpoint}/deliveries").json()["data"][0]["id"],
    }


@pytest.mark.parametrize("case", CASES)
def test_a_stranger_finds_nothing(
    client: httpx2.Client, stranger: httpx2.Client, bank: Bank, ids: Ids, case: str
) -> None:
    method, template = case.split(" ")
    request, as_it_should = CASES[case]
    request = dict(request)
    path = template.format(**{name: ids[request.pop(name)] for name in PLACES if name in request})
    ours = (f"/v1/wallets/{ids['wallet']}", "/v1/assets", "/v1/supply", "/v1/webhook_endpoints")
    before = [client.get(known).json() for known in ours]
    answer = stranger.request(method, path, **request)
    assert as_it_should(answer, ids), answer.text
    assert "s3cret" not in answer.text
    bank.drain()
    assert [client.get(known).json() for known in ours] == before


def test_the_same_names_are_there_for_their_owner(client: httpx2.Client, ids: Ids) -> None:
    """The 404s above are the tenant's doing, not a wrong path's."""
    for path in ("/v1/wallets/alice", "/v1/wallets/alice/entries", f"/v1/transfers/{ids['transfer']}",
                 f"/v1/commands/{ids['command']}", "/v1/commands?idempotency_key=known",
                 f"/v1/webhook_endpoints/{ids['endpoint']}/deliveries/{ids['delivery']}"):  # fmt: skip
        assert client.get(path).status_code == 200, path
    assert client.post("/v1/assets/sapphires/freeze").status_code == 200


def test_a_strangers_cursor_shows_only_its_own(
    client: httpx2.Client, stranger: httpx2.Client, bank: Bank, ids: Ids
) -> None:
    for _ in range(2):
        bank.top_up("alice", 1)
    cursor = client.get("/v1/wallets/alice/entries?limit=1").json()["next_cursor"]
    stranger.put("/v1/wallets/alice", json={})
    answer = stranger.get("/v1/wallets/alice/entries", params={"cursor": cursor})
    assert answer.json() == {"data": [], "next_cursor": ""}


def test_another_clients_key_of_the_same_tenant_is_another_key(
    api: Served, client: httpx2.Client, bank: Bank, ids: Ids
) -> None:
    """Idempotency keys are the client's own; what they made is the tenant's."""
    engine = db.engine(bank.url, application="test-keys")
    tenant = bank.one("SELECT code FROM tenants WHERE id = %s", bank.tenant)
    key = create_key(engine, env="test", client="another game", scopes=[Scope.ADMIN], tenant=tenant)
    engine.dispose()
    with api.client(key) as other:
        assert code(other.get("/v1/commands?idempotency_key=known")) == "404 command_not_found"
        assert other.get(f"/v1/commands/{ids['command']}").status_code == 200
        assert other.get("/v1/wallets/alice").json()["accounts"][0]["asset"] != GOLD
