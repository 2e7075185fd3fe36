"""Assets, their supply, and transfers over HTTP."""

from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from ledger.commands import SYSTEM_WALLETS
from tests.api.serving import code
from tests.api.test_wallets import pages
from tests.books import GOLD, PARTITIONS, Bank


def test_create_once_and_find_again(client: httpx2.Client) -> None:
    asked = {"code": "gold_coins", "name": "Gold coins", "scale": 2}
    created = client.post("/v1/assets", json=asked)
    assert created.status_code == 201
    fresh = {"object": "asset", "status": "active", "limits": None, "created_at": ""}
    assert created.json() | {"created_at": ""} == asked | fresh
    again = client.post("/v1/assets", json=asked)
    assert (again.status_code, again.json()) == (200, created.json())


@pytest.mark.parametrize("other", [{"name": "Gold"}, {"scale": 3}])
def test_another_asset_under_the_same_code_is_a_conflict(client: httpx2.Client, other: dict[str, object]) -> None:
    asked: dict[str, object] = {"code": "gold_coins", "name": "Gold coins", "scale": 2}
    client.post("/v1/assets", json=asked)
    assert code(client.post("/v1/assets", json=asked | other)) == "409 asset_exists"


def test_it_may_be_made_with_limits_which_are_compared_where_they_are_given(client: httpx2.Client) -> None:
    asked: dict[str, object] = {"code": "gold_coins", "name": "Gold coins"}
    limits = {"max_supply": "500", "balance_low_below": "50"}
    created = client.post("/v1/assets", json=asked | {"limits": limits})
    assert (created.status_code, created.json()["limits"]) == (201, limits)
    (supply,) = (each for each in client.get("/v1/supply").json()["data"] if each["asset"] == "gold_coins")
    assert supply["headroom"] == "500"
    for again in (asked, asked | {"limits": limits}):
        answer = client.post("/v1/assets", json=again)
        assert (answer.status_code, answer.json()) == (200, created.json())
    for other in ({}, {"max_supply": "500"}):
        assert code(client.post("/v1/assets", json=asked | {"limits": other})) == "409 asset_exists"
    assert client.post("/v1/assets", json={"code": "points", "name": "Points", "limits": {}}).json()["limits"] is None


def test_twenty_at_once_make_one_asset(client: httpx2.Client, bank: Bank) -> None:
    with ThreadPoolExecutor(10) as threads:
        answers = list(
            threads.map(lambda _: client.post("/v1/assets", json={"code": "points", "name": "Points"}), range(20))
        )
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert bank.top_up("alice", 5, asset="points").code == "applied"


def test_a_new_asset_has_an_account_in_every_system_wallet_and_partition(client: httpx2.Client, bank: Bank) -> None:
    client.post("/v1/assets", json={"code": "points", "name": "Points"})
    found = bank.rows(
        """SELECT w.code, count(*), bool_and(a.allow_negative) FROM accounts a JOIN wallets w ON w.id = a.wallet_id
           JOIN assets s ON s.id = a.asset_id WHERE s.tenant_id = %s AND s.code = 'points' GROUP BY 1 ORDER BY 1""",
        bank.tenant,
    )
    assert found == [(wallet, PARTITIONS, True) for wallet in sorted(SYSTEM_WALLETS)]


@pytest.mark.parametrize("how", ["action", "patch"])
def test_freeze_and_unfreeze(client: httpx2.Client, bank: Bank, how: str) -> None:
    bank.top_up("alice", 100)

    def set_status(status: str) -> httpx2.Response:
        if how == "patch":
            return client.patch(f"/v1/assets/{GOLD}", json={"status": status})
        return client.post(f"/v1/assets/{GOLD}/{'freeze' if status == 'frozen' else 'unfreeze'}")

    assert set_status("frozen").json()["status"] == "frozen"
    assert bank.spend("alice", 1).code == "asset_frozen"
    assert set_status("active").json()["status"] == "active"
    assert bank.spend("alice", 1).code == "applied"


@pytest.mark.parametrize("name", ["nothing", "NOT-A-CODE", "a%00", "a%0A"])
def test_an_asset_that_is_not_there(client: httpx2.Client, name: str) -> None:
    assert code(client.patch(f"/v1/assets/{name}", json={"status": "frozen"})) == "404 asset_not_found"
    assert code(client.post(f"/v1/assets/{name}/freeze")) == "404 asset_not_found"
    assert code(client.post(f"/v1/assets/{name}/unfreeze")) == "404 asset_not_found"


