"""Lots over HTTP: where credits go that have an end, and how an outcome says so (docs/commands.md, "Lots")."""

from typing import Any

from tests.contracts.caller import Caller, in_an_hour, unique


def send(game: Caller, **body: object) -> dict[str, Any]:
    answer = game.post(body, prefer="wait=20")
    assert answer.status_code == 200, answer.text
    return answer.json()


def lots(game: Caller, wallet: str, asset: str = "gold") -> list[tuple[str, str]]:
    """(source, remaining) of each, as the wallet shows them."""
    return [(lot["source"], lot["remaining"]) for lot in game.account(wallet, asset)["lots"]]


def took(command: dict[str, Any]) -> list[tuple[str, str]]:
    """(whose, how much) of each piece of an outcome."""
    return [(part["wallet"], part["amount"]) for part in command["outcome"]["lots"]]


def test_a_transfer_hands_its_lots_on(game: Caller, wallet: str) -> None:
    friend, ends = unique("friend"), in_an_hour()
    given = game.do("bonus", wallet, "20", credits_expire_at=ends, priority=10)
    game.do("top_up", wallet, "20")
    sent = game.do("transfer", wallet, "30", to_wallet=friend)
    assert took(sent) == [(wallet, "-20"), (wallet, "-10"), (friend, "20")]
    (mine,) = given["outcome"]["lots"]
    handed = sent["outcome"]["lots"][2]
    assert handed["lot"] == f"{sent['outcome']['transfers'][0]}.1" != mine["lot"]
    assert [handed[name] == mine[name] for name in ("source", "priority", "expires_at")] == [True] * 3
    assert (lots(game, wallet), lots(game, friend)) == ([], [("promotional", "20")])


def test_a_hold_keeps_its_lots_and_a_capture_hands_them_on(game: Caller, wallet: str) -> None:
    friend = unique("friend")
    game.do("bonus", wallet, "20", credits_expire_at=in_an_hour())
    placed = game.do("hold", wallet, "20", hold_expires_at=in_an_hour())
    (reserved,) = placed["outcome"]["lots"]
    assert (reserved["amount"], reserved["held"]) == ("0", "20")
    captured = send(game, type="capture", hold=placed["id"], amount="15", to_wallet=friend)
    assert took(captured) == [(wallet, "-15"), (wallet, "0"), (friend, "15")]
    assert (lots(game, wallet), lots(game, friend)) == ([("promotional", "5")], [("promotional", "15")])
    back = send(game, type="reverse", command=captured["id"])
    assert took(back) == [(friend, "-15"), (wallet, "15")]
    assert (lots(game, wallet), lots(game, friend)) == ([("promotional", "20")], [])
    assert game.account(wallet)["available"] == "20"


def test_a_reversal_fills_the_same_lots_last_first(game: Caller, wallet: str) -> None:
    for priority in (1, 2, 3):
        game.do("bonus", wallet, "10", priority=priority)
    spent = game.do("spend", wallet, "25")
    assert took(spent) == [(wallet, "-10"), (wallet, "-10"), (wallet, "-5")]
    first, second, third = (part["lot"] for part in spent["outcome"]["lots"])
    back = send(game, type="reverse", command=spent["id"], amount="12")
    assert [(part["lot"], part["amount"]) for part in back["outcome"]["lots"]] == [(third, "5"), (second, "7")]
    rest = send(game, type="reverse", command=spent["id"])
    assert [(part["lot"], part["amount"]) for part in rest["outcome"]["lots"]] == [(second, "3"), (first, "10")]


def test_an_exchange_makes_plain_credits(game: Caller, wallet: str) -> None:
    game.http.post("/v1/assets", json={"code": "gems", "name": "Gems"})
    game.do("bonus", wallet, "20", credits_expire_at=in_an_hour())
    done = send(game, type="exchange", wallet=wallet, asset="gold", amount="15", to_asset="gems", rate="2")
    assert (done["to_amount"], took(done)) == ("30", [(wallet, "-15")])
    assert (lots(game, wallet), lots(game, wallet, "gems")) == ([("promotional", "5")], [])


def test_the_order_of_taking_is_the_callers(game: Caller) -> None:
    def sources(order: str) -> list[str]:
        wallet = unique("player")
        game.do("top_up", wallet, "1", source="purchased", priority=60)
        game.do("bonus", wallet, "1", source="promotional", priority=70)
        game.do("bonus", wallet, "1", credits_expire_at=in_an_hour(), source="purchased", priority=80)
        game.do("top_up", wallet, "1")
        spent = game.do("spend", wallet, "4", credits_order=order)
        return [f"{part['source']} {part['priority']}" if part["lot"] else "plain" for part in spent["outcome"]["lots"]]

    a, b, c = "purchased 60", "promotional 70", "purchased 80"
    assert sources("soonest_to_expire") == ["plain", a, b, c]
    assert sources("promotional_first") == [b, "plain", a, c]
    assert sources("purchased_first") == ["plain", a, c, b]
    assert sources("oldest_first") == [a, b, c, "plain"]


def test_a_debt_is_repaid_before_a_lot_is_made(game: Caller, wallet: str) -> None:
    paid = game.do("top_up", wallet, "50")
    game.do("spend", wallet, "50")
    owed = send(game, type="reverse", command=paid["id"], allow_negative=True)
    assert owed["outcome"]["accounts"][0]["available"] == "-50"
    given = game.do("bonus", wallet, "80", credits_expire_at=in_an_hour())
    assert took(given) == [(wallet, "30")]
    assert game.account(wallet)["available"] == "30"
