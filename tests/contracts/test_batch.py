"""Up to 1,000 commands in one request, each with a result of its own."""

import json
from typing import Any

import pytest

from tests.contracts.caller import Caller, nothing_stored, order, refusal, unique


def item(kind: str, wallet: str, amount: object, *, key: str | None = None, **more: object) -> dict[str, Any]:
    return {"idempotency_key": key or unique("key"), **order(kind, wallet, amount, **more)}


def results(game: Caller, items: list[Any], **more: Any) -> list[dict[str, Any]]:
    answer = game.batch(items, **more)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    assert len(found) == len(items)
    return found


def told(result: dict[str, Any]) -> str:
    """`202`, `200 applied` or `422 validation_failed /amount`."""
    if "problem" in result:
        problem = result["problem"]
        assert problem["status"] == result["status"]
        pointers = [fault["pointer"] for fault in problem["errors"] if problem["code"] == "validation_failed"]
        return " ".join([str(result["status"]), problem["code"], *pointers])
    command = result["command"]
    return f"{result['status']} {command['outcome']['code']}" if command["outcome"] else str(result["status"])


# --- results -------------------------------------------------------------------------------------------------------


def test_each_command_is_accepted_in_order(game: Caller, wallet: str) -> None:
    items = [
        item("top_up", wallet, "10"),
        item("spend", wallet, "3"),
        item("spend", wallet, "8"),
        item("bonus", wallet, 2),
    ]
    with game.service.drains_held():
        found = results(game, items)
    assert list(map(told, found)) == ["202"] * 4
    assert [result["command"]["idempotency_key"] for result in found] == [each["idempotency_key"] for each in items]
    ids = [result["command"]["id"] for result in found]
    codes = [game.get(one, wait=20).json()["outcome"]["code"] for one in ids]
    assert codes == ["applied", "applied", "insufficient_funds", "applied"]
    assert game.posted(wallet) == "9"


def test_a_batch_can_wait_for_its_outcomes(game: Caller, wallet: str) -> None:
    other = unique("player")
    items = [
        item("top_up", wallet, "10"),
        item("transfer", wallet, "4", to_wallet=other),
        item("spend", wallet, "7"),
        item("spend", wallet, "1", expires_at="2020-01-01T00:00:00Z"),
    ]
    answer = game.batch(items, prefer="wait=20")
    assert answer.headers["preference-applied"] == "wait=20"
    told_all = list(map(told, answer.json()["results"]))
    assert told_all == ["200 applied", "200 applied", "200 insufficient_funds", "200 expired"]
    assert (game.posted(wallet), game.posted(other)) == ("6", "4")


def test_a_batch_that_waited_in_vain_is_accepted_all_the_same(game: Caller, rich: str) -> None:
    with game.service.drains_held():
        found = results(game, [item("spend", rich, "1"), item("spend", rich, "2")], prefer="wait=1")
    assert list(map(told, found)) == ["202", "202"]
    game.service.settle()
    assert game.posted(rich) == "97"


def test_good_bad_replayed_and_mismatched_stand_side_by_side(game: Caller, rich: str) -> None:
    known, mine = unique("key"), unique("key")
    original = game.do("spend", rich, "1", key=known)
    items: list[Any] = [
        item("spend", rich, "2"),
        item("spend", rich, "1.5"),
        item("spend", rich, "1", key=known),
        item("spend", rich, "9", key=known),
        item("spend", rich, "3", key=mine),
        item("spend", rich, "3", key=mine),
        item("spend", rich, "4", key=mine),
        order("spend", rich, "5"),
        item("spend", rich, "5", key="k 1"),
        item("teleport", rich, "5"),
        "spend",
        item("transfer", rich, "5", to_wallet=rich),
        item("spend", unique("player"), "5"),
    ]
    found = results(game, items, prefer="wait=20")
    assert list(map(told, found)) == [
        "200 applied",
        "422 validation_failed /amount",
        "200 applied",
        "422 idempotency_key_reused",
        "200 applied",
        "200 applied",
        "422 idempotency_key_reused",
        "422 validation_failed /idempotency_key",
        "422 validation_failed /idempotency_key",
        "422 validation_failed /type",
        "422 validation_failed ",
        "422 validation_failed /to_wallet",
        "200 wallet_not_found",
    ]
    assert [position for position, result in enumerate(found) if result.get("idempotent_replayed")] == [2, 5]
    assert found[2]["command"] == original
    assert found[4]["command"] == found[5]["command"]
    assert original["id"] in found[3]["problem"]["detail"]
    assert found[4]["command"]["id"] in found[6]["problem"]["detail"]
    assert game.posted(rich) == "94"


