"""Cancelling over HTTP: whose commands, what is answered, and who hears of it."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
import redis

from api import sessions
from bursar.local.valkey import Valkey
from ledger import db
from ledger.commands import LEDGER_CLIENT
from ledger.ids import command_id
from ledger.inbox import Accepted
from ledger.keys import Scope, create_key
from runtime.announce import CHANNEL, unpack
from tests.api.conftest import NewKey
from tests.api.serving import Served, code
from tests.books import GOLD, Bank
from tests.ledger.races import wait_for_a_waiter

SPEND = {"type": "spend", "wallet": "alice", "asset": GOLD, "amount": "30"}


def post(client: httpx2.Client, key: str, **headers: str) -> httpx2.Response:
    return client.post("/v1/commands", json=SPEND, headers={"Idempotency-Key": key, **headers})


def cancel(client: httpx2.Client, id: str) -> httpx2.Response:
    return client.post(f"/v1/commands/{id}/cancel")


def cancel_key(client: httpx2.Client, key: str) -> httpx2.Response:
    return client.post("/v1/commands/cancel", json={"idempotency_key": key})


def id_of(accepted: Accepted) -> str:
    return command_id(accepted.seq, accepted.accepted_at)


@pytest.fixture(autouse=True)
def funded(bank: Bank) -> None:
    bank.top_up("alice", 100)


# --- what is answered ------------------------------------------------------------------------------------------------


def test_a_pending_command_is_cancelled_for_ever(client: httpx2.Client, bank: Bank) -> None:
    posted = post(client, "k").json()
    cancelled = cancel(client, posted["id"])
    assert cancelled.status_code == 200
    assert (cancelled.json()["id"], cancelled.json()["status"]) == (posted["id"], "cancelled")
    outcome = cancelled.json()["outcome"]
    assert (outcome["code"], outcome["transfers"], outcome["accounts"]) == ("cancelled", [], [])
    assert bank.drain() == []
    for answer in (cancel(client, posted["id"]), cancel_key(client, "k"), client.get(f"/v1/commands/{posted['id']}")):
        assert (answer.status_code, answer.json()) == (200, cancelled.json())
    replayed = post(client, "k")
    assert (replayed.status_code, replayed.json()) == (200, cancelled.json())
    assert replayed.headers["idempotent-replayed"] == "true"
    bank.assert_settled()


@pytest.mark.parametrize("status", ["applied", "rejected"])
def test_what_has_another_outcome_is_answered_with_it(client: httpx2.Client, bank: Bank, status: str) -> None:
    if status == "rejected":
        bank.spend("alice", 80)
    posted = post(client, "k").json()
    bank.drain()
    decided = client.get(f"/v1/commands/{posted['id']}").json()
    assert decided["status"] == status
    for answer in (cancel(client, posted["id"]), cancel_key(client, "k")):
        assert code(answer) == "409 already_decided"
        assert answer.json()["command"] == decided
        assert not answer.json()["retryable"]


def test_a_key_never_seen_is_cancelled_before_it_comes(client: httpx2.Client, bank: Bank) -> None:
    buried = cancel_key(client, "late")
    assert buried.status_code == 200
    shown = buried.json()
    assert (shown["type"], shown["status"], shown["idempotency_key"]) == ("tombstone", "cancelled", "late")
    assert (shown["wallet"], shown["asset"], shown["amount"]) == (None, None, None)
    for answer in (
        post(client, "late"),
        post(client, "late", Prefer="wait=5"),
        post(client, "late", Prefer="projection"),
    ):
        assert (answer.status_code, answer.json()) == (200, shown)
        assert answer.headers["idempotent-replayed"] == "true"
    batch = {"commands": [{**SPEND, "idempotency_key": "late"}, {**SPEND, "idempotency_key": "other"}]}
    late, other = client.post("/v1/commands/batch", json=batch).json()["results"]
    assert late == {"status": 200, "command": shown, "idempotent_replayed": True}
    assert other["status"] == 202
    assert client.get("/v1/commands?idempotency_key=late").json() == shown
    bank.drain()
    assert bank.available("alice") == 70
    bank.assert_settled()


def test_one_of_an_atomic_batch_is_all_of_it(client: httpx2.Client, bank: Bank) -> None:
    batch = {"atomic": True, "commands": [{**SPEND, "idempotency_key": key} for key in ("a", "b", "c")]}
    results = client.post("/v1/commands/batch", json=batch).json()["results"]
    assert cancel_key(client, "b").json()["status"] == "cancelled"
    assert bank.drain() == []
    for result in results:
        assert client.get(f"/v1/commands/{result['command']['id']}").json()["status"] == "cancelled"
    again = client.post("/v1/commands/batch", json=batch).json()["results"]
    assert [result["command"]["status"] for result in again] == ["cancelled"] * 3
    bank.assert_settled()


def test_an_atomic_batch_that_comes_late_never_applies_and_names_the_key(client: httpx2.Client, bank: Bank) -> None:
    tombstone = cancel_key(client, "b").json()["id"]
    batch = {"atomic": True, "commands": [{**SPEND, "idempotency_key": key} for key in ("a", "b", "c")]}
    for _ in range(2):
        answer = client.post("/v1/commands/batch", json=batch)
        assert code(answer) == "409 key_cancelled"
        assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/commands/1/idempotency_key"]
        assert answer.headers["location"] == f"/v1/commands/{tombstone}"
    assert bank.pending() == []
    assert code(client.get("/v1/commands?idempotency_key=a")) == "404 command_not_found"
    cancel_key(client, "a")
    cancel_key(client, "c")
    results = client.post("/v1/commands/batch", json=batch).json()["results"]
    assert [result["command"]["status"] for result in results] == ["cancelled"] * 3
    bank.assert_settled()


# --- whose -----------------------------------------------------------------------------------------------------------


def key_of_another_client(bank: Bank, *scopes: Scope) -> str:
    engine = db.engine(bank.url, application="test-keys")
    tenant = bank.one("SELECT code FROM tenants WHERE id = %s", bank.tenant)
    try:
        return create_key(engine, env="test", client="another game", scopes=scopes, tenant=tenant)
    finally:
        engine.dispose()


def test_a_command_of_another_client_is_an_admins_to_cancel(api: Served, client: httpx2.Client, bank: Bank) -> None:
    posted = post(client, "k").json()
    with api.client(key_of_another_client(bank, Scope.COMMANDS_WRITE)) as other:
        assert code(cancel(other, posted["id"])) == "403 insufficient_scope"
    assert len(bank.pending()) == 1
    with api.client(key_of_another_client(bank, Scope.ADMIN)) as admin:
        assert cancel_key(admin, "k").json()["type"] == "tombstone", "keys are each client's own"
        assert cancel(admin, posted["id"]).json()["status"] == "cancelled"
    assert bank.pending() == []


def test_without_the_scope_nothing_is_cancelled(api: Served, client: httpx2.Client, new_key: NewKey) -> None:
    posted = post(client, "k").json()
    with api.client(new_key(Scope.COMMANDS_READ)) as reader:
        assert code(cancel(reader, posted["id"])) == "403 insufficient_scope"
        assert code(cancel_key(reader, "k")) == "403 insufficient_scope"
    assert client.get(f"/v1/commands/{posted['id']}").json()["status"] == "pending"


def test_the_ledgers_own_commands_are_nobodys_to_cancel(client: httpx2.Client, bank: Bank) -> None:
    (accepted,) = bank.accept([bank.new("expire_hold", "alice", 0, ref_seq=1, client_id=LEDGER_CLIENT)])
    assert code(cancel(client, id_of(accepted))) == "404 command_not_found"
    assert bank.pending() == [accepted.seq]


@pytest.mark.parametrize("id", ["x", "01a1fc89-fb3f-8c0d-8000-00000000000b", "cancel"])
def test_an_id_of_nothing_is_not_found(client: httpx2.Client, id: str) -> None:
    assert code(cancel(client, id)) == "404 command_not_found"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{}", "422 validation_failed"),
        (b'{"idempotency_key": 5}', "422 validation_failed"),
        (b'{"idempotency_key": null}', "422 validation_failed"),
        (b'{"idempotency_key": ""}', "422 validation_failed"),
        (b'{"idempotency_key": "a b"}', "422 validation_failed"),
        (b'{"idempotency_key": "k\\u0000"}', "422 validation_failed"),
        (b'{"idempotency_key": "k\\n"}', "422 validation_failed"),
        (b'{"idempotency_key": "\xc3\xa9"}', "422 validation_failed"),
        (b'{"idempotency_key": "' + b"k" * 256 + b'"}', "422 validation_failed"),
        (b'{"idempotency_key": "\\"\\""}', "400 idempotency_key_invalid"),
        (b'{"idempotency_key": "k", "id": "x"}', "422 validation_failed"),
        (b'{"idempotency_key": "k", "idempotency_key": "l"}', "400 duplicate_member"),
        (b'["k"]', "422 validation_failed"),
        (b"k", "400 malformed_json"),
        (b"", "400 malformed_json"),
    ],
)
def test_a_bad_body_stores_nothing(client: httpx2.Client, bank: Bank, body: bytes, says: str) -> None:
    before = bank.one("SELECT count(*) FROM commands")
    answer = client.post("/v1/commands/cancel", content=body, headers={"Content-Type": "application/json"})
    assert code(answer) == says
    assert bank.one("SELECT count(*) FROM commands") == before


def test_a_quoted_key_is_the_bare_one(client: httpx2.Client, bank: Bank) -> None:
    posted = post(client, "k").json()
    assert cancel_key(client, '"k"').json()["id"] == posted["id"]


# --- drains, and who waits -------------------------------------------------------------------------------------------


def test_a_cancel_waits_for_the_drain_under_way(client: httpx2.Client, bank: Bank) -> None:
    applied, given_up = (post(client, key).json()["id"] for key in ("a", "b"))
    with bank.another_drain() as drain, ThreadPoolExecutor(1) as thread:
        drain.claim(max_rows=1)
        answer = thread.submit(cancel, client, applied)
        wait_for_a_waiter(bank)
        drain.apply_and_commit()
        assert code(answer.result()) == "409 already_decided"
        drain.claim()
        drain.apply()
        answer = thread.submit(cancel, client, given_up)
        wait_for_a_waiter(bank)
        drain.rollback()
        assert answer.result().json()["status"] == "cancelled"
    bank.assert_settled()


def test_a_drain_that_hangs_is_not_waited_for_without_end(
    client: httpx2.Client, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 after `lock_timeout`, or, where none of the few connections for it is free, sooner."""
    monkeypatch.setattr(db, "LOCK_TIMEOUT_MS", 300)
    monkeypatch.setattr(sessions, "WAIT_MAX_S", 0.05)
    ids = [post(client, f"k-{n}").json()["id"] for n in range(sessions.SIZE + 1)]
    with bank.another_drain() as drain, ThreadPoolExecutor(len(ids)) as crowd:
        drain.claim()
        answers: list[Future[httpx2.Response]] = [crowd.submit(cancel, client, id) for id in ids]
        told = sorted(code(answer.result()) for answer in answers)
        assert told == ["503 database_unavailable"] * sessions.SIZE + ["503 overloaded"]
        assert all("retry-after" in answer.result().headers for answer in answers)
        assert client.post("/v1/commands/preview", json=SPEND).status_code == 200, "previews have their own"
        drain.apply_and_commit()
    assert client.get(f"/v1/commands/{ids[0]}").json()["status"] == "applied"