def test_assets_are_listed_by_code(client: httpx2.Client, bank: Bank) -> None:
    for name in ("zinc", "amber", "copper"):
        bank.open_asset(name)
    found = pages(client, "/v1/assets", 3)
    assert [[asset["code"] for asset in page] for page in found] == [["amber", "copper", GOLD], ["zinc"]]


def test_supply(client: httpx2.Client, bank: Bank) -> None:
    bank.open_asset("amber")
    for wallet in (f"w{n}" for n in range(10)):  # over several partitions, so over several shards
        bank.top_up(wallet, 100)
        bank.bonus(wallet, 10)
        bank.spend(wallet, 30)
    bank.transfer("w1", "w2", 5)  # stays in circulation
    rest = {"expired": "0", "exchanged": "0", "adjusted": "0", "max_supply": None, "headroom": None}
    assert client.get("/v1/supply").json()["data"] == [
        {"object": "supply", "asset": "amber", "issued": "0", "spent": "0", "in_circulation": "0", **rest},
        {"object": "supply", "asset": GOLD, "issued": "1100", "spent": "300", "in_circulation": "800", **rest},
    ]
    assert [len(page) for page in pages(client, "/v1/supply", 1)] == [1, 1]


def supply(client: httpx2.Client, asset: str) -> dict[str, str]:
    (found,) = (supply for supply in client.get("/v1/supply").json()["data"] if supply["asset"] == asset)
    return found


def test_the_supply_adds_up_whatever_was_done(client: httpx2.Client, bank: Bank) -> None:
    bank.open_asset("amber")
    bank.top_up("alice", 1_000)
    bank.bonus("bob", 100, credits_expire_at=bank.in_seconds(3600))
    bank.spend("alice", 300)
    bank.exchange("alice", 200, "amber", 20)
    bank.adjust("alice", 50)
    bank.adjust("alice", -8)
    bank.hold("alice", 5)
    bank.do("UPDATE lots SET expires_at = now() - interval '1 second'")
    bank.expire_due()
    client.patch(f"/v1/assets/{GOLD}", json={"limits": {"max_supply": "500"}})
    assert supply(client, GOLD) == {
        "object": "supply", "asset": GOLD, "issued": "1100", "spent": "300", "expired": "100", "exchanged": "200",
        "adjusted": "42", "in_circulation": "542", "max_supply": "500", "headroom": "-42",
    }  # fmt: skip
    assert (supply(client, "amber")["exchanged"], supply(client, "amber")["in_circulation"]) == ("-20", "20")
    in_wallets = """
        SELECT sum(posted) FROM accounts a JOIN wallets w ON w.id = a.wallet_id JOIN assets s ON s.id = a.asset_id
        WHERE w.tenant_id = %s AND s.code = %s AND NOT a.allow_negative
    """
    assert bank.one(in_wallets, bank.tenant, GOLD) == 542


# --- transfers -----------------------------------------------------------------------------------------------------


def test_a_transfer_with_both_its_entries(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 100)
    bank.spend("alice", 30, reference="order-99", metadata='{"item": "sword"}')
    (entry, _) = client.get("/v1/wallets/alice/entries").json()["data"]
    found = client.get(f"/v1/transfers/{entry['transfer']}").json()
    debit, credit = found["entries"]
    assert debit == entry
    assert (credit["wallet"], credit["direction"], credit["amount"]) == ("@revenue", "credit", "30")
    assert (credit["balance_after"], credit["version"]) == (None, None)  # a shard's mean nothing to a caller
    assert (found["type"], found["reference"], found["metadata"]) == ("spend", "order-99", {"item": "sword"})


def test_only_its_own_id_finds_a_transfer(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 100)
    (entry,) = client.get("/v1/wallets/alice/entries").json()["data"]
    good = entry["transfer"]
    another_time = f"{int(good[0], 16) ^ 1:x}{good[1:]}"  # the same row, said to be of another time
    for wrong in (entry["command"], another_time, good[:-1], "x", "f" * 32, "%00", good + "0"):
        assert code(client.get(f"/v1/transfers/{wrong}")) == "404 transfer_not_found"
    assert client.get(f"/v1/transfers/{good}").status_code == 200
