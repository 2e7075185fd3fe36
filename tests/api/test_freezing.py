"""A status changes sharply: after the drains under way, against every later one, and all doorbells ring for it."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
import redis

from bursar.local.valkey import Valkey
from runtime.doorbell import flag_key
from tests.books import ALL, GOLD, Bank

WAITS_WITHIN_S = 5.0
RINGS_WITHIN_S = 1.9  # a flag's time to live is 2 s

CHANGES = [
    ("/v1/wallets/alice/freeze", None, "wallet_frozen"),
    (f"/v1/assets/{GOLD}/freeze", None, "asset_frozen"),
    (f"/v1/assets/{GOLD}", {"status": "frozen"}, "asset_frozen"),
]


def change(client: httpx2.Client, path: str, body: object) -> httpx2.Response:
    return client.post(path) if body is None else client.patch(path, json=body)


def eventually_waits(bank: Bank) -> bool:
    """Somebody waits for a lock that another session of this database holds."""
    waits = """
        SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0
    """
    deadline = time.monotonic() + WAITS_WITHIN_S
    while time.monotonic() < deadline:
        if bank.one(waits):
            return True
        time.sleep(0.005)
    return False


@pytest.mark.parametrize(("path", "body", "refusal"), CHANGES)
def test_the_answer_waits_for_the_drain_under_way(
    client: httpx2.Client, bank: Bank, path: str, body: object, refusal: str
) -> None:
    bank.top_up("alice", 100)
    seq = bank.order("spend", "alice", 1)
    with bank.another_drain() as drain, ThreadPoolExecutor(1) as thread:
        drain.claim()
        changing = thread.submit(change, client, path, body)
        assert eventually_waits(bank)
        assert not changing.done()
        drain.apply_and_commit()
        assert changing.result().json()["status"] == "frozen"
    assert bank.outcome(seq).code == "applied"
    assert bank.spend("alice", 1).code == refusal


@pytest.mark.parametrize(
    ("path", "body"),
    [
        *((path, body) for path, body, _ in CHANGES),
        (f"/v1/assets/{GOLD}", {"limits": {"max_amount": "5"}}),
        ("/v1/wallets/empty/close", None),
    ],
)
def test_every_doorbell_rings_after_it(
    client: httpx2.Client, bank: Bank, valkey: Valkey, path: str, body: object
) -> None:
    bank.top_up("alice", 100)
    bank.open_wallet("empty")
    with redis.Redis.from_url(valkey.url) as flags:
        flags.delete(*map(flag_key, ALL))
        assert change(client, path, body).is_success
        deadline = time.monotonic() + RINGS_WITHIN_S
        while flags.exists(*map(flag_key, ALL)) != len(ALL):
            assert time.monotonic() < deadline, "not every doorbell has rung"
            time.sleep(0.01)


def test_a_change_to_what_it_is_already_stops_no_drain(client: httpx2.Client, bank: Bank) -> None:
    """Nor does one of a wallet that is not there: nobody can hold up the drains by asking for nothing."""
    bank.top_up("alice", 100)
    bank.order("spend", "alice", 1)
    with bank.another_drain() as drain:
        drain.claim()
        assert client.post("/v1/wallets/alice/unfreeze").json()["status"] == "active"
        assert client.post("/v1/wallets/nobody/freeze").status_code == 404
        assert client.post(f"/v1/assets/{GOLD}/unfreeze").json()["status"] == "active"
        assert client.post("/v1/assets/nothing/freeze").status_code == 404
