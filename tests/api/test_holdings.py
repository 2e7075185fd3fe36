"""What a wallet has, in detail: its lots, its limits in force, its holds; and wallets found by their metadata."""

import json
from typing import Any

import httpx2
import pytest
from sqlalchemy import Engine, text

from ledger import holdings, reads
from tests.api.serving import code
from tests.api.test_wallets import account
from tests.books import GOLD, Bank


def linked(client: httpx2.Client, path: str, **query: str) -> list[list[dict[str, Any]]]:
    """Every page, each asked for as the one before it says."""
    answer = client.get(path, params={**query, "limit": "2"})
    found = [answer.json()["data"]]
    while "next" in answer.links:
        answer = client.get(answer.links["next"]["url"])
        found.append(answer.json()["data"])
    assert all(len(page) == 2 for page in found[:-1])
    return found


# --- lots ----------------------------------------------------------------------------------------------------------


def test_lots_stand_in_the_order_of_spending(client: httpx2.Client, bank: Bank) -> None:
    soon, late = bank.in_seconds(3600), bank.in_seconds(7200)
    bank.top_up("alice", 1)
    bank.top_up("alice", 2, priority=50)
    bank.top_up("alice", 3, credits_expire_at=late)
    bank.top_up("alice", 4, credits_expire_at=soon)
    bank.bonus("alice", 5, credits_expire_at=soon)
    bank.bonus("alice", 6, priority=0)
    shown = account(client, "alice")["lots"]
    assert [(lot["remaining"], lot["source"], lot["priority"]) for lot in shown] == [
        ("6", "promotional", 0),
        ("5", "promotional", 50),
        ("4", "purchased", 50),
        ("3", "purchased", 50),
        ("2", "purchased", 50),
    ]
    spent = bank.spend("alice", 20)
    assert [part["lot"] for part in (spent.result or {})["lots"]] == [lot["id"] for lot in shown]
    assert account(client, "alice")["lots"] == []
    assert account(client, "alice")["posted"] == "1"
    bank.bonus("alice", 7)
    bank.bonus("alice", 8, priority=1)
    assert [lot["remaining"] for lot in account(client, "alice")["lots"]] == ["8"]


def test_a_lot_says_what_is_held_of_it(client: httpx2.Client, bank: Bank) -> None:
    ends = bank.in_seconds(3600)
    bank.bonus("alice", 10, credits_expire_at=ends)
    bank.hold("alice", 4)
    bank.spend("alice", 1)
    found = account(client, "alice")
    (lot,) = found["lots"]
    assert (lot["remaining"], lot["held"], lot["available"]) == ("9", "4", "5")
    assert (found["posted"], found["held"], found["available"]) == ("9", "4", "5")
    assert lot["id"].endswith(".1")
    assert lot["expires_at"] == ends.isoformat().replace("+00:00", "Z")


def test_a_lot_past_its_time_is_not_available_before_it_leaves(client: httpx2.Client, bank: Bank) -> None:
    """Of what is past its time, the held part is no one's to spend anyway. Another wallet's lots are its own."""
    bank.bonus("bob", 3, credits_expire_at=bank.in_seconds(3600))
    bank.top_up("alice", 100)
    bank.bonus("alice", 10, credits_expire_at=bank.in_seconds(3600))
    bank.hold("alice", 4)
    bank.do("UPDATE lots SET expires_at = now() - interval '1 second'")
    for found in (account(client, "alice"), client.get("/v1/wallets").json()["data"][0]["accounts"][0]):
        assert (found["posted"], found["held"], found["available"]) == ("110", "4", "100")
    (lot,) = account(client, "alice")["lots"]
    assert (lot["remaining"], lot["available"]) == ("10", "0")
    bank.expire_due()
    assert account(client, "alice")["available"] == "100"
    assert account(client, "alice")["posted"] == "104"


def test_lots_and_limits_are_for_a_wallet_that_is_read_alone(client: httpx2.Client, bank: Bank) -> None:
    bank.bonus("alice", 10, priority=1)
    bank.limit_asset(max_amount=100, max_balance=50)
    bank.limit_wallet("alice", max_amount=7)
    assert account(client, "alice")["limits"] == {"max_amount": "7", "max_balance": "50"}
    (listed,) = client.get("/v1/wallets").json()["data"][0]["accounts"]
    assert not {"lots", "limits"} & listed.keys()