def test_the_same_batch_again_finds_the_same_commands(game: Caller, rich: str) -> None:
    items = [item("spend", rich, "1"), item("spend", rich, "200")]
    first = results(game, items, prefer="wait=20")
    again = results(game, items)
    assert [result["command"] for result in again] == [result["command"] for result in first]
    assert all(result["idempotent_replayed"] for result in again)
    assert list(map(told, again)) == ["200 applied", "200 insufficient_funds"]
    assert game.posted(rich) == "99"


def test_a_replay_of_pending_items_is_pending(game: Caller, rich: str) -> None:
    items = [item("spend", rich, "1"), item("spend", rich, "2")]
    with game.service.drains_held():
        first = results(game, items)
        again = results(game, items)
    assert [result["command"] for result in again] == [result["command"] for result in first]
    assert list(map(told, again)) == ["202", "202"]


def test_batches_and_single_posts_share_their_keys(game: Caller, rich: str) -> None:
    key = unique("key")
    (result,) = results(game, [item("spend", rich, "1", key=key)], prefer="wait=20")
    answer = game.post(order("spend", rich, "1"), key=key)
    assert answer.json() == result["command"]
    assert answer.headers["idempotent-replayed"] == "true"


def test_a_full_batch(game: Caller, wallet: str) -> None:
    items = [item("top_up", wallet, "1000"), *(item("spend", wallet, "1") for _ in range(999))]
    found = results(game, items, prefer="wait=20")
    assert set(map(told, found)) == {"200 applied"}
    keys = [result["command"]["idempotency_key"] for result in found]
    assert keys == [each["idempotency_key"] for each in items]
    assert game.account(wallet)["version"] == 1_000
    assert game.posted(wallet) == "1"


def test_a_batch_of_bad_items_stores_nothing(game: Caller, rich: str) -> None:
    with nothing_stored(game.service):
        found = results(game, [item("spend", rich, 0), {}, None, 5, []])
    assert [result["status"] for result in found] == [422] * 5


# --- batches that cannot be ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"commands": []}, "422 validation_failed /commands"),
        ({}, "422 validation_failed /commands"),
        ({"commands": None}, "422 validation_failed /commands"),
        ({"commands": {}}, "422 validation_failed /commands"),
        ({"commands": "spend"}, "422 validation_failed /commands"),
        ({"commands": [{}], "atomic": "yes"}, "422 validation_failed /atomic"),
        ({"commands": [{}], "atomic": 1}, "422 validation_failed /atomic"),
        ({"commands": [{}], "atomc": False}, "422 validation_failed /atomc"),
        ([], "422 validation_failed "),
        (None, "422 validation_failed "),
        ("commands", "422 validation_failed "),
    ],
)
def test_the_batch_itself_must_be_well_formed(game: Caller, body: object, says: str) -> None:
    headers = {"Content-Type": "application/json"}
    assert refusal(game.http.post("/v1/commands/batch", content=json.dumps(body), headers=headers)) == says


def test_more_than_a_thousand_are_refused(game: Caller, rich: str) -> None:
    with nothing_stored(game.service):
        answer = game.batch([item("spend", rich, "1") for _ in range(1_001)])
    assert refusal(answer) == "422 validation_failed /commands"
    assert "1000" in answer.json()["detail"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"commands": [', b"commands", b'{"commands": [{}]}}', b"\xff"])
def test_what_is_not_json(game: Caller, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = game.http.post("/v1/commands/batch", content=content, headers=headers)
    assert refusal(answer) == "400 malformed_json"


def test_a_member_that_stands_there_twice(game: Caller, rich: str) -> None:
    one = f'{{"idempotency_key":"{unique("key")}","type":"spend","wallet":"{rich}","asset":"gold","amount":1}}'
    headers = {"Content-Type": "application/json"}
    with nothing_stored(game.service):
        for content in (
            f'{{"commands":[{one}],"commands":[{one}]}}',
            f'{{"commands":[{one}],"comm\\u0061nds":[{one}]}}',
        ):
            answer = game.http.post("/v1/commands/batch", content=content, headers=headers)
            assert refusal(answer) == "400 duplicate_member /commands"


def test_an_idempotency_key_header_means_nothing_here(game: Caller, rich: str) -> None:
    headers = {"Idempotency-Key": unique("key")}
    body = {"commands": [order("spend", rich, "1")]}
    (result,) = game.http.post("/v1/commands/batch", json=body, headers=headers).json()["results"]
    assert told(result) == "422 validation_failed /idempotency_key"
