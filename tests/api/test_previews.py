"""Previews and projections over HTTP, in what a client sees. What they say is held to the drain's own outcomes by
tests/properties/test_previews.py."""

from typing import Any

import httpx2
import pytest

from ledger import previews
from ledger.keys import Scope
from tests.api.conftest import NewKey
from tests.api.serving import Served, code
from tests.books import GOLD, Bank

SPEND = {"type": "spend", "wallet": "alice", "asset": GOLD, "amount": "30"}
UNPLACED = ("at", "transfers", "task")


def post(client: httpx2.Client, body: dict[str, Any], key: str, **headers: str) -> httpx2.Response:
    return client.post("/v1/commands", json=body, headers={"Idempotency-Key": key, **headers})


def preview(client: httpx2.Client, body: dict[str, Any]) -> dict[str, Any]:
    before = client.get("/v1/wallets/alice").json()
    answer = client.post("/v1/commands/preview", json=body)
    assert answer.status_code == 200, answer.text
    assert client.get("/v1/wallets/alice").json() == before
    assert answer.json()["object"] == "preview"
    return answer.json()


@pytest.fixture(autouse=True)
def funded(bank: Bank) -> None:
    bank.top_up("alice", 100)


# --- previews --------------------------------------------------------------------------------------------------------


def test_a_preview_says_what_the_command_then_comes_to(client: httpx2.Client, bank: Bank) -> None:
    hold = {"type": "hold", "wallet": "alice", "asset": GOLD, "amount": "40", "hold_expires_at": "2026-12-01T00:00:00Z"}
    placed = post(client, hold, "hold").json()["id"]
    foreseen = preview(client, hold)
    assert foreseen["outcome"]["hold"] == {"id": None, "status": "open", "remaining": "40", "captured": "0"}
    bank.drain()
    orders: list[dict[str, Any]] = [
        SPEND,
        {**SPEND, "amount": "1000"},
        {"type": "bonus", "wallet": "alice", "asset": GOLD, "amount": "5"},
        {"type": "capture", "hold": placed, "amount": "15"},
        {"type": "release", "hold": placed},
        {"type": "adjust", "wallet": "alice", "asset": GOLD, "amount": "-1", "reason": "a mistake"},
    ]
    for n, order in enumerate(orders):
        foreseen = preview(client, order)
        posted = post(client, order, f"k-{n}").json()
        bank.drain()
        came = client.get(f"/v1/commands/{posted['id']}").json()
        assert foreseen["status"] == came["status"]
        assert foreseen["outcome"] == {name: part for name, part in came["outcome"].items() if name not in UNPLACED}


def test_what_is_queued_does_not_count(client: httpx2.Client) -> None:
    post(client, {**SPEND, "amount": "90"}, "k")
    assert preview(client, SPEND)["outcome"]["accounts"][0]["available"] == "70"


def test_a_preview_is_for_those_who_may_post(api: Served, client: httpx2.Client, new_key: NewKey) -> None:
    adjust = {"type": "adjust", "wallet": "alice", "asset": GOLD, "amount": "1", "reason": "none"}
    with api.client(new_key(Scope.COMMANDS_READ)) as reader:
        assert code(reader.post("/v1/commands/preview", json=SPEND)) == "403 insufficient_scope"
    with api.client(new_key(Scope.COMMANDS_WRITE)) as writer:
        assert writer.post("/v1/commands/preview", json=SPEND).status_code == 200
        assert code(writer.post("/v1/commands/preview", json=adjust)) == "403 insufficient_scope"


def test_a_preview_sees_its_own_tenant_only(stranger: httpx2.Client, client: httpx2.Client, bank: Bank) -> None:
    posted = post(client, SPEND, "k").json()["id"]
    bank.drain()
    reverse = {"type": "reverse", "command": posted}
    assert preview(client, reverse)["status"] == "applied"
    assert code(stranger.post("/v1/commands/preview", json=reverse)) == "422 validation_failed"
    assert stranger.post("/v1/commands/preview", json=SPEND).json()["outcome"]["code"] == "wallet_not_found"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{}", "422 validation_failed"),
        (b'{"type":"spend","wallet":"alice","asset":"gold","amount":"0"}', "422 validation_failed"),
        (b'{"type":"spend","wallet":"alice","asset":"gold","amount":1.5}', "422 validation_failed"),
        (b'{"type":"close","wallet":"alice","asset":"gold","amount":"1"}', "422 validation_failed"),
        (b'{"type":"release","hold":"x"}', "422 validation_failed"),
        (b'{"type":"spend","wallet":"a","asset":"gold","amount":"1","amount":"1"}', "400 duplicate_member"),
        (b'{"type":"spend","wallet":"a\\u0000","asset":"gold","amount":"1"}', "422 validation_failed"),
        (b"[]", "422 validation_failed"),
        (b"", "400 malformed_json"),
    ],
)
def test_a_bad_body_is_refused(client: httpx2.Client, body: bytes, says: str) -> None:
    headers = {"Content-Type": "application/json"}
    assert code(client.post("/v1/commands/preview", content=body, headers=headers)) == says


