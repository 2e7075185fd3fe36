"""Requeuing over HTTP: for operators, once, with a name and a reason."""

import httpx2
import pytest

from ledger.ids import command_id
from ledger.keys import Scope
from tests.api.conftest import NewKey
from tests.api.serving import Served, code
from tests.books import GOLD, Bank
from tests.ledger.test_requeuing import fail

SPEND = {"type": "spend", "wallet": "alice", "asset": GOLD, "amount": "30"}


@pytest.fixture
def failed(client: httpx2.Client, bank: Bank) -> str:
    """The id of a spend that failed."""
    bank.top_up("alice", 100)
    posted = client.post("/v1/commands", json=SPEND, headers={"Idempotency-Key": "k"}).json()
    fail(bank)
    return posted["id"]


def requeue(client: httpx2.Client, id: str, **body: str) -> httpx2.Response:
    return client.post(f"/v1/commands/{id}/requeue", json=body)


def test_a_failed_command_is_requeued_as_a_new_one(client: httpx2.Client, bank: Bank, failed: str) -> None:
    answer = requeue(client, failed, reason="mended")
    shown = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/commands/{shown['id']}"
    assert (shown["status"], shown["requeue_of"], shown["amount"]) == ("pending", failed, "30")
    assert shown["id"] != failed
    again = requeue(client, failed)
    assert (again.status_code, again.json()) == (202, shown)
    assert again.headers["idempotent-replayed"] == "true"
    bank.drain()
    done = requeue(client, failed)
    assert (done.status_code, done.json()["status"], done.json()["id"]) == (200, "applied", shown["id"])
    assert client.get(f"/v1/commands/{failed}").json()["status"] == "failed"
    assert bank.available("alice") == 70
    bank.assert_settled()


def test_who_and_why_stands_among_the_changes(client: httpx2.Client, failed: str) -> None:
    again = requeue(client, failed, reason="mended").json()
    (change,) = client.get("/v1/wallets/alice/changes").json()["data"]
    assert (change["member"], change["before"], change["after"]) == ("requeue", failed, None)
    assert (change["reason"], change["client"], change["command"]) == ("mended", "a game", again["id"])
    assert change["key_id"] is not None


def test_without_a_body_it_is_requeued_without_a_reason(client: httpx2.Client, failed: str) -> None:
    assert client.post(f"/v1/commands/{failed}/requeue").status_code == 202


def test_its_partition_hears_the_doorbell_once(
    api: Served, client: httpx2.Client, bank: Bank, failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung: list[int] = []
    monkeypatch.setattr(api.app.state.doorbell, "ring", rung.append)
    for _ in range(2):
        requeue(client, failed)
    assert rung == [bank.partition("alice")]


def test_what_has_not_failed_is_answered_as_it_stands(client: httpx2.Client, bank: Bank) -> None:
    posted = client.post("/v1/commands", json=SPEND, headers={"Idempotency-Key": "k"}).json()
    pending = requeue(client, posted["id"])
    assert code(pending) == "409 command_not_failed"
    assert pending.json()["command"] == posted
    bank.drain()
    rejected = requeue(client, posted["id"])
    assert (code(rejected), rejected.json()["command"]["status"]) == ("409 command_not_failed", "rejected")
    nobody = command_id(2**40, bank.in_seconds(0))
    assert [code(requeue(client, id)) for id in (nobody, "x")] == ["404 command_not_found"] * 2


def test_only_an_operator_requeues(api: Served, new_key: NewKey, bank: Bank, failed: str) -> None:
    with api.client(new_key(*(scope for scope in Scope if scope != Scope.ADMIN))) as client:
        assert code(requeue(client, failed)) == "403 insufficient_scope"
    assert bank.pending() == []


def test_a_stranger_finds_nothing(stranger: httpx2.Client, bank: Bank, failed: str) -> None:
    assert code(requeue(stranger, failed)) == "404 command_not_found"
    assert bank.pending() == []
