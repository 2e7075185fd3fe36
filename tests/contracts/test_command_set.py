"""Holds, reversals, exchanges, adjustments, lots and preconditions, as clients see them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.canonical import HOLD_MAX
from ledger.keys import Scope
from tests.contracts.caller import Caller, in_an_hour, nothing_stored, order, refusal, unique

GEMS = "gems"
NOWHERE = "01a1fc89-fb3f-8c0d-8000-00000000000b"  # well-formed, and names nothing


def send(game: Caller, **body: object) -> dict[str, Any]:
    """Post a command and wait for its outcome; the command."""
    answer = game.post(body, prefer="wait=20")
    assert answer.status_code == 200, answer.text
    return answer.json()


def hold(game: Caller, wallet: str, amount: object, **more: Any) -> dict[str, Any]:
    ends = more.pop("hold_expires_at", None) or in_an_hour()
    return game.do("hold", wallet, amount, hold_expires_at=ends, **more)


def balances(game: Caller, wallet: str, asset: str = "gold") -> tuple[str, str, str]:
    account = game.account(wallet, asset)
    return account["posted"], account["held"], account["available"]


# --- holds -----------------------------------------------------------------------------------------------------------


def test_a_hold_reserves_and_a_capture_takes_a_part_and_gives_back_the_rest(game: Caller, rich: str) -> None:
    placed = hold(game, rich, "60")
    assert placed["outcome"]["hold"] == {"id": placed["id"], "status": "open", "remaining": "60", "captured": "0"}
    assert balances(game, rich) == ("100", "60", "40")
    captured = send(game, type="capture", hold=placed["id"], amount="25")
    assert (captured["wallet"], captured["asset"], captured["hold"]) == (rich, "gold", placed["id"])
    assert captured["outcome"]["hold"] == {
        "id": placed["id"],
        "status": "captured",
        "remaining": "0",
        "captured": "25",
    }
    assert captured["outcome"]["moved"] == [{"asset": "gold", "amount": "25"}]
    assert balances(game, rich) == ("75", "0", "75")
    assert send(game, type="release", hold=placed["id"])["outcome"]["code"] == "hold_not_open"


def test_a_hold_is_captured_piece_by_piece(game: Caller, rich: str) -> None:
    placed = hold(game, rich, "60")
    send(game, type="capture", hold=placed["id"], amount=20, final=False)
    assert balances(game, rich) == ("80", "40", "40")
    friend = unique("friend")
    assert send(game, type="capture", hold=placed["id"], amount="41")["outcome"]["code"] == "hold_exceeded"
    assert send(game, type="capture", hold=placed["id"], to_wallet=friend)["amount"] is None
    assert (balances(game, rich), balances(game, friend)) == (("40", "0", "40"), ("40", "0", "40"))


def test_a_release_gives_all_back(game: Caller, rich: str) -> None:
    placed = hold(game, rich, "60")
    released = send(game, type="release", hold=placed["id"])
    assert released["outcome"]["moved"] == [{"asset": "gold", "amount": "60"}]
    assert balances(game, rich) == ("100", "0", "100")


def test_a_hold_expires_by_itself(game: Caller, rich: str) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    placed = hold(game, rich, "60", hold_expires_at=soon)
    assert placed["outcome"]["code"] == "applied"
    game.until(lambda: game.http.get(f"/v1/wallets/{rich}"), lambda answer: answer.json()["accounts"][0]["held"] == "0")
    assert send(game, type="capture", hold=placed["id"])["outcome"]["code"] == "hold_not_open"


def test_a_hold_whose_time_has_passed_is_an_outcome_and_one_too_far_ahead_is_refused(game: Caller, rich: str) -> None:
    assert hold(game, rich, "1", hold_expires_at="2020-01-01T00:00:00Z")["outcome"]["code"] == "expired"
    far = (datetime.now(UTC) + HOLD_MAX + timedelta(minutes=1)).isoformat()
    with nothing_stored(game.service):
        answer = game.post(order("hold", rich, "1", hold_expires_at=far))
    assert refusal(answer) == "422 validation_failed /hold_expires_at"


# --- what names another command --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["capture", "release", "reverse"])
def test_an_id_that_names_nothing_stores_nothing(
    game: Caller, stranger: Caller, rich: str, kind: str, subtests: pytest.Subtests
) -> None:
    member = "command" if kind == "reverse" else "hold"
    top_up, placed = game.do("top_up", rich, "1"), hold(game, rich, "1")
    foreign = top_up if kind == "reverse" else placed
    for caller, id_ in ((game, NOWHERE), (stranger, foreign["id"]), (game, "x" * 36), (game, "")):
        with subtests.test(id_), nothing_stored(game.service):
            assert refusal(caller.post({"type": kind, member: id_})) == f"422 validation_failed /{member}"
    wrong = placed if kind == "reverse" else top_up
    with nothing_stored(game.service):
        assert refusal(game.post({"type": kind, member: wrong["id"]})) == f"422 validation_failed /{member}"
        told = game.batch([{"idempotency_key": unique("k"), "type": kind, member: NOWHERE}]).json()["results"][0]
    assert told["problem"]["errors"][0]["pointer"] == f"/{member}"


def test_a_hold_that_was_refused_cannot_be_captured(game: Caller, rich: str) -> None:
    refused = hold(game, rich, "101")
    assert send(game, type="capture", hold=refused["id"])["outcome"]["code"] == "command_not_applied"


# --- reversals -------------------------------------------------------------------------------------------------------


def test_a_spend_is_reversed_in_parts_and_no_more(game: Caller, rich: str) -> None:
    spent = game.do("spend", rich, "40")
    first = send(game, type="reverse", command=spent["id"], amount="15")
    assert (first["command"], first["wallet"], first["asset"]) == (spent["id"], rich, "gold")
    assert send(game, type="reverse", command=spent["id"], amount="26")["outcome"]["code"] == "reversal_exceeded"
    rest = send(game, type="reverse", command=spent["id"])
    assert rest["outcome"]["moved"] == [{"asset": "gold", "amount": "25"}]
    assert send(game, type="reverse", command=spent["id"])["outcome"]["code"] == "already_reversed"
    assert game.posted(rich) == "100"


def test_a_top_up_that_is_spent_goes_below_zero_only_for_an_operator(
    game: Caller, wallet: str, new_caller: Callable[..., Caller]
) -> None:
    paid = game.do("top_up", wallet, "50")
    game.do("spend", wallet, "40")
    assert send(game, type="reverse", command=paid["id"])["outcome"]["code"] == "insufficient_funds"
    key = game.service.new_key("a game", Scope.COMMANDS_WRITE)
    with nothing_stored(game.service):
        plain = Caller(game.service, key)
        answer = plain.post({"type": "reverse", "command": paid["id"], "allow_negative": True})
        assert refusal(answer) == "403 insufficient_scope"
        plain.http.close()
    assert send(game, type="reverse", command=paid["id"], allow_negative=True)["outcome"]["code"] == "applied"
    assert balances(game, wallet) == ("-40", "0", "-40")
    game.do("top_up", wallet, "30")
    assert game.do("spend", wallet, "1")["outcome"]["code"] == "insufficient_funds"
    game.do("top_up", wallet, "30")
    assert game.do("spend", wallet, "20")["outcome"]["code"] == "applied"


# --- exchange and adjustment -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rounding", "received"), [("down", "3"), ("up", "4"), ("half_even", "4")])
def test_an_exchange_rounds_as_it_says(game: Caller, rich: str, rounding: str, received: str) -> None:
    game.http.post("/v1/assets", json={"code": GEMS, "name": "Gems"})
    done = send(
        game, type="exchange", wallet=rich, asset="gold", amount="7", to_asset=GEMS, rate="0.500", rounding=rounding
    )
    assert done["outcome"]["moved"] == [{"asset": "gold", "amount": "7"}, {"asset": GEMS, "amount": received}]
    assert (done["to_asset"], done["rate"], done["rounding"]) == (GEMS, "0.5", rounding)
    assert (game.posted(rich), game.posted(rich, GEMS)) == ("93", received)
    back = send(game, type="reverse", command=done["id"])
    assert back["outcome"]["moved"] == done["outcome"]["moved"]
    assert (game.posted(rich), game.posted(rich, GEMS)) == ("100", "0")


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"to_asset": "gold"}, "/to_asset"),
        ({"rate": "0"}, "/rate"),
        ({"rate": "000.00"}, "/rate"),
        ({"rate": "0.1"}, "/amount"),
        ({"rate": "999999999999999999", "amount": "10"}, "/amount"),
        ({"rate": "-1"}, "/rate"),
        ({"rate": ".5"}, "/rate"),
        ({"rate": 1}, "/rate"),
        ({"rounding": "nearest"}, "/rounding"),
    ],
)
def test_an_exchange_that_cannot_be_meant(game: Caller, rich: str, change: dict[str, Any], pointer: str) -> None:
    body = {"type": "exchange", "wallet": rich, "asset": "gold", "amount": "1", "to_asset": GEMS, "rate": "2"}
    with nothing_stored(game.service):
        assert refusal(game.post({**body, **change})) == f"422 validation_failed {pointer}"


def test_an_adjustment_needs_an_operator_and_a_reason(game: Caller, rich: str) -> None:
    plain = Caller(game.service, game.service.new_key("a game", Scope.COMMANDS_WRITE))
    with nothing_stored(game.service):
        assert refusal(plain.post(order("adjust", rich, "5", reason="gift"))) == "403 insufficient_scope"
        assert refusal(game.post(order("adjust", rich, "5"))) == "422 validation_failed /reason"
        assert refusal(game.post(order("adjust", rich, "0", reason="none"))) == "422 validation_failed /amount"
    plain.http.close()
    assert game.do("adjust", rich, "-30", reason="credited twice")["reason"] == "credited twice"
    assert game.do("adjust", rich, 5, reason="too much taken")["amount"] == "5"
    assert game.do("adjust", rich, "-76", reason="more than there is")["outcome"]["code"] == "insufficient_funds"
    assert game.posted(rich) == "75"


# --- lots and preconditions ------------------------------------------------------------------------------------------


def test_a_spend_takes_the_lots_in_order_and_says_so(game: Caller, rich: str) -> None:
    ends = in_an_hour()
    given = game.do("bonus", rich, "20", credits_expire_at=ends)
    assert given["credits_expire_at"]
    (lot,) = given["outcome"]["lots"]
    assert (lot["amount"], lot["source"], lot["priority"]) == ("20", "promotional", 50)
    spent = game.do("spend", rich, "30")
    assert [(part["lot"], part["amount"]) for part in spent["outcome"]["lots"]] == [
        (lot["lot"], "-20"),
        (None, "-10"),
    ]
    bought = game.do("spend", rich, "5", credits_order="purchased_first")
    assert bought["credits_order"] == "purchased_first"
    back = send(game, type="reverse", command=spent["id"], amount="25")
    assert [(part["lot"], part["amount"]) for part in back["outcome"]["lots"]] == [(lot["lot"], "15")]


def test_a_precondition_holds_or_nothing_happens(game: Caller, rich: str) -> None:
    assert game.do("spend", rich, "1", precondition={"version": 1})["precondition"] == {"version": 1}
    refused = game.do("spend", rich, "1", precondition={"version": 1})
    assert (refused["outcome"]["code"], refused["outcome"]["detail"]) == ("precondition_failed", "version is 2, not 1")
    poor = game.do("spend", rich, "1", precondition={"available_gte": "100"})
    assert poor["outcome"]["code"] == "precondition_failed"
    assert game.do("spend", rich, "1", precondition={"version": 2, "available_gte": 99})["outcome"]["code"] == "applied"


# --- idempotency -----------------------------------------------------------------------------------------------------


def test_one_request_in_other_words_is_the_same(game: Caller, rich: str) -> None:
    placed = hold(game, rich, "60")
    key = unique("key")
    first = game.post({"type": "capture", "hold": placed["id"], "amount": "10"}, key=key, prefer="wait=20").json()
    for body in (
        {"amount": 10, "hold": placed["id"].upper(), "type": "capture"},
        {"type": "capture", "hold": placed["id"], "amount": "010", "final": True, "to_wallet": None},
    ):
        again = game.post(body, key=key)
        assert (again.json(), again.headers["Idempotent-Replayed"]) == (first, "true")
    for body in (
        {"final": False},
        {"amount": "11"},
        {"amount": None},
        {"to_wallet": "x"},
        {"precondition": {"version": 1}},
    ):
        other = {"type": "capture", "hold": placed["id"], "amount": "10"} | body
        assert game.post(other, key=key).json()["code"] == "idempotency_key_reused"


def test_a_replay_is_found_whatever_the_clock_says(game: Caller, rich: str) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat()
    key, body = unique("key"), order("hold", rich, "1", hold_expires_at=soon)
    first = game.post(body, key=key, prefer="wait=20").json()
    game.until(lambda: game.http.get(f"/v1/wallets/{rich}"), lambda answer: datetime.now(UTC).isoformat() > soon)
    assert game.post(body, key=key).json()["id"] == first["id"]
