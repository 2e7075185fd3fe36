"""Waiting for outcomes: `Prefer: wait=N`, `?wait=N`, and what it costs when nobody announces them."""

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from bursar.local.postgres import Postgres
from bursar.local.valkey import Valkey
from tests import servers
from tests.contracts.caller import GOLD, Caller, order, unique
from tests.contracts.service import Service

WAITING = "bursar_waiting_commands"

# Far above what it takes here (milliseconds), far below the waits that are asked for: an answer that came this soon
# came because of the outcome.
SOON_S = 10.0


# --- Prefer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("wait=20", "wait=20"),
        ('wait="20"', "wait=20"),
        ("wait = 20", "wait=20"),
        ("Wait=20", "wait=20"),
        ("wait=31", "wait=30"),
        ("wait=999999999", "wait=30"),
        ("wait=007", "wait=7"),
        ("respond-async, wait=20", "wait=20"),
        ("wait=20, respond-async", "wait=20"),
        ('return=minimal; foo="a", wait=20', "wait=20"),
        ("wait=20; foo=bar", "wait=20"),
        ("wait=20, wait=5", "wait=20"),
    ],
)
def test_a_wait_that_is_understood(game: Caller, rich: str, prefer: str, applied: str) -> None:
    answer = game.post(order("spend", rich, "1"), prefer=prefer)
    assert (answer.status_code, answer.json()["status"]) == (200, "applied")
    assert answer.headers["preference-applied"] == applied
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize(
    "prefer",
    [
        *(
            "",
            "wait",
            "wait=",
            "wait=0",
            "wait=-1",
            "wait=+5",
            "wait=1.5",
            "wait=1e1",
            "wait=five",
            "wait=1_0",
            "waits=5",
        ),
        *("return=minimal", "respond-async", ",,;;==", "w" * 4_000, "wait=" + "9" * 4_000),
    ],
)
def test_a_preference_that_makes_no_sense_is_passed_over(game: Caller, rich: str, prefer: str) -> None:
    with game.service.drains_held():
        answer = game.post(order("spend", rich, "1"), prefer=prefer)
    assert answer.status_code == 202
    assert "preference-applied" not in answer.headers


def test_a_preference_in_any_bytes_is_no_error(game: Caller, rich: str) -> None:
    body = f'{{"type":"spend","wallet":"{rich}","asset":"{GOLD}","amount":1}}'.encode()
    for prefer in ("wait=\u0665".encode(), b"wait=\xb2", b"\xff"):
        headers = [("Content-Type", "application/json"), ("Idempotency-Key", unique("key")), ("Prefer", prefer)]
        assert game.raw("POST", "/v1/commands", headers, body).status == 202


def test_without_a_worker_the_wait_ends_in_a_202(game: Caller, rich: str) -> None:
    with game.service.drains_held():
        started = time.monotonic()
        answer = game.post(order("spend", rich, "1"), prefer="wait=1")
        took_s = time.monotonic() - started
    assert (answer.status_code, answer.json()["status"], answer.json()["outcome"]) == (202, "pending", None)
    assert answer.headers["preference-applied"] == "wait=1"
    assert int(answer.headers["retry-after"]) >= 1
    assert 0.9 < took_s < SOON_S


def test_a_refusal_ends_the_wait_too(game: Caller, wallet: str) -> None:
    answer = game.post(order("spend", wallet, "1"), prefer="wait=30")
    assert (answer.status_code, answer.json()["status"]) == (200, "rejected")


# --- outcomes that come while somebody waits -----------------------------------------------------------------------


def waiting(game: Caller, number: int) -> None:
    game.service.wait_for_metric(WAITING, number, within_s=SOON_S)


def test_an_outcome_is_delivered_to_all_who_wait_for_it(game: Caller, rich: str) -> None:
    key = unique("key")
    with ThreadPoolExecutor(8) as pool:
        with game.service.drains_held():
            command = game.post(order("spend", rich, "1"), key=key).json()
            answers = [
                *(pool.submit(game.get, command["id"], wait=30) for _ in range(3)),
                *(pool.submit(game.find, key, wait=30) for _ in range(2)),
                pool.submit(game.post, order("spend", rich, "1"), key=key, prefer="wait=30"),
            ]
            waiting(game, 1)
            time.sleep(0.3)  # for the other five, who wait for the same command
            assert not any(answer.done() for answer in answers)
        started = time.monotonic()
        heard = [answer.result().json() for answer in answers]
        assert time.monotonic() - started < SOON_S
    assert {answer["status"] for answer in heard} == {"applied"}
    assert len({answer["outcome"]["at"] for answer in heard}) == 1
    waiting(game, 0)


