"""`wallet.balance_low`: told once for each outcome that takes a wallet from its threshold, or above, to below it."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import psycopg
import pytest
from sqlalchemy import Engine

from ledger import closing, db, deliveries
from ledger.events import BALANCE_LOW
from ledger.ids import command_id
from tests.books import GOLD, Bank, Outcome
from tests.ledger.listening import listen
from tests.ledger.tampering import broken, by_hand
from tests.ledger.tampering import engine as engine

LOW = [BALANCE_LOW]


@pytest.fixture
def watched(own_bank: Bank) -> Bank:
    """Below 50 of gold is low."""
    own_bank.limit_asset(balance_low_below=50)
    return own_bank


def told(bank: Bank, endpoint: int) -> list[tuple[str, str, str, str]]:
    """(wallet, available, threshold, command) of what the endpoint is owed, in order."""
    rows = bank.rows(
        "SELECT v.data::text FROM deliveries d JOIN events v USING (seq)"
        " WHERE d.endpoint_id = %s AND v.type = %s ORDER BY seq",
        endpoint, BALANCE_LOW,
    )  # fmt: skip
    shown = [msgspec.json.decode(data) for (data,) in rows]
    return [(each["wallet"], each["available"], each["below"], each["command"]) for each in shown]


def wallets_told(bank: Bank, endpoint: int) -> list[tuple[str, str]]:
    return [(wallet, available) for wallet, available, _, _ in told(bank, endpoint)]


def id_of(bank: Bank, outcome: Outcome) -> str:
    return command_id(outcome.seq, bank.one("SELECT accepted_at FROM commands WHERE seq = %s", outcome.seq))


def test_each_crossing_is_told_once(watched: Bank, engine: Engine) -> None:
    bank = watched
    endpoint = listen(bank, event_types=LOW)
    bank.top_up("alice", 100)
    bank.spend("alice", 50)  # it stands at the threshold
    crossing = bank.spend("alice", 1)
    bank.spend("alice", 9)  # it is low already
    bank.spend("alice", 1_000)  # refused
    bank.top_up("alice", 10)
    again = bank.spend("alice", 20)
    assert told(bank, endpoint) == [
        ("alice", "49", "50", id_of(bank, crossing)),
        ("alice", "30", "50", id_of(bank, again)),
    ]
    (data,) = bank.rows("SELECT data FROM events ORDER BY seq LIMIT 1")[0]
    left = {"posted": "49", "held": "0", "available": "49", "version": 3}
    shown = {"object": "balance_low", "wallet": "alice", "asset": GOLD, "below": "50", "command": id_of(bank, crossing)}
    assert data == shown | left
    assert broken(engine) == {}


def test_crossings_within_one_drain_are_told_each(watched: Bank) -> None:
    bank = watched
    endpoint = listen(bank)
    for kind, amount in (("top_up", 60), ("spend", 20), ("top_up", 20), ("spend", 30), ("spend", 1)):
        bank.order(kind, "alice", amount)
    bank.drain()
    assert wallets_told(bank, endpoint) == [("alice", "40"), ("alice", "30")]


def test_what_is_held_is_not_available_and_what_comes_back_is(watched: Bank) -> None:
    bank = watched
    endpoint = listen(bank, event_types=LOW)
    bank.top_up("alice", 60)
    hold = bank.hold("alice", 20, hold_expires_at=bank.in_seconds(60))
    bank.capture(hold, 5)  # of what was not available, and the rest comes back
    bank.spend("alice", 10)
    assert wallets_told(bank, endpoint) == [("alice", "40"), ("alice", "45")]


def test_a_wallets_own_threshold_stands_before_the_assets(watched: Bank) -> None:
    bank = watched
    endpoint = listen(bank, event_types=LOW)
    for wallet in ("alice", "bob"):
        bank.top_up(wallet, 100)
    bank.limit_wallet("alice", balance_low_below=90)
    bank.limit_wallet("bob", max_amount=1_000)  # another limit: the asset's threshold stands
    for wallet in ("alice", "bob"):
        bank.spend(wallet, 20)
    assert wallets_told(bank, endpoint) == [("alice", "80")]
    bank.spend("bob", 40)
    assert wallets_told(bank, endpoint) == [("alice", "80"), ("bob", "40")]


def test_who_wants_it_is_told(watched: Bank) -> None:
    bank = watched
    all_of_it, outcomes = listen(bank), listen(bank, event_types=["command.applied"])
    hers, his = listen(bank, event_types=LOW, wallets=["alice"]), listen(bank, event_types=LOW, wallets=["bob"])
    ordered = listen(bank, event_types=LOW, ordering="per_wallet")
    bank.top_up("alice", 50)
    bank.transfer("alice", "bob", 10)
    assert [len(told(bank, each)) for each in (all_of_it, outcomes, hers, his, ordered)] == [1, 0, 1, 0, 1]


def test_without_anybody_who_wants_it_nothing_is_written(watched: Bank) -> None:
    bank = watched
    listen(bank, event_types=["command.applied"])
    bank.top_up("alice", 50)
    bank.spend("alice", 1)
    assert bank.rows("SELECT FROM events") == []


def test_a_group_that_is_refused_tells_nothing_and_one_that_is_applied_once(watched: Bank) -> None:
    bank = watched
    endpoint = listen(bank, event_types=LOW)
    bank.top_up("alice", 60)
    bank.group([bank.new("spend", "alice", 20), bank.new("spend", "alice", 1_000)])
    assert told(bank, endpoint) == []
    bank.group([bank.new("spend", "alice", 20), bank.new("spend", "alice", 5)])
    assert wallets_told(bank, endpoint) == [("alice", "40")]


def test_a_close_that_sweeps_tells(watched: Bank, engine: Engine) -> None:
    bank = watched
    endpoint = listen(bank, event_types=LOW)
    bank.top_up("alice", 60)
    bank.open_wallet("bob")
    with psycopg.connect(bank.url, autocommit=True) as connection:
        closing.close(connection, bank.tenant, "alice", sweep_to="bob", by=bank.by)
    assert wallets_told(bank, endpoint) == [("alice", "0")]
    assert broken(engine) == {}


def test_a_drain_that_rolls_back_tells_nothing_and_the_next_one_tells_once(watched: Bank) -> None:
    bank = watched
    endpoint = listen(bank, event_types=LOW)
    bank.top_up("alice", 60)
    bank.order("spend", "alice", 20)
    with bank.another_drain() as drain:
        drain.claim()
        drain.apply()
        drain.rollback()
    assert told(bank, endpoint) == []
    bank.drain()
    assert len(told(bank, endpoint)) == 1


# The audit: each is bent by hand once


@pytest.fixture
def fallen(watched: Bank) -> Bank:
    listen(watched, event_types=LOW)
    watched.top_up("alice", 60)
    watched.spend("alice", 20)
    return watched


def test_7_a_fall_that_nobody_was_told_of(fallen: Bank, engine: Engine) -> None:
    fallen.do("DELETE FROM events")
    fallen.do("DELETE FROM deliveries")
    assert broken(engine) == {7: [f"version 2 of alice/{GOLD} fell low, and it was not told"]}
    fallen.do("UPDATE webhook_endpoints SET event_types = '{command.failed}'")
    assert broken(engine) == {}, "nobody wants it"
    fallen.do("UPDATE webhook_endpoints SET event_types = NULL, wallets = '{bob}'")
    assert broken(engine) == {}, "it is alice's"


def test_7_a_fall_from_before_the_threshold_is_none(own_bank: Bank, engine: Engine) -> None:
    listen(own_bank, event_types=LOW)
    own_bank.top_up("alice", 60)
    own_bank.spend("alice", 20)
    own_bank.limit_asset(balance_low_below=50)
    own_bank.spend("alice", 1)
    assert own_bank.rows("SELECT FROM events") == []
    assert broken(engine) == {}


@pytest.mark.parametrize("how", ["twice", "of another version", "of another threshold"])
def test_7_an_event_of_no_fall(fallen: Bank, engine: Engine, how: str) -> None:
    by_hand(fallen)
    change: dict[str, dict[str, Any]] = {
        "twice": {},
        "of another version": {"version": 1},
        "of another threshold": {"below": "70"},
    }
    (data,) = fallen.rows("SELECT data FROM events")[0]
    fallen.do(
        "INSERT INTO events (tenant_id, type, at, data, outcome_seq)"
        " SELECT tenant_id, type, at, %s::json, outcome_seq FROM events",
        msgspec.json.encode(data | change[how]).decode(),
    )
    fallen.do(
        "INSERT INTO deliveries (endpoint_id, seq, due_at, at)"
        " SELECT endpoint_id, (SELECT max(seq) FROM events), due_at, at FROM deliveries"
    )
    version = change[how].get("version", 2)
    assert broken(engine) == {7: [f"version {version} of alice/{GOLD} did not fall low, or is told twice"]}


def test_what_is_purged_is_owed_no_longer(fallen: Bank, engine: Engine) -> None:
    fallen.do("UPDATE deliveries SET status = 'exhausted', due_at = NULL, attempts = 0")
    later = fallen.in_seconds(0) + timedelta(days=100)

    async def purge() -> None:
        async with await db.connect_async(fallen.url, application="test-purge") as connection:
            await deliveries.purge(connection, later, retention=timedelta(days=90), most=1_000, after={})

    asyncio.run(purge())
    assert fallen.rows("SELECT FROM deliveries UNION ALL SELECT FROM events") == []
    assert broken(engine) == {}