# --- holds ---------------------------------------------------------------------------------------------------------


def newest_hold(client: httpx2.Client) -> str:
    """Its id."""
    return client.get("/v1/wallets/alice/holds").json()["data"][0]["id"]


def test_a_hold_from_its_placing_to_its_end(client: httpx2.Client, bank: Bank) -> None:
    ends = bank.in_seconds(3600)
    bank.top_up("alice", 100)
    hold = bank.hold("alice", 30, hold_expires_at=ends, reference="bet-1", metadata='{"match": 7}')
    id = newest_hold(client)
    assert client.get(f"/v1/commands/{id}").json()["outcome"]["hold"]["id"] == id
    expected: dict[str, Any] = {
        "id": id, "object": "hold", "wallet": "alice", "asset": GOLD, "status": "open", "amount": "30",
        "remaining": "30", "captured": "0", "expires_at": ends.isoformat().replace("+00:00", "Z"), "ended_at": None,
        "reference": "bet-1", "metadata": {"match": 7},
    }  # fmt: skip
    assert client.get(f"/v1/holds/{id}").json() == expected
    bank.capture(hold, 10, final=False)
    assert client.get(f"/v1/holds/{id}").json() == expected | {"remaining": "20", "captured": "10"}
    bank.release(hold)
    ended = client.get(f"/v1/holds/{id}").json()
    assert ended | {"ended_at": None} == expected | {"status": "released", "remaining": "0", "captured": "10"}
    assert ended["ended_at"]
    assert client.get("/v1/wallets/alice/holds").json()["data"] == [ended]
    assert client.get("/v1/wallets/alice/holds?status=open").json()["data"] == []


def test_holds_of_all_assets_are_one_list_newest_first(client: httpx2.Client, bank: Bank) -> None:
    bank.open_asset("amber")
    placed: list[tuple[str, int]] = []
    for n in range(1, 8):
        asset = (GOLD, "amber")[n % 2]
        bank.top_up("alice", n, asset=asset)
        hold = bank.hold("alice", n, asset=asset)
        placed.insert(0, (asset, n))
        if n % 3 == 0:
            bank.release(hold)
    for query, expected in ({}, placed), ({"status": "open"}, [(asset, n) for asset, n in placed if n % 3]):
        found = [hold for page in linked(client, "/v1/wallets/alice/holds", **query) for hold in page]
        assert [(hold["asset"], int(hold["amount"])) for hold in found] == expected


def test_no_more_holds_are_read_than_asked_for(bank: Bank) -> None:
    bank.open_asset("amber")
    for asset in (GOLD, "amber"):
        bank.top_up("alice", 3, asset=asset)
        for _ in range(3):
            bank.hold("alice", 1, asset=asset)
    found = bank._register(lambda to: holdings.holds(to, bank.tenant, "alice", open_only=False, before=None, limit=2))
    assert [hold.asset for hold in found] == ["amber", "amber"]


def test_a_wallet_of_another_tenant_has_holds_of_its_own(client: httpx2.Client, bank: Bank) -> None:
    other = Bank(bank.url)
    try:
        for amount, each in ((1, bank), (2, other)):
            each.top_up("alice", 10)
            each.hold("alice", amount)
        assert [hold["amount"] for hold in client.get("/v1/wallets/alice/holds").json()["data"]] == ["1"]
    finally:
        other.close()


def test_open_holds_are_found_among_many_that_ended(bank: Bank, engine: Engine) -> None:
    bank.top_up("alice", 10)
    bank.hold("alice", 1)
    bank.do("""
        INSERT INTO holds (seq, account_id, status, amount, remaining, expires_at)
        SELECT 1000000 + n, account_id, 'released', 1, 0, expires_at
        FROM (SELECT * FROM holds ORDER BY seq DESC LIMIT 1) h CROSS JOIN generate_series(1, 5000) n
    """)
    bank.do("ANALYZE holds")
    which = {"tenant_id": bank.tenant, "code": "alice", "before": 2**62, "limit": 51}
    with engine.connect() as connection:
        plan = connection.scalar(text(f"EXPLAIN (FORMAT JSON) {holdings._OPEN.text}"), which)
    assert "ix_holds_open" in str(plan)


