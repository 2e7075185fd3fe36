"""What the api counts. Each test looks at how much a figure grew: the api is the module's."""

import time
from collections.abc import Callable
from uuid import uuid4

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bursar.local.valkey import Valkey
from tests.api.serving import Served, served
from tests.books import Bank

Figures = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Meter:
    """How much figures grew since it was made."""

    def __init__(self, api: Served) -> None:
        self._api = api
        self.before = self.read()

    def read(self) -> Figures:
        with self._api.client() as client:
            families = text_string_to_metric_families(client.get("/metrics").text)
            return {
                (sample.name, tuple(sorted(sample.labels.items()))): sample.value
                for family in families
                for sample in family.samples
            }

    def grown(self, name: str, **labels: str) -> float:
        key = name, tuple(sorted(labels.items()))
        return self.read().get(key, 0.0) - self.before.get(key, 0.0)

    def now(self, name: str, **labels: str) -> float:
        return self.read()[name, tuple(sorted(labels.items()))]


@pytest.fixture
def meter(api: Served) -> Meter:
    return Meter(api)


def spend(wallet: str = "alice") -> dict[str, str]:
    return {"type": "spend", "wallet": wallet, "asset": "gold", "amount": "1"}


def post(client: httpx2.Client, key: str | None = None, path: str = "/v1/commands") -> httpx2.Response:
    return client.post(path, json=spend(), headers={"Idempotency-Key": key or str(uuid4())})


def test_requests_are_counted_by_route_and_status(client: httpx2.Client, api: Served, meter: Meter) -> None:
    command = post(client).json()
    post(client, key="k" * 300)
    for id_ in (command["id"], "nonsense"):
        client.get(f"/v1/commands/{id_}")
    client.get("/v1/wallets/nobody")
    client.delete("/v1/assets")
    client.get("/v2/nothing")
    with api.client("wrong") as stranger:
        stranger.get("/v1/assets")
    expected = {
        ("POST", "/v1/commands", "202"): 1,
        ("POST", "/v1/commands", "400"): 1,
        ("GET", "/v1/commands/{id}", "200"): 1,
        ("GET", "/v1/commands/{id}", "404"): 1,
        ("GET", "/v1/wallets/{id}", "404"): 1,
        ("DELETE", "/v1/assets", "405"): 1,
        ("GET", "unmatched", "404"): 1,
        ("GET", "/v1/assets", "401"): 1,
    }
    found = {
        (method, route, status): meter.grown("bursar_http_requests_total", method=method, route=route, status=status)
        for method, route, status in expected
    }
    assert found == expected
    assert meter.grown("bursar_http_request_seconds_count", method="POST", route="/v1/commands") == 2


def test_what_callers_choose_becomes_no_label(client: httpx2.Client, meter: Meter) -> None:
    client.get("/v1/wallets/a-wallet-of-mine")
    client.get("/a-path-of-mine")
    client.request("PROPFIND", "/v1/assets")
    post(client, "a-key-of-mine")
    values = {value for _, labels in meter.read() for _, value in labels}
    assert not [value for value in values if "mine" in value or value == "PROPFIND"]


def test_posts_and_replays(client: httpx2.Client, meter: Meter) -> None:
    key = str(uuid4())
    for _ in range(3):
        post(client, key)
    client.post("/v1/commands", json=spend("bob"), headers={"Idempotency-Key": key})
    counts = {
        result: meter.grown("bursar_commands_total", result=result) for result in ("accepted", "replayed", "mismatched")
    }
    assert counts == {"accepted": 1, "replayed": 2, "mismatched": 1}


def test_cancels_by_what_became_of_them(client: httpx2.Client, bank: Bank, meter: Meter) -> None:
    pending = post(client).json()["id"]
    for _ in range(2):
        assert client.post(f"/v1/commands/{pending}/cancel").status_code == 200
    unseen = client.post("/v1/commands/cancel", json={"idempotency_key": str(uuid4())})
    assert unseen.status_code == 200
    refused = post(client).json()["id"]
    bank.drain()
    assert client.post(f"/v1/commands/{refused}/cancel").status_code == 409
    found = {
        result: meter.grown("bursar_cancels_total", result=result) for result in ("cancelled", "repeated", "too_late")
    }
    assert found == {"cancelled": 2, "repeated": 1, "too_late": 1}
    cancelled = {"status": "cancelled", "code": "cancelled"}
    assert meter.grown("bursar_outcomes_total", type="spend", **cancelled) == 1
    assert meter.grown("bursar_outcomes_total", type="tombstone", **cancelled) == 1


def test_the_backlog_by_partition(client: httpx2.Client, bank: Bank, meter: Meter) -> None:
    partition = bank.one("SELECT partition FROM commands WHERE seq = %s", bank.order("spend", "alice", 1))
    bank.do("SELECT pg_sleep(0.05)")
    waiting = meter.now("bursar_partition_pending_commands", partition=str(partition))
    assert waiting >= 1
    assert meter.now("bursar_partition_oldest_pending_seconds", partition=str(partition)) >= 0.05
    assert meter.now("bursar_pending_commands") >= waiting
    assert len([name for name, _ in meter.read() if name == "bursar_partition_pending_commands"]) == 8


def test_endpoints_and_what_is_due_to_them(client: httpx2.Client, bank: Bank, meter: Meter) -> None:
    urls = [f"https://{name}.example.com/" for name in ("well", "ill", "off")]
    ids = [client.post("/v1/webhook_endpoints", json={"url": url}).json()["id"] for url in urls]
    assert all(ids)
    bank.top_up("alice", 1)
    bank.do(
        "UPDATE webhook_endpoints SET failing_since = now() - interval '1 hour' WHERE tenant_id = %s AND url LIKE %s",
        bank.tenant,
        "%ill%",
    )
    bank.do(
        "UPDATE webhook_endpoints SET status = 'disabled' WHERE tenant_id = %s AND url LIKE %s", bank.tenant, "%off%"
    )
    grown = {
        state: meter.grown("bursar_webhook_endpoints", state=state) for state in ("enabled", "failing", "disabled")
    }
    assert grown == {"enabled": 2, "failing": 1, "disabled": 1}
    assert meter.grown("bursar_webhook_deliveries", state="due") == 2
    assert meter.now("bursar_webhook_oldest_due_seconds") > 0


def test_redis_and_postgresql_are_asked_at_each_scrape(database_url: str, own_valkey: Valkey) -> None:
    with served(database_url, own_valkey.url) as api:
        meter = Meter(api)
        assert (meter.now("bursar_redis_up"), meter.now("bursar_database_up")) == (1, 1)
        own_valkey.kill()
        assert (meter.now("bursar_redis_up"), meter.now("bursar_database_up")) == (0, 1)
        own_valkey.start()
        assert meter.now("bursar_redis_up") == 1


def test_a_lost_ring_is_counted(database_url: str, own_valkey: Valkey) -> None:
    with served(database_url, own_valkey.url) as api:
        meter = Meter(api)
        api.app.state.doorbell.ring(0)
        eventually(lambda: meter.grown("bursar_doorbell_rings_total", result="sent") == 1)
        own_valkey.kill()
        api.app.state.doorbell.ring(1)
        eventually(lambda: meter.grown("bursar_doorbell_rings_total", result="lost") >= 1)


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)