def test_many_wait_for_many(game: Caller) -> None:
    wallets = [game.new_wallet(10) for _ in range(8)]
    with ThreadPoolExecutor(40) as pool:
        with game.service.drains_held():
            orders = [order("spend", wallet, n + 1) for n in range(5) for wallet in wallets]
            answers = [pool.submit(game.post, body, prefer="wait=30") for body in orders]
            waiting(game, 40)
        heard = [answer.result() for answer in answers]
    for body, answer in zip(orders, heard, strict=True):
        assert answer.status_code == 200
        assert (answer.json()["wallet"], answer.json()["amount"]) == (body["wallet"], str(body["amount"]))
    waiting(game, 0)


def test_a_client_who_leaves_leaves_no_waiter_behind(game: Caller, rich: str) -> None:
    """At the latest when its time is up."""
    head = (
        f"Host: bursar\r\nAuthorization: Bearer {game.api_key}\r\nContent-Type: application/json\r\nPrefer: wait=2\r\n"
    )
    body = f'{{"type":"spend","wallet":"{rich}","asset":"{GOLD}","amount":1}}'
    with game.service.drains_held():
        for _ in range(5):
            key = f"Idempotency-Key: {unique('key')}\r\n"
            request = f"POST /v1/commands HTTP/1.1\r\n{head}{key}Content-Length: {len(body)}\r\n\r\n{body}"
            game.hang_up(request.encode())
        game.until(lambda: game.http.get("/readyz"), lambda _: game.service.one("SELECT count(*) FROM pending") == 5)
        waiting(game, 0)
    game.service.settle()
    assert game.posted(rich) == "95"


def test_a_batch_that_is_left_leaves_no_waiters_behind(game: Caller, rich: str) -> None:
    items = [{"idempotency_key": unique("key"), **order("spend", rich, "1")} for _ in range(5)]
    with game.service.drains_held():
        with pytest.raises(httpx2.ReadTimeout):
            game.http.post("/v1/commands/batch", json={"commands": items}, headers={"Prefer": "wait=2"}, timeout=0.5)
        waiting(game, 0)


# --- without Redis -------------------------------------------------------------------------------------------------


@pytest.fixture
def own_service(postgres: Postgres, template: str, own_valkey: Valkey) -> Generator[Service]:
    with servers.fresh_database(postgres, template=template) as url, servers.temporary_folder() as folder:
        running = Service(folder, database_url=url, redis_url=own_valkey.url)
        try:
            running.start()
            yield running
        finally:
            running.stop()


def test_without_redis_outcomes_come_a_second_or_two_later(own_service: Service, own_valkey: Valkey) -> None:
    caller = Caller(own_service, own_service.new_key("a game"))
    caller.http.post("/v1/assets", json={"code": GOLD, "name": "Gold"})
    wallet = caller.new_wallet(100)
    own_valkey.kill()
    for spent in (1, 2):
        started = time.monotonic()
        assert caller.post(order("spend", wallet, "1"), prefer="wait=30").json()["status"] == "applied"
        assert time.monotonic() - started < SOON_S
        assert caller.posted(wallet) == str(100 - spent)
    accepted = caller.post(order("spend", wallet, "1")).json()
    assert caller.get(accepted["id"], wait=30).json()["status"] == "applied"
    own_valkey.start()
    assert caller.do("spend", wallet, "1")["status"] == "applied"
    assert own_service.metric(WAITING) == 0
    caller.http.close()


# --- figures -------------------------------------------------------------------------------------------------------


def test_the_counters_count(game: Caller, rich: str) -> None:
    def counted() -> list[int]:
        name = 'bursar_commands_total{{result="{}"}}'
        return [int(game.service.metric(name.format(result))) for result in ("accepted", "replayed", "mismatched")]

    before = counted()
    key = unique("key")
    game.post(order("spend", rich, "1"), key=key)
    game.post(order("spend", rich, "1"), key=key)
    game.post(order("spend", rich, "2"), key=key)
    game.post(order("spend", rich, "1.5"))
    items = [{"idempotency_key": k, **order("spend", rich, "1")} for k in (unique("key"), unique("key"), key)]
    game.batch([*items, {"idempotency_key": key, **order("spend", rich, "3")}, {}])
    assert [after - b for after, b in zip(counted(), before, strict=True)] == [3, 2, 2]
