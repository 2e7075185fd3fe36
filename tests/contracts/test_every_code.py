"""Each code that an outcome can have, brought about by a client over HTTP: docs/commands.md, once through."""

from collections.abc import Callable
from typing import Any

import pytest

from ledger.errors import Code
from tests.contracts.caller import Caller, in_an_hour, order, unique

Story = Callable[[Caller, str], dict[str, Any]]
STORIES: dict[Code, Story] = {}
PAST = "2020-01-01T00:00:00Z"


def ends_in(code: Code) -> Callable[[Story], Story]:
    def told(story: Story) -> Story:
        STORIES[code] = story
        return story

    return told


def send(game: Caller, **body: object) -> dict[str, Any]:
    answer = game.post(body, prefer="wait=20")
    assert answer.status_code == 200, answer.text
    return answer.json()


def hold(game: Caller, wallet: str, amount: str) -> str:
    return game.do("hold", wallet, amount, hold_expires_at=in_an_hour())["id"]


def new_asset(game: Caller, **limits: object) -> str:
    code = unique("asset").replace("-", "_")
    game.http.post("/v1/assets", json={"code": code, "name": code})
    if limits:
        assert game.http.patch(f"/v1/assets/{code}", json={"limits": limits}).status_code == 200
    return code


@ends_in(Code.APPLIED)
def _(game: Caller, rich: str) -> dict[str, Any]:
    return game.do("spend", rich, "1")


@ends_in(Code.CANCELLED)
def _(game: Caller, rich: str) -> dict[str, Any]:
    with game.service.drains_held():
        command = game.post(order("spend", rich, "1")).json()
        game.http.post(f"/v1/commands/{command['id']}/cancel")
    return game.get(command["id"]).json()


@ends_in(Code.EXPIRED)
def _(game: Caller, rich: str) -> dict[str, Any]:
    return game.do("hold", rich, "1", hold_expires_at=PAST)


@ends_in(Code.ASSET_NOT_FOUND)
def _(game: Caller, rich: str) -> dict[str, Any]:
    return send(game, type="exchange", wallet=rich, asset="gold", amount="1", to_asset="nowhere", rate="1")


@ends_in(Code.ASSET_FROZEN)
def _(game: Caller, rich: str) -> dict[str, Any]:
    asset = new_asset(game)
    game.http.post(f"/v1/assets/{asset}/freeze")
    return send(game, type="exchange", wallet=rich, asset="gold", amount="1", to_asset=asset, rate="1")


@ends_in(Code.WALLET_NOT_FOUND)
def _(game: Caller, rich: str) -> dict[str, Any]:
    return game.do("hold", unique("player"), "1", hold_expires_at=in_an_hour())


@ends_in(Code.WALLET_FROZEN)
def _(game: Caller, rich: str) -> dict[str, Any]:
    reserved = hold(game, rich, "1")
    game.http.post(f"/v1/wallets/{rich}/freeze")
    return send(game, type="capture", hold=reserved)


@ends_in(Code.WALLET_CLOSED)
def _(game: Caller, rich: str) -> dict[str, Any]:
    sweep = {"sweep_to": game.new_wallet(1), "reason": "left"}
    assert game.http.post(f"/v1/wallets/{rich}/close", json=sweep).status_code == 200
    return game.do("top_up", rich, "1")


@ends_in(Code.COMMAND_NOT_APPLIED)
def _(game: Caller, rich: str) -> dict[str, Any]:
    return send(game, type="reverse", command=game.do("spend", rich, "101")["id"])


@ends_in(Code.HOLD_NOT_OPEN)
def _(game: Caller, rich: str) -> dict[str, Any]:
    reserved = hold(game, rich, "10")
    send(game, type="capture", hold=reserved, amount="1")
    return send(game, type="release", hold=reserved)


@ends_in(Code.HOLD_EXCEEDED)
def _(game: Caller, rich: str) -> dict[str, Any]:
    return send(game, type="capture", hold=hold(game, rich, "10"), amount="11")