def test_only_a_hold_that_was_placed_is_one(client: httpx2.Client, bank: Bank) -> None:
    bank.top_up("alice", 10)
    bank.hold("alice", 11)
    bank.hold("alice", 1)
    good = newest_hold(client)
    (entry, *_) = client.get("/v1/wallets/alice/entries?type=top_up").json()["data"]
    another_time = f"{int(good[0], 16) ^ 1:x}{good[1:]}"
    for wrong in (entry["command"], entry["transfer"], another_time, good[:-1], "x", "%00", "f" * 32):
        assert code(client.get(f"/v1/holds/{wrong}")) == "404 hold_not_found"
    assert client.get(f"/v1/holds/{good}").status_code == 200
    for wallet in ("nobody", "@treasury", "a%00"):
        assert code(client.get(f"/v1/wallets/{wallet}/holds")) == "404 wallet_not_found"
    assert code(client.get("/v1/wallets/alice/holds?status=closed")) == "422 validation_failed"


# --- metadata ------------------------------------------------------------------------------------------------------


@pytest.fixture
def guilds(client: httpx2.Client, bank: Bank) -> None:
    for n in range(9):
        metadata = {"guild": ("red", "blue")[n % 2], "level": {"pvp": n // 3}, "tags": ["a", str(n)]}
        client.put(f"/v1/wallets/w{n}", json={"metadata": metadata})
    bank.open_wallet("plain")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"guild": "red"}, "02468"),
        ({"guild": "red", "level": {"pvp": 1}}, "4"),
        ({"tags": ["a"]}, "012345678"),
        ({"tags": ["7", "a"]}, "7"),
        ({"guild": "green"}, ""),
        ({"guild": None}, ""),
        ({"level": 1}, ""),
    ],
)
@pytest.mark.usefixtures("guilds")
def test_wallets_are_found_by_what_their_metadata_contain(client: httpx2.Client, wanted: object, found: str) -> None:
    shown = linked(client, "/v1/wallets", metadata=json.dumps(wanted))
    assert [wallet["id"] for page in shown for wallet in page] == [f"w{n}" for n in found]


@pytest.mark.usefixtures("guilds")
def test_an_empty_object_is_in_all_of_them(client: httpx2.Client) -> None:
    assert len(client.get("/v1/wallets", params={"metadata": "{}"}).json()["data"]) == 10


@pytest.mark.parametrize(
    "text", ["", "red", "[]", '"red"', "null", "{", '{"a":NaN}', '{"a":1,"a":2}', '{"a":"\\u0000"}', '{"a":"\\ud800"}',
             '{"a":1e400}', '{"a":1e30}', "{" * 5_000, f'{{"a":"{"x" * 4_096}"}}']
)  # fmt: skip
def test_metadata_that_cannot_be_looked_for(client: httpx2.Client, text: str) -> None:
    answer = client.get("/v1/wallets", params={"metadata": text})
    assert code(answer) == "422 validation_failed"
    assert answer.json()["errors"][0]["pointer"] == "/query/metadata"


def test_metadata_are_looked_up_in_their_index(bank: Bank, engine: Engine) -> None:
    bank.do(
        """INSERT INTO wallets (tenant_id, code, metadata)
           SELECT %s, 'w' || n, CASE WHEN n %% 10 = 0 THEN jsonb_build_object('guild', n) ELSE '{}' END
           FROM generate_series(1, 20000) n""",
        bank.tenant,
    )
    bank.do("ANALYZE wallets")
    which = {"tenant_id": bank.tenant, "after": "", "limit": 51, "partitions": [0], "debits": ["spend"]}
    with engine.connect() as connection:
        explained = text(f"EXPLAIN (FORMAT JSON) {reads._WALLET_PAGE_WITH.text}")
        plan = connection.scalar(explained, {**which, "metadata": '{"guild": 70}'})
    assert "ix_wallets_metadata" in str(plan)
