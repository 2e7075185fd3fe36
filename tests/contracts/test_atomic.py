"""Atomic batches: all or nothing, at acceptance as in the books."""

from typing import Any

import pytest

from tests.contracts.caller import Caller, in_an_hour, nothing_stored, order, refusal, unique

GEMS = "gems"


@pytest.fixture(autouse=True)
def gems(game: Caller) -> None:
    game.http.post("/v1/assets", json={"code": GEMS, "name": "Gems"})


def leg(kind: str, wallet: str, amount: object, *, key: str | None = None, **more: object) -> dict[str, Any]:
    return {"idempotency_key": key or unique("key"), **order(kind, wallet, amount, **more)}


def atomic(game: Caller, legs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The commands of an accepted atomic batch, with their outcomes."""
    answer = game.batch(legs, atomic=True, prefer="wait=20")
    assert answer.status_code == 200, answer.text
    return [result["command"] for result in answer.json()["results"]]


def codes(commands: list[dict[str, Any]]) -> list[str]:
    return [command["outcome"]["code"] for command in commands]


def test_gold_and_gems_buy_points_in_one_transaction(game: Caller, rich: str) -> None:
    game.do("top_up", rich, "5", asset=GEMS)
    bought = atomic(
        game, [leg("spend", rich, "30"), leg("spend", rich, "2", asset=GEMS), leg("bonus", rich, "50", asset=GEMS)]
    )
    assert codes(bought) == ["applied"] * 3
    assert len({command["outcome"]["at"] for command in bought}) == 1
    assert (game.posted(rich), game.posted(rich, GEMS)) == ("70", "53")


def test_one_refusal_refuses_all_and_names_the_leg(game: Caller, rich: str) -> None:
    legs = [leg("spend", rich, "30"), leg("spend", rich, "1", asset=GEMS), leg("top_up", rich, "5")]
    refused = atomic(game, legs)
    assert codes(refused) == ["group_refused", "insufficient_funds", "group_refused"]
    assert refused[0]["outcome"]["detail"] == "command 2 of 3 of the batch was refused: insufficient_funds"
    assert all(command["outcome"]["transfers"] == [] for command in refused)
    assert (game.posted(rich), game.account(rich)["version"]) == ("100", 1)


def test_a_later_leg_sees_what_an_earlier_one_did(game: Caller, wallet: str) -> None:
    assert codes(atomic(game, [leg("top_up", wallet, "10"), leg("spend", wallet, "10")])) == ["applied", "applied"]
    assert codes(atomic(game, [leg("spend", wallet, "10"), leg("top_up", wallet, "10")])) == [
        "insufficient_funds",
        "group_refused",
    ]


def test_a_whole_batch_sent_again_finds_its_outcomes(game: Caller, rich: str) -> None:
    legs = [leg("spend", rich, "30"), leg("spend", rich, "20")]
    first = atomic(game, legs)
    with nothing_stored(game.service):
        again = game.batch(legs, atomic=True).json()["results"]
    assert [result["command"] for result in again] == first
    assert all(result["idempotent_replayed"] for result in again)
    assert game.posted(rich) == "50"


def test_its_keys_are_used_up_for_anything_else(game: Caller, rich: str) -> None:
    legs = [leg("spend", rich, "30"), leg("spend", rich, "20")]
    atomic(game, legs)
    with nothing_stored(game.service):
        for other in (legs[::-1], legs[:1], [*legs, leg("spend", rich, "1")], [legs[0], leg("spend", rich, "20")]):
            answer = game.batch(other, atomic=True)
            assert answer.status_code == 422, answer.text
            assert answer.json()["code"] == "idempotency_key_reused"
            assert answer.json()["errors"][0]["pointer"].startswith("/commands/")
        single = {name: value for name, value in legs[0].items() if name != "idempotency_key"}
        assert game.post(single, key=legs[0]["idempotency_key"]).status_code == 422
        (result, _) = game.batch(legs).json()["results"]
        assert result["problem"]["code"] == "idempotency_key_reused"


def test_one_known_key_keeps_the_whole_batch_out(game: Caller, rich: str) -> None:
    known = game.do("spend", rich, "1", key=unique("known"))
    legs = [leg("spend", rich, "30"), leg("spend", rich, "1", key=known["idempotency_key"])]
    with nothing_stored(game.service):
        answer = game.batch(legs, atomic=True)
    assert refusal(answer) == "422 idempotency_key_reused /commands/1/idempotency_key"
    assert answer.headers["Location"] == f"/v1/commands/{known['id']}"
    assert game.find(legs[0]["idempotency_key"]).status_code == 404


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ({"amount": "0"}, "422 validation_failed /commands/1/amount"),
        ({"amount": 1.5}, "422 validation_failed /commands/1/amount"),
        ({"colour": "red"}, "422 validation_failed /commands/1/colour"),
        ({"idempotency_key": "two words"}, "422 validation_failed /commands/1/idempotency_key"),
        ({"wallet": "somebody-else"}, "422 validation_failed /commands/1"),
    ],
)
def test_one_bad_item_refuses_the_batch(game: Caller, rich: str, spoil: dict[str, Any], told: str) -> None:
    with nothing_stored(game.service):
        answer = game.batch([leg("spend", rich, "1"), {**leg("spend", rich, "1"), **spoil}], atomic=True)
    assert refusal(answer) == told


def test_the_same_key_twice_in_one_batch(game: Caller, rich: str) -> None:
    key = unique("key")
    with nothing_stored(game.service):
        answer = game.batch([leg("spend", rich, "1", key=key), leg("spend", rich, "1", key=key)], atomic=True)
    assert refusal(answer) == "422 validation_failed /commands"


def test_a_capture_joins_a_batch_of_its_wallet(game: Caller, rich: str) -> None:
    hold = game.do("hold", rich, "40", hold_expires_at=in_an_hour())
    capture = {"idempotency_key": unique("key"), "type": "capture", "hold": hold["id"], "amount": "30"}
    assert codes(atomic(game, [capture, leg("bonus", rich, "3")])) == ["applied", "applied"]
    assert game.account(rich)["available"] == "73"


def test_a_thousand_legs(game: Caller, wallet: str) -> None:
    legs = [leg("top_up", wallet, "1") for _ in range(1_000)]
    assert set(codes(atomic(game, legs))) == {"applied"}
    assert game.posted(wallet) == "1000"