@ends_in(Code.ALREADY_REVERSED)
def _(game: Caller, rich: str) -> dict[str, Any]:
    spend = game.do("spend", rich, "10")["id"]
    send(game, type="reverse", command=spend)
    return send(game, type="reverse", command=spend, amount="1")


@ends_in(Code.REVERSAL_EXCEEDED)
def _(game: Caller, rich: str) -> dict[str, Any]:
    return send(game, type="reverse", command=game.do("spend", rich, "10")["id"], amount="11")


@ends_in(Code.PRECONDITION_FAILED)
def _(game: Caller, rich: str) -> dict[str, Any]:
    return send(game, type="release", hold=hold(game, rich, "10"), precondition={"available_gte": "91"})


@ends_in(Code.INSUFFICIENT_FUNDS)
def _(game: Caller, rich: str) -> dict[str, Any]:
    hold(game, rich, "60")
    return game.do("spend", rich, "41")


@ends_in(Code.AMOUNT_LIMIT_EXCEEDED)
def _(game: Caller, rich: str) -> dict[str, Any]:
    game.http.put(f"/v1/wallets/{rich}/limits/gold", json={"max_amount": "10"})
    return game.do("spend", rich, "11")


@ends_in(Code.VELOCITY_LIMIT_EXCEEDED)
def _(game: Caller, rich: str) -> dict[str, Any]:
    game.http.put(f"/v1/wallets/{rich}/limits/gold", json={"velocity": {"window_s": 3600, "max_count": 2}})
    game.do("spend", rich, "1")
    hold(game, rich, "1")
    return game.do("spend", rich, "1")


@ends_in(Code.BALANCE_LIMIT_EXCEEDED)
def _(game: Caller, rich: str) -> dict[str, Any]:
    game.http.put(f"/v1/wallets/{rich}/limits/gold", json={"max_balance": "100"})
    return game.do("transfer", game.new_wallet(10), "1", to_wallet=rich)


@ends_in(Code.SUPPLY_LIMIT_EXCEEDED)
def _(game: Caller, rich: str) -> dict[str, Any]:
    return game.do("bonus", rich, "11", asset=new_asset(game, max_supply="10"))


@ends_in(Code.TOO_MANY_LOTS)
def _(game: Caller, rich: str) -> dict[str, Any]:
    items = [{"idempotency_key": unique("key"), **order("bonus", rich, "1", priority=1)} for _ in range(501)]
    return game.batch(items, prefer="wait=20").json()["results"][-1]["command"]


@ends_in(Code.LIMIT_EXCEEDED)
def _(game: Caller, rich: str) -> dict[str, Any]:
    asset = new_asset(game)
    outcomes = [game.do("top_up", rich, 10**18, asset=asset) for _ in range(10)]
    return outcomes[-1]


@ends_in(Code.GROUP_REFUSED)
def _(game: Caller, rich: str) -> dict[str, Any]:
    items = [{"idempotency_key": unique("key"), **order("spend", rich, amount)} for amount in ("1", "100")]
    return game.batch(items, atomic=True, prefer="wait=20").json()["results"][0]["command"]


@pytest.mark.parametrize("code", STORIES)
def test_a_code_and_what_brings_it_about(game: Caller, rich: str, code: Code) -> None:
    command = STORIES[code](game, rich)
    outcome = command["outcome"]
    assert outcome["code"] == code
    assert command["status"] == {"applied": "applied", "cancelled": "cancelled"}.get(code, "rejected")
    assert bool(outcome["transfers"]) == (code == Code.APPLIED)
    assert ("detail" in outcome) == (code != Code.APPLIED)
    assert game.get(command["id"]).json() == command


def test_a_wallet_that_is_not_empty_is_not_closed(game: Caller, rich: str) -> None:
    """Its command is the ledger's own; the refusal is told by the route that closes."""
    answer = game.http.post(f"/v1/wallets/{rich}/close", json={"reason": "left"})
    assert (answer.status_code, answer.json()["code"]) == (409, "wallet_not_empty")


def test_no_code_is_left_out() -> None:
    """`internal_error` is a defect of ours: tests/worker/test_poison.py."""
    assert set(STORIES) == set(Code) - {Code.INTERNAL_ERROR, Code.WALLET_NOT_EMPTY}
