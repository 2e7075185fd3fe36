"""A command from its 202 to its outcome."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.contracts.caller import GOLD, Caller, order, refusal, unique, without_outcome
from tests.contracts.service import Service

# --- the 202 -------------------------------------------------------------------------------------------------------


def test_the_202_says_what_was_accepted(game: Caller, rich: str) -> None:
    key = unique("key")
    body = order(
        "spend", rich, "30", reference="order-99", metadata={"item": "sword"}, expires_at="2099-11-21T12:00:05Z"
    )
    with game.service.drains_held():
        answer = game.post(body, key=key)
    command = answer.json()
    assert answer.status_code == 202
    assert command | {"id": "", "accepted_at": ""} == {
        "id": "",
        "object": "command",
        "type": "spend",
        "status": "pending",
        "wallet": rich,
        "asset": GOLD,
        "amount": "30",
        "reference": "order-99",
        "metadata": {"item": "sword"},
        "idempotency_key": key,
        "accepted_at": "",
        "expires_at": "2099-11-21T12:00:05Z",
        "outcome": None,
    }
    assert answer.headers["location"] == answer.headers["content-location"] == f"/v1/commands/{command['id']}"
    assert answer.headers["idempotency-key"] == key
    assert int(answer.headers["retry-after"]) >= 1
    assert "idempotent-replayed" not in answer.headers
    assert "preference-applied" not in answer.headers
    accepted_at = datetime.fromisoformat(command["accepted_at"])
    assert abs(datetime.now(UTC) - accepted_at) < timedelta(minutes=1)


def test_the_202_means_committed(game: Caller, rich: str) -> None:
    with game.service.drains_held():
        key = game.post(order("spend", rich, "1")).json()["idempotency_key"]
        assert game.service.one("SELECT count(*) FROM commands WHERE idempotency_key = %s", key) == 1


def test_location_leads_to_the_command(game: Caller, rich: str) -> None:
    with game.service.drains_held():
        accepted = game.post(order("spend", rich, "1"))
        found = game.http.get(accepted.headers["location"])
        assert found.json() == accepted.json()
        assert int(found.headers["retry-after"]) >= 1
    decided = game.http.get(accepted.headers["location"], params={"wait": "20"})
    assert decided.json()["status"] == "applied"
    assert without_outcome(decided.json()) == without_outcome(accepted.json())
    assert "retry-after" not in decided.headers


# --- the four types ------------------------------------------------------------------------------------------------


def moved(game: Caller, *wallets: str) -> list[str]:
    return [game.posted(wallet) for wallet in wallets]


def circulating(game: Caller) -> dict[str, int]:
    supply = game.http.get("/v1/supply").json()["data"]
    (gold,) = (one for one in supply if one["asset"] == GOLD)
    return {name: int(gold[name]) for name in ("issued", "spent", "in_circulation")}


def test_top_up_and_bonus_come_from_our_side_of_the_books(game: Caller, wallet: str) -> None:
    before = circulating(game)
    game.do("top_up", wallet, "100")
    game.do("bonus", wallet, "7")
    assert game.posted(wallet) == "107"
    after = circulating(game)
    assert after["issued"] - before["issued"] == after["in_circulation"] - before["in_circulation"] == 107


def test_a_spend_leaves_circulation(game: Caller, rich: str) -> None:
    before = circulating(game)
    game.do("spend", rich, "30")
    assert game.posted(rich) == "70"
    after = circulating(game)
    assert (after["spent"] - before["spent"], after["in_circulation"] - before["in_circulation"]) == (30, -30)


def test_a_transfer_moves_between_wallets_and_opens_the_other(game: Caller, rich: str, wallet: str) -> None:
    before = circulating(game)
    command = game.do("transfer", rich, "40", to_wallet=wallet)
    assert command["to_wallet"] == wallet
    assert moved(game, rich, wallet) == ["60", "40"]
    assert circulating(game) == before


def test_an_applied_outcome_tells_all(game: Caller, rich: str, wallet: str) -> None:
    command = game.do("transfer", rich, "40", to_wallet=wallet)
    outcome: dict[str, Any] = command["outcome"]
    assert (command["status"], outcome["code"]) == ("applied", "applied")
    assert "detail" not in outcome
    assert outcome["accounts"] == [
        {"wallet": rich, "asset": GOLD, "posted": "60", "held": "0", "available": "60", "version": 2},
        {"wallet": wallet, "asset": GOLD, "posted": "40", "held": "0", "available": "40", "version": 1},
    ]
    assert datetime.fromisoformat(outcome["at"]) >= datetime.fromisoformat(command["accepted_at"])
    (transfer,) = outcome["transfers"]
    written = game.http.get(f"/v1/transfers/{transfer}").json()
    assert written["command"] == command["id"]
    moved_by = [(entry["wallet"], entry["direction"], entry["amount"]) for entry in written["entries"]]
    assert moved_by == [(rich, "debit", "40"), (wallet, "credit", "40")]


def test_system_wallets_are_not_among_the_accounts(game: Caller, rich: str) -> None:
    accounts = game.do("spend", rich, "30")["outcome"]["accounts"]
    assert [(account["wallet"], account["posted"]) for account in accounts] == [(rich, "70")]


def test_amounts_are_strings_or_integers(game: Caller, wallet: str) -> None:
    shown = [game.do("top_up", wallet, amount)["amount"] for amount in ("30", 30, "0030")]
    assert shown == ["30"] * 3
    assert game.posted(wallet) == "90"


def test_the_largest_amount_fits(game: Caller, wallet: str) -> None:
    assert game.do("top_up", wallet, str(10**18))["amount"] == "1000000000000000000"
    assert game.posted(wallet) == "1000000000000000000"
    assert game.do("spend", wallet, 10**18)["status"] == "applied"


def test_commands_of_one_wallet_apply_in_acceptance_order(game: Caller, wallet: str) -> None:
    with game.service.drains_held():
        orders = [order("spend", wallet, "5"), order("top_up", wallet, "5"), order("spend", wallet, "5")]
        ids = [game.post(body).json()["id"] for body in orders]
    codes = [game.get(one, wait=20).json()["outcome"]["code"] for one in ids]
    assert codes == ["wallet_not_found", "applied", "applied"]


# --- reference, metadata -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"item": "sword", "tags": ["a", None, True, -1, 0.5], "deep": {"er": {"": []}}},
        {"größe": "日本語 🗡", "a/b~c": "\u2028", "quote": '"\\', ":": "::"},
        {"id": 2**63, "small": -(2**63)},
        {"pad": "x" * 4_000},
    ],
    ids=["empty", "nested", "any script", "big integers", "nearly 4 KB"],
)
def test_metadata_comes_back_as_it_was_sent(game: Caller, wallet: str, metadata: dict[str, Any]) -> None:
    command = game.do("top_up", wallet, "1", metadata=metadata)
    assert command["metadata"] == metadata
    (entry,) = game.http.get(f"/v1/wallets/{wallet}/entries").json()["data"]
    assert entry["metadata"] == metadata


def test_reference_comes_back_as_it_was_sent(game: Caller, wallet: str) -> None:
    for reference in ("order-99", "Größe 🗡 / 10 %", "x" * 200, "日" * 200):
        assert game.do("top_up", wallet, "1", reference=reference)["reference"] == reference
    assert game.do("top_up", wallet, "1")["reference"] is None


# --- refusals are outcomes -----------------------------------------------------------------------------------------


def test_not_enough_is_an_outcome_that_explains_itself(game: Caller, wallet: str) -> None:
    game.do("top_up", wallet, "10")
    command = game.do("spend", wallet, "30")
    assert (command["status"], command["outcome"]["code"]) == ("rejected", "insufficient_funds")
    assert "available 10" in command["outcome"]["detail"]
    assert "needed 30" in command["outcome"]["detail"]
    assert command["outcome"]["transfers"] == []
    assert [account["posted"] for account in command["outcome"]["accounts"]] == ["10"]
    account = game.account(wallet)
    assert [account[name] for name in ("posted", "held", "queued", "available", "version")] == ["10", "0", "0", "10", 1]


def test_a_debit_of_an_unknown_wallet_is_refused_and_opens_nothing(game: Caller, wallet: str) -> None:
    for kind, more in (("spend", {}), ("transfer", {"to_wallet": unique("player")})):
        command = game.do(kind, wallet, "1", **more)
        assert (command["status"], command["outcome"]["code"]) == ("rejected", "wallet_not_found")
        assert wallet in command["outcome"]["detail"]
        assert command["outcome"]["accounts"] == []
    assert refusal(game.http.get(f"/v1/wallets/{wallet}")) == "404 wallet_not_found"


def test_an_unknown_asset_is_an_outcome(game: Caller, rich: str) -> None:
    command = game.do("spend", rich, "1", asset="silver")
    assert (command["status"], command["outcome"]["code"]) == ("rejected", "asset_not_found")
    assert "silver" in command["outcome"]["detail"]


def test_frozen_wallets_and_assets_refuse(game: Caller, rich: str) -> None:
    game.http.post(f"/v1/wallets/{rich}/freeze")
    assert game.do("spend", rich, "1")["outcome"]["code"] == "wallet_frozen"
    assert game.do("top_up", rich, "1")["outcome"]["code"] == "wallet_frozen"
    game.http.post(f"/v1/wallets/{rich}/unfreeze")
    game.http.post("/v1/assets", json={"code": "ice", "name": "Ice"})
    game.http.post("/v1/assets/ice/freeze")
    assert game.do("top_up", rich, "1", asset="ice")["outcome"]["code"] == "asset_frozen"
    assert game.do("spend", rich, "1")["outcome"]["code"] == "applied"


def test_a_balance_has_a_limit(game: Caller, wallet: str) -> None:
    codes = [game.do("top_up", wallet, 10**18, asset=_vast(game))["outcome"]["code"] for _ in range(10)]
    assert codes == ["applied"] * 9 + ["limit_exceeded"]


def _vast(game: Caller) -> str:
    """An asset of this test alone: the treasury has a limit, too."""
    game.http.post("/v1/assets", json={"code": "vast", "name": "Vast"})
    return "vast"


# --- expires_at ----------------------------------------------------------------------------------------------------


def test_a_late_spend_charges_nobody(game: Caller, rich: str) -> None:
    command = game.do("spend", rich, "30", expires_at="2020-01-01T00:00:00Z")
    assert (command["status"], command["outcome"]["code"]) == ("rejected", "expired")
    assert "2020-01-01" in command["outcome"]["detail"]
    assert game.posted(rich) == "100"


def test_a_spend_that_waited_too_long_expires(game: Caller, rich: str) -> None:
    with game.service.drains_held():
        soon = datetime.now(UTC) + timedelta(seconds=0.3)
        command = game.post(order("spend", rich, "30", expires_at=soon.isoformat())).json()
        game.service.one("SELECT pg_sleep(0.4)::text")
    assert game.get(command["id"], wait=20).json()["outcome"]["code"] == "expired"
    assert game.posted(rich) == "100"


def test_a_deadline_to_come_changes_nothing(game: Caller, rich: str) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=5)
    assert game.do("spend", rich, "30", expires_at=soon.isoformat())["status"] == "applied"


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("2099-11-21T12:00:05Z", "2099-11-21T12:00:05Z"),
        ("2099-11-21T13:00:05+01:00", "2099-11-21T12:00:05Z"),
        ("2099-11-21T12:00:05.25-00:00", "2099-11-21T12:00:05.250000Z"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
    ],
)
def test_times_are_shown_in_utc(game: Caller, wallet: str, sent: str, shown: str) -> None:
    answer = game.post(order("top_up", wallet, "1", expires_at=sent)).json()
    assert answer["expires_at"] == shown
    assert game.get(answer["id"], wait=20).json()["expires_at"] == shown


def test_an_outcome_names_the_task_that_applied_it(game: Caller, rich: str, service: Service) -> None:
    command = game.do("spend", rich, "1")
    task = service.one("SELECT task_id::text FROM outcomes ORDER BY seq DESC LIMIT 1")
    assert command["outcome"]["task"] == task