# --- batches ---------------------------------------------------------------------------------------------------------


def test_an_atomic_batch_is_previewed_as_the_one_transaction_that_it_is(client: httpx2.Client, bank: Bank) -> None:
    for amounts in (["60", "40"], ["60", "41"]):
        items = [{**SPEND, "amount": amount, "idempotency_key": f"k-{amount}-{amounts[1]}"} for amount in amounts]
        batch = {"commands": items, "atomic": True}
        answer = client.post("/v1/commands/batch/preview", json=batch)
        assert answer.status_code == 200
        posted = client.post("/v1/commands/batch", json=batch).json()["results"]
        bank.drain()
        for foreseen, result in zip(answer.json()["results"], posted, strict=True):
            came = client.get(f"/v1/commands/{result['command']['id']}").json()
            outcome = {name: part for name, part in came["outcome"].items() if name not in UNPLACED}
            assert foreseen == {"object": "preview", "status": came["status"], "outcome": outcome}
        bank.top_up("alice", 100)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"atomic": False}, "422 /atomic"),
        ({"commands": [{**SPEND, "idempotency_key": "k"}] * 2}, "422 /commands/1/idempotency_key"),
        ({"commands": [{**SPEND, "idempotency_key": "k", "amount": "0"}]}, "422 /commands/0/amount"),
        ({"commands": []}, "422 /commands"),
    ],
)
def test_a_bad_batch_is_refused(client: httpx2.Client, change: dict[str, Any], says: str) -> None:
    batch = {"commands": [{**SPEND, "idempotency_key": "k"}], "atomic": True, **change}
    answer = client.post("/v1/commands/batch/preview", json=batch)
    assert f"{answer.status_code} {answer.json()['errors'][0]['pointer']}" == says


# --- projections -----------------------------------------------------------------------------------------------------


def test_projections_add_up_and_come_true(client: httpx2.Client, bank: Bank) -> None:
    answers = [post(client, SPEND, f"k-{n}", Prefer="projection") for n in range(4)]
    assert {answer.status_code for answer in answers} == {202}
    assert {answer.headers["preference-applied"] for answer in answers} == {"projection"}
    assert [answer.json()["projection"] for answer in answers] == [
        {"queued_ahead": 0, "available": "70", "status": "applied", "code": "applied"},
        {"queued_ahead": 1, "available": "40", "status": "applied", "code": "applied"},
        {"queued_ahead": 2, "available": "10", "status": "applied", "code": "applied"},
        {"queued_ahead": 3, "available": "10", "status": "rejected", "code": "insufficient_funds"},
    ]
    bank.drain()
    for answer in answers:
        came = client.get(f"/v1/commands/{answer.json()['id']}").json()
        assert (came["status"], came["outcome"]["code"]) == (
            answer.json()["projection"]["status"],
            answer.json()["projection"]["code"],
        )


def test_nobody_is_told_who_did_not_ask(client: httpx2.Client) -> None:
    answer = post(client, SPEND, "k")
    assert "projection" not in answer.json()
    assert "preference-applied" not in answer.headers
    assert "projection" not in client.get(f"/v1/commands/{answer.json()['id']}").json()


def test_a_replay_of_a_pending_command_is_projected(client: httpx2.Client) -> None:
    post(client, SPEND, "k")
    again = post(client, SPEND, "k", Prefer="projection")
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json()["projection"]["queued_ahead"] == 0


def test_an_outcome_is_better_than_a_projection(client: httpx2.Client, bank: Bank) -> None:
    post(client, SPEND, "k")
    bank.drain()
    again = post(client, SPEND, "k", Prefer="wait=5, projection")
    assert (again.status_code, again.json()["status"]) == (200, "applied")
    assert "projection" not in again.json()
    assert again.headers["preference-applied"] == "wait=5"


def test_a_wait_in_vain_ends_with_a_projection(client: httpx2.Client) -> None:
    answer = post(client, SPEND, "k", Prefer="projection, wait=1")
    assert answer.status_code == 202
    assert answer.json()["projection"]["available"] == "70"
    assert answer.headers["preference-applied"] == "wait=1, projection"


def test_what_cannot_be_told_in_time_is_left_out(client: httpx2.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is accepted; nothing that goes wrong after that may say otherwise."""
    monkeypatch.setattr(previews, "_QUEUE", "SELECT pg_sleep(60)::text, %s, %s, %s")
    monkeypatch.setattr(previews, "_SNAPSHOT", "SET LOCAL statement_timeout = 50")
    answer = post(client, SPEND, "k", Prefer="projection")
    assert answer.status_code == 202
    assert "projection" not in answer.json()
    assert "preference-applied" not in answer.headers


def test_the_outcome_that_came_first_is_told_instead(
    client: httpx2.Client, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = previews.project

    def too_late(*args: Any, **more: Any) -> Any:
        bank.drain()
        return whole(*args, **more)

    monkeypatch.setattr(previews, "project", too_late)
    answer = post(client, SPEND, "k", Prefer="projection")
    assert (answer.status_code, answer.json()["status"]) == (200, "applied")
    assert "preference-applied" not in answer.headers
