"""`"atomic": true`: the commands of a batch are all stored and all applied, or none of them is."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ledger.keys import Scope
from tests.contracts.caller import Caller, in_an_hour, nothing_stored, refusal, unique
from tests.contracts.test_batch import item, results, told


@pytest.fixture(scope="module")
def gems(game: Caller) -> str:
    game.http.post("/v1/assets", json={"code": "gems", "name": "Gems"})
    return "gems"


def price(wallet: str, gold: str) -> list[dict[str, Any]]:
    """So much gold, for five gems."""
    return [item("spend", wallet, gold), item("bonus", wallet, "5", asset="gems")]


def pointers(game: Caller, items: list[Any]) -> str:
    with nothing_stored(game.service):
        answer = game.batch(items, atomic=True)
    return refusal(answer)


# --- applied or refused as one ---------------------------------------------------------------------------------------


def test_all_are_applied(game: Caller, rich: str, gems: str) -> None:
    found = results(game, price(rich, "30"), atomic=True, prefer="wait=20")
    assert list(map(told, found)) == ["200 applied", "200 applied"]
    assert (game.posted(rich), game.posted(rich, gems)) == ("70", "5")
    first, second = (result["command"] for result in found)
    assert first["group"] == second["group"] == first["id"]
    assert first["outcome"]["at"] == second["outcome"]["at"]
    assert first["outcome"]["transfers"] != second["outcome"]["transfers"]


def test_one_refusal_refuses_all_and_names_the_leg(game: Caller, rich: str, gems: str) -> None:
    items = price(rich, "30") + price(rich, "71")
    found = results(game, items, atomic=True, prefer="wait=20")
    assert [told(result) for result in found] == ["200 group_refused"] * 2 + [
        "200 insufficient_funds",
        "200 group_refused",
    ]
    assert "3 of 4" in found[0]["command"]["outcome"]["detail"]
    assert game.account(rich)["version"] == 1
    game.do("top_up", rich, "1")  # final: it changes nothing for them
    assert [told(result) for result in results(game, items, atomic=True)][2] == "200 insufficient_funds"


def test_a_later_command_sees_what_an_earlier_one_did(game: Caller, wallet: str) -> None:
    items = [item("top_up", wallet, "10"), item("spend", wallet, "10"), item("top_up", wallet, "1")]
    assert set(map(told, results(game, items, atomic=True, prefer="wait=20"))) == {"200 applied"}
    assert game.posted(wallet) == "1"


def test_a_group_names_commands_of_its_wallet_by_their_ids(game: Caller, rich: str) -> None:
    hold = game.do("hold", rich, "60", hold_expires_at=in_an_hour())["id"]
    spend = game.do("spend", rich, "5")["id"]
    items: list[Any] = [
        {"idempotency_key": unique("key"), "type": "capture", "hold": hold, "amount": "10"},
        {"idempotency_key": unique("key"), "type": "reverse", "command": spend},
        item("transfer", rich, "85", to_wallet=unique("player")),
    ]
    assert set(map(told, results(game, items, atomic=True, prefer="wait=20"))) == {"200 applied"}
    account = game.account(rich)
    assert (account["posted"], account["held"]) == ("5", "0")


def test_it_is_pending_until_it_is_decided(game: Caller, rich: str, gems: str) -> None:
    items = price(rich, "30")
    with game.service.drains_held():
        found = results(game, items, atomic=True)
        assert list(map(told, found)) == ["202", "202"]
        again = results(game, items, atomic=True)
        assert [result["command"] for result in again] == [result["command"] for result in found]
        assert all(result["idempotent_replayed"] for result in again)
    assert game.get(found[1]["command"]["id"], wait=20).json()["status"] == "applied"


def test_a_full_batch(game: Caller, wallet: str) -> None:
    items = [item("top_up", wallet, "1000"), *(item("spend", wallet, "1") for _ in range(999))]
    assert set(map(told, results(game, items, atomic=True, prefer="wait=20"))) == {"200 applied"}
    assert game.account(wallet)["version"] == 1_000


def test_groups_and_single_commands_in_a_crowd(game: Caller, rich: str, gems: str) -> None:
    """Whatever the intake stores together: each group is whole."""
    with ThreadPoolExecutor(16) as pool:
        groups = pool.map(lambda _: results(game, price(rich, "7"), atomic=True, prefer="wait=20"), range(24))
        singles = pool.map(lambda _: game.do("spend", rich, "1")["status"], range(24))
        codes = [tuple(result["command"]["status"] for result in group) for group in groups]
        spent = list(singles).count("applied")
    assert set(codes) <= {("applied", "applied"), ("rejected", "rejected")}
    applied = codes.count(("applied", "applied"))
    assert applied
    assert game.posted(rich) == str(100 - 7 * applied - spent)
    assert game.posted(rich, gems) == str(5 * applied)


# --- the same again --------------------------------------------------------------------------------------------------


def test_sent_again_whole_it_finds_its_outcomes(game: Caller, rich: str, gems: str) -> None:
    items = price(rich, "30")
    first = results(game, items, atomic=True, prefer="wait=20")
    spelled = [dict(reversed(list(each.items()))) | {"amount": int(each["amount"])} for each in items]
    again = results(game, spelled, atomic=True)
    assert [result["command"] for result in again] == [result["command"] for result in first]
    assert all(result["idempotent_replayed"] for result in again)
    assert game.posted(rich) == "70"


def test_thirty_at_once_are_one(game: Caller, rich: str, gems: str) -> None:
    items = price(rich, "30")
    stored = game.service.stored()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: results(game, items, atomic=True, prefer="wait=20"), range(30)))
    assert len({json.dumps([result["command"] for result in answer]) for answer in answers}) == 1
    assert game.service.stored() == stored + 2


@pytest.mark.parametrize("change", ["alone", "not atomic", "fewer", "more", "order", "amount", "another key beside it"])
def test_any_of_its_keys_elsewhere_is_another_request(game: Caller, rich: str, gems: str, change: str) -> None:
    items = price(rich, "30")
    first = results(game, items, atomic=True, prefer="wait=20")
    with nothing_stored(game.service):
        if change == "alone":
            body = {name: value for name, value in items[0].items() if name != "idempotency_key"}
            answer = game.post(body, key=items[0]["idempotency_key"])
            assert refusal(answer) == "422 idempotency_key_reused /header/Idempotency-Key"
        elif change == "not atomic":
            assert [told(each) for each in results(game, items)] == ["422 idempotency_key_reused"] * 2
        else:
            other = {
                "fewer": items[:1],
                "more": [*items, item("spend", rich, "1")],
                "order": items[::-1],
                "amount": [items[0] | {"amount": "31"}, items[1]],
                "another key beside it": [items[0], items[1] | {"idempotency_key": unique("key")}],
            }[change]
            answer = game.batch(other, atomic=True)
            assert answer.json()["code"] == "idempotency_key_reused"
            faults = answer.json()["errors"]
            for fault in faults:
                position = int(fault["pointer"].split("/")[2])
                (original,) = (
                    each["command"]["id"]
                    for each in first
                    if each["command"]["idempotency_key"] == other[position]["idempotency_key"]
                )
                assert fault["pointer"] == f"/commands/{position}/idempotency_key"
                assert original in fault["detail"]
            known = {each["idempotency_key"] for each in items}
            assert len(faults) == sum(each["idempotency_key"] in known for each in other)
    assert game.posted(rich) == "70"


def test_a_key_of_a_single_command_is_none_for_a_group(game: Caller, rich: str, gems: str) -> None:
    items = price(rich, "30")
    known = game.do("spend", rich, "30", key=items[1]["idempotency_key"])
    with nothing_stored(game.service):
        answer = game.batch(items, atomic=True)
    assert refusal(answer) == "422 idempotency_key_reused /commands/1/idempotency_key"
    assert answer.headers["location"] == f"/v1/commands/{known['id']}"
    assert game.find(items[0]["idempotency_key"]).status_code == 404


# --- what cannot be a group ------------------------------------------------------------------------------------------


def test_bad_items_refuse_the_whole(game: Caller, rich: str) -> None:
    good = item("spend", rich, "1")
    assert pointers(game, [good, item("spend", rich, "1.5")]) == "422 validation_failed /commands/1/amount"
    assert pointers(game, [good, {}]) == "422 validation_failed /commands/1/type"
    assert pointers(game, [item("spend", rich, "0"), good, item("transfer", rich, "1", to_wallet=rich)]) == (
        "422 validation_failed /commands/0/amount /commands/2/to_wallet"
    )
    assert pointers(game, [good, item("spend", rich, "1", key='""')]) == (
        "422 validation_failed /commands/1/idempotency_key"
    )


def test_all_are_of_one_wallet(game: Caller, rich: str) -> None:
    other = game.new_wallet(10)
    spend = game.do("spend", other, "1")["id"]
    hold = game.do("hold", other, "1", hold_expires_at=in_an_hour())["id"]
    assert pointers(
        game,
        [
            item("spend", rich, "1"),
            item("spend", other, "1"),
            {"idempotency_key": unique("key"), "type": "reverse", "command": spend},
            {"idempotency_key": unique("key"), "type": "release", "hold": hold},
        ],
    ) == ("422 validation_failed /commands/1/wallet /commands/2/command /commands/3/hold")


def test_a_key_stands_there_once(game: Caller, rich: str) -> None:
    key = unique("key")
    items = [item("spend", rich, "1", key=key), item("spend", rich, "1", key=f'"{key}"')]
    assert pointers(game, items) == "422 validation_failed /commands/1/idempotency_key"


def test_many_faults_are_told_up_to_a_number(game: Caller, rich: str) -> None:
    with nothing_stored(game.service):
        answer = game.batch([item("spend", rich, "0") for _ in range(1_000)], atomic=True)
    assert len(answer.json()["errors"]) == 20
    assert "980 more" in answer.json()["detail"]


def test_more_than_a_thousand_are_refused(game: Caller, rich: str) -> None:
    assert pointers(game, [item("spend", rich, "1") for _ in range(1_001)]) == "422 validation_failed /commands"


def test_a_scope_that_lacks_refuses_the_whole(game: Caller, new_caller: Callable[..., Caller], rich: str) -> None:
    weak = Caller(game.service, game.service.new_key("a game", Scope.COMMANDS_WRITE))
    with nothing_stored(game.service):
        answer = weak.batch([item("spend", rich, "1"), item("adjust", rich, "1", reason="why")], atomic=True)
    assert refusal(answer) == "403 insufficient_scope"
    weak.http.close()
