"""Limits over HTTP: of an asset, of one wallet in it, both; sharp from the answer on."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from api.limits import LIMIT_AMOUNT_MAX
from ledger.limits import WINDOW_MAX_S
from tests.api.serving import code
from tests.api.test_freezing import eventually_waits
from tests.books import ALL, GOLD, Bank

ASSET = f"/v1/assets/{GOLD}"
ALICE = f"/v1/wallets/alice/limits/{GOLD}"
FULL: dict[str, Any] = {
    "max_amount": "100", "max_balance": "1000", "velocity": {"window_s": 60, "max_amount": "300", "max_count": 5},
    "balance_low_below": "50",
}  # fmt: skip


def limit(client: httpx2.Client, **limits: object) -> httpx2.Response:
    return client.patch(ASSET, json={"limits": limits})


# --- what is kept --------------------------------------------------------------------------------------------------


def test_an_assets_limits_are_replaced_whole_and_cleared(client: httpx2.Client) -> None:
    assert limit(client, **FULL, max_supply="5000").json()["limits"] == FULL | {"max_supply": "5000"}
    assert limit(client, max_amount=7, max_balance=None).json()["limits"] == {"max_amount": "7"}
    assert client.get("/v1/assets").json()["data"][0]["limits"] == {"max_amount": "7"}
    assert client.patch(ASSET, json={"limits": None}).json()["limits"] is None
    limit(client, max_amount="7")
    assert client.patch(ASSET, json={"limits": {}}).json()["limits"] is None


def test_status_and_limits_leave_each_other_alone(client: httpx2.Client) -> None:
    limit(client, max_amount="7")
    frozen = client.post(f"{ASSET}/freeze").json()
    assert (frozen["status"], frozen["limits"]) == ("frozen", {"max_amount": "7"})
    assert limit(client, max_amount="8").json()["status"] == "frozen"


def test_a_wallets_limits_stand_before_the_assets_member_by_member(client: httpx2.Client, bank: Bank) -> None:
    bank.open_wallet("alice")
    limit(client, **FULL, max_supply="5000")
    expected: dict[str, Any] = {
        "object": "limits",
        "wallet": "alice",
        "asset": GOLD,
        "own": None,
        "in_force": FULL | {"max_supply": "5000"},
    }
    assert client.get(ALICE).json() == expected
    own = {"max_amount": "7", "velocity": {"window_s": 1, "max_count": 1}}
    expected |= {"own": own, "in_force": expected["in_force"] | own}
    assert client.put(ALICE, json=own).json() == expected
    assert client.get(ALICE).json() == expected
    assert client.put(ALICE, json={"max_balance": 3}).json()["own"] == {"max_balance": "3"}
    for _ in range(2):
        assert client.delete(ALICE).json()["own"] is None
    reasons = [(c["asset"], c["before"], c["after"]) for c in client.get("/v1/wallets/alice/changes").json()["data"]]
    assert reasons == [(GOLD, {"max_balance": "3"}, None), (GOLD, own, {"max_balance": "3"}), (GOLD, None, own)]


def test_a_limit_opens_an_account_at_zero_and_holds_for_the_first_credit(client: httpx2.Client, bank: Bank) -> None:
    bank.open_wallet("alice")
    assert client.put(ALICE, json={"max_balance": "10"}).is_success
    assert bank.account("alice") == {"posted": 0, "held": 0, "version": 0}
    assert [bank.top_up("alice", 11).code, bank.top_up("alice", 10).code] == ["balance_limit_exceeded", "applied"]
    assert bank.top_up("bob", 11).code == "applied"
    bank.assert_books_balance()


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "pointer"),
    [
        ({"max_amount": "-1"}, "/max_amount"),
        ({"max_amount": 1.5}, "/max_amount"),
        ({"max_amount": True}, "/max_amount"),
        ({"max_amount": "1_000"}, "/max_amount"),
        ({"max_balance": LIMIT_AMOUNT_MAX + 1}, "/max_balance"),
        ({"max_balance": str(LIMIT_AMOUNT_MAX + 1)}, "/max_balance"),
        ({"velocity": {"max_amount": "1"}}, "/velocity/window_s"),
        ({"velocity": {"window_s": 60}}, "/velocity"),
        ({"velocity": {"window_s": 0, "max_count": 1}}, "/velocity/window_s"),
        ({"velocity": {"window_s": WINDOW_MAX_S + 1, "max_count": 1}}, "/velocity/window_s"),
        ({"velocity": {"window_s": 60, "max_count": -1}}, "/velocity/max_count"),
        ({"velocity": {"window_s": 60, "max_count": 2**31}}, "/velocity/max_count"),
        ({"velocity": {"window_s": 60, "max_count": "1"}}, "/velocity/max_count"),
        ({"balance_low_below": "-1"}, "/balance_low_below"),
        ({"min_balance": "1"}, "/min_balance"),
    ],
)
def test_limits_that_cannot_be(client: httpx2.Client, bank: Bank, limits: dict[str, object], pointer: str) -> None:
    bank.open_wallet("alice")
    answer = client.put(ALICE, json=limits)
    assert code(answer) == "422 validation_failed"
    assert answer.json()["errors"][0]["pointer"] == pointer
    answer = client.patch(ASSET, json={"limits": limits})
    assert code(answer) == "422 validation_failed"
    assert answer.json()["errors"][0]["pointer"] == f"/limits{pointer}"
    assert client.get(ALICE).json()["in_force"] is None
    assert client.get("/v1/wallets/alice").json()["accounts"] == []


def test_a_patch_that_asks_for_nothing(client: httpx2.Client) -> None:
    assert code(client.patch(ASSET, json={})) == "422 validation_failed"
    assert code(client.patch(ASSET, json={"reason": "none"})) == "422 validation_failed"
    assert code(client.patch(ASSET, json={"status": None})) == "422 validation_failed"


def test_a_maximum_supply_is_an_assets_only(client: httpx2.Client, bank: Bank) -> None:
    bank.open_wallet("alice")
    assert client.put(ALICE, json={"max_supply": "1"}).json()["errors"][0]["pointer"] == "/max_supply"


def test_limits_of_what_is_not_there(client: httpx2.Client, bank: Bank) -> None:
    for method, body in (("GET", None), ("PUT", {}), ("DELETE", None)):
        for wallet in ("nobody", "@treasury", "a%00"):
            answer = client.request(method, f"/v1/wallets/{wallet}/limits/{GOLD}", json=body)
            assert code(answer) == "404 wallet_not_found"
    bank.open_wallet("alice")
    for asset in ("nothing", "NOTHING"):
        assert code(client.put(f"/v1/wallets/alice/limits/{asset}", json={})) == "404 asset_not_found"
        assert code(client.get(f"/v1/wallets/alice/limits/{asset}")) == "404 asset_not_found"
    bank.close_wallet("alice")
    assert code(client.put(ALICE, json={"max_amount": "1"})) == "409 wallet_closed"


# --- sharp ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("PATCH", ASSET, {"limits": {"max_amount": "5"}}), ("PUT", ALICE, {"max_amount": "5"})],
)
def test_a_limit_waits_for_the_drain_under_way_and_holds_from_then_on(
    client: httpx2.Client, bank: Bank, method: str, path: str, body: object
) -> None:
    bank.top_up("alice", 100)
    seq = bank.order("spend", "alice", 6)
    with bank.another_drain() as drain, ThreadPoolExecutor(1) as thread:
        drain.claim()
        drain.apply()
        limiting = thread.submit(client.request, method, path, json=body)
        assert eventually_waits(bank)
        assert not limiting.done()
        drain.commit()
        assert limiting.result().is_success
    assert bank.outcome(seq).code == "applied"
    assert [bank.spend("alice", 6).code, bank.spend("alice", 5).code] == ["amount_limit_exceeded", "applied"]


def test_a_limit_that_meets_the_first_credit_holds_for_the_second(client: httpx2.Client, bank: Bank) -> None:
    """Both open the account, one of them waits for the other."""
    bank.open_wallet("alice")
    bank.order("top_up", "alice", 6)
    with bank.another_drain() as drain, ThreadPoolExecutor(1) as thread:
        drain.claim()
        drain.apply()
        limiting = thread.submit(client.put, ALICE, json={"max_balance": "10"})
        assert eventually_waits(bank)
        drain.commit()
        assert limiting.result().is_success
    assert [bank.top_up("alice", 6).code, bank.top_up("alice", 4).code] == ["balance_limit_exceeded", "applied"]


# --- the supply ----------------------------------------------------------------------------------------------------


def shares(bank: Bank) -> list[int]:
    query = """
        SELECT headroom FROM supply_shares JOIN assets ON id = asset_id WHERE tenant_id = %s AND code = %s
        ORDER BY partition
    """
    return [headroom for (headroom,) in bank.rows(query, bank.tenant, GOLD)]


def test_a_maximum_supply_is_shared_out_evenly(client: httpx2.Client, bank: Bank) -> None:
    for wallet in ("alice", "bob", "carol"):
        bank.top_up(wallet, 100)
    bank.bonus("alice", 10)
    bank.spend("bob", 7)
    limit(client, max_supply="1000")
    assert shares(bank) == [88] + [87] * 7  # 1000 - (310 - 7) = 697
    limit(client, max_supply="1000", max_amount="999")  # set again: the same, from what circulates now
    assert sum(shares(bank)) == 697
    limit(client, max_amount="999")
    assert shares(bank) == []


def test_a_maximum_below_what_circulates_refuses_until_it_has_fallen(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 100)
    limit(client, max_supply="91")
    assert shares(bank) == [-1, -1, -1, -1, -1, -1, -1, -2]
    assert len(shares(bank)) == len(ALL)
    assert bank.top_up("bob", 1).code == "supply_limit_exceeded"
    bank.spend("alice", 10)
    assert [bank.top_up("bob", 2).code, bank.top_up("bob", 1).code] == ["supply_limit_exceeded", "applied"]
    bank.assert_books_balance()
