"""In which order locks are taken: whoever waits for one holds none behind it, so that no circle can form."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import LiteralString

import psycopg
import pytest

from ledger import closing, inbox
from ledger.inbox import PARTITION_LOCKS
from tests.books import ALL, PARTITIONS, Bank
from tests.ledger.races import Started, wait_for_a_waiter

SHARE_LOCK: LiteralString = """
    SELECT partition FROM supply_shares s JOIN assets a ON a.id = s.asset_id
    WHERE a.tenant_id = %s AND a.code = 'gold' AND partition = ANY(%s) ORDER BY partition FOR UPDATE OF s SKIP LOCKED
"""
HEAD_LOCK: LiteralString = """
    SELECT partition FROM chain_heads WHERE partition = ANY(%s) ORDER BY partition FOR UPDATE SKIP LOCKED
"""


@contextmanager
def a_hand(bank: Bank) -> Generator[psycopg.Connection]:
    """A transaction of somebody else's, who gives up in the end."""
    with psycopg.connect(bank.url) as connection:
        yield connection
        connection.rollback()


def free_partitions(bank: Bank) -> list[int]:
    return [p for p in ALL if bank.one("SELECT pg_try_advisory_xact_lock(%s, %s)", PARTITION_LOCKS, p)]


def close(bank: Bank) -> None:
    with psycopg.connect(bank.url, autocommit=True) as connection:
        closing.close(connection, bank.tenant, "alice", sweep_to=None, by=bank.by)


@pytest.mark.parametrize(
    "change",
    [
        lambda bank: bank.freeze("alice"),
        lambda bank: bank.freeze_asset(),
        lambda bank: bank.limit_asset(max_supply=1),
        close,
    ],
    ids=["a wallet's status", "an asset's status", "an asset's limits", "a close"],
)
def test_whoever_stops_all_drains_does_it_from_the_first_partition_on(
    bank: Bank, change: Callable[[Bank], object]
) -> None:
    bank.open_wallet("alice")
    with a_hand(bank) as hand:
        hand.execute("SELECT pg_advisory_xact_lock(%s, 3)", (PARTITION_LOCKS,))
        with Started(lambda: change(bank)) as changing:
            wait_for_a_waiter(bank)
            free = free_partitions(bank)
            hand.rollback()
            changing.result()
    assert free == [4, 5, 6, 7]


def test_whoever_looks_for_a_poison_waits_for_the_partitions_in_order(bank: Bank) -> None:
    for partition in (5, 2, 3):
        bank.order("top_up", bank.wallet_in(partition), 1)
    with bank.another_drain() as drain, a_hand(bank) as hand:
        drain.claim()
        commands = drain.commands
        drain.rollback()
        hand.execute("SELECT pg_advisory_xact_lock(%s, 3)", (PARTITION_LOCKS,))
        with Started(lambda: inbox.reclaim(drain.connection, commands)) as reclaiming:
            wait_for_a_waiter(bank)
            free = free_partitions(bank)
            hand.rollback()
            reclaiming.result()
    assert free == [0, 1, 4, 5, 6, 7]


def test_a_drain_goes_on_from_the_ends_of_its_chains_in_order(bank: Bank) -> None:
    for partition in (5, 2, 3):
        bank.order("top_up", bank.wallet_in(partition), 1)
    with bank.another_drain() as drain, a_hand(bank) as hand:
        drain.claim()
        hand.execute(HEAD_LOCK, ([3],))
        with Started(drain.apply) as applying:
            wait_for_a_waiter(bank)
            free = bank.rows(HEAD_LOCK, [2, 5])
            hand.rollback()
            applying.result()
    assert free == [(5,)]


def test_a_drain_that_is_short_of_supply_takes_all_shares_in_order(bank: Bank) -> None:
    bank.limit_asset(max_supply=10 * PARTITIONS)
    bank.order("top_up", bank.wallet_in(2), 15)
    with bank.another_drain() as drain, a_hand(bank) as hand:
        drain.claim()
        hand.execute(SHARE_LOCK, (bank.tenant, [3]))
        with Started(drain.apply) as applying:
            wait_for_a_waiter(bank)
            free = bank.rows(SHARE_LOCK, bank.tenant, [*ALL])
            hand.rollback()
            applying.result()
    assert free == [(4,), (5,), (6,), (7,)]


def test_a_drain_that_is_short_of_supply_waits_for_what_another_one_issues(bank: Bank) -> None:
    bank.limit_asset(max_supply=10 * PARTITIONS)
    bank.order("top_up", bank.wallet_in(2), 10)
    seq = bank.order("top_up", bank.wallet_in(5), 71)
    with bank.another_drain() as first, bank.another_drain() as second:
        first.claim([2])
        first.apply()
        second.claim([5])
        with Started(second.apply) as applying:
            wait_for_a_waiter(bank)
            first.commit()
            applying.result()
        second.commit()
    assert bank.outcome(seq).code == "supply_limit_exceeded"
    bank.assert_settled()


def test_drains_that_have_no_account_in_common_wait_for_nothing(bank: Bank) -> None:
    """They share the wallets of the system, which are only read, and each has its own shards of their accounts."""
    bank.limit_asset(max_supply=10 * PARTITIONS)
    ours, theirs = bank.wallet_in(2), bank.wallet_in(5)
    for wallet in (ours, theirs):
        bank.top_up(wallet, 5)
    seqs = [bank.order(kind, wallet, 1) for kind in ("top_up", "spend") for wallet in (ours, theirs)]
    with bank.another_drain() as first, bank.another_drain() as second:
        for drain, partition in ((first, 2), (second, 5)):
            drain.connection.execute("SET lock_timeout = '500ms'")
            drain.connection.commit()
            drain.claim([partition])
            drain.apply()
        first.commit()
        second.commit()
    assert bank.codes(seqs) == ["applied"] * 4
    bank.assert_settled()


def opened_meanwhile(bank: Bank, statement: LiteralString, names: list[str]) -> list[str]:
    """While a drain that opens all of these waits for the middle one: which of them are still anybody's to open."""
    left: list[str] = []
    for name in reversed(names):
        bank.order("top_up", name, 1)
    with bank.another_drain() as drain, a_hand(bank) as hand:
        drain.claim()
        hand.execute(statement, {"tenant": bank.tenant, "name": names[1]})
        with Started(drain.apply) as applying:
            wait_for_a_waiter(bank)
            for name in (names[0], names[2]):
                with a_hand(bank) as another:
                    another.execute("SET LOCAL lock_timeout = '50ms'")
                    try:
                        another.execute(statement, {"tenant": bank.tenant, "name": name})
                        left.append(name)
                    except psycopg.errors.LockNotAvailable:
                        pass
            hand.rollback()
            applying.result()
    return left


def test_new_wallets_are_opened_by_name(bank: Bank) -> None:
    statement: LiteralString = "INSERT INTO wallets (tenant_id, code) VALUES (%(tenant)s, %(name)s)"
    assert opened_meanwhile(bank, statement, ["anna", "bert", "carl"]) == ["carl"]


def test_new_accounts_are_opened_by_name(bank: Bank) -> None:
    for wallet in ("bert", "carl", "anna"):
        bank.open_wallet(wallet)
    statement: LiteralString = """
        INSERT INTO accounts (wallet_id, asset_id) SELECT w.id, a.id FROM wallets w JOIN assets a USING (tenant_id)
        WHERE w.tenant_id = %(tenant)s AND w.code = %(name)s
    """
    assert opened_meanwhile(bank, statement, ["anna", "bert", "carl"]) == ["carl"]