@pytest.mark.parametrize("by_key", [True, False])
def test_whoever_waits_hears_of_it_here_and_elsewhere(
    client: httpx2.Client, bank: Bank, valkey: Valkey, by_key: bool
) -> None:
    posted = post(client, "k").json()
    with redis.Redis.from_url(valkey.url) as elsewhere, elsewhere.pubsub(ignore_subscribe_messages=True) as listening:
        listening.subscribe(CHANNEL)
        listening.get_message(timeout=5)
        with ThreadPoolExecutor(1) as thread:
            waiting: Future[Any] = thread.submit(client.get, f"/v1/commands/{posted['id']}", params={"wait": "10"})
            assert (cancel_key(client, "k") if by_key else cancel(client, posted["id"])).status_code == 200
            assert waiting.result().json()["status"] == "cancelled"
        message = listening.get_message(timeout=5)
        assert message is not None
        assert isinstance(message["data"], bytes)
        assert list(unpack(message["data"])) == [bank.one("SELECT max(seq) FROM commands")]


def test_a_post_and_a_cancel_of_its_key_at_once_leave_one_fate(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 10_000)
    ended = threading.Event()

    def drain() -> None:
        with bank.another_drain() as drain:
            while not ended.is_set():
                if drain.claim():
                    drain.apply()
                drain.commit()

    with ThreadPoolExecutor(3) as crowd:
        draining = crowd.submit(drain)
        for n in range(60):
            posting = crowd.submit(post, client, f"k-{n}", Prefer="wait=10")
            cancelling = crowd.submit(cancel_key, client, f"k-{n}")
            posted, answer = posting.result().json(), cancelling.result()
            assert posted["status"] in ("cancelled", "applied")
            if posted["status"] == "cancelled":
                assert (answer.status_code, answer.json()) == (200, posted)
            else:
                assert (answer.status_code, answer.json()["command"]) == (409, posted)
        ended.set()
        draining.result()
    bank.assert_settled()
