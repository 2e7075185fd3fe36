"""Two hands on one register at once: the later one sees what the earlier one did, and what is so already waits for
nobody."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger import closing, db, keys, registers
from ledger.inbox import PARTITION_LOCKS
from ledger.limits import Limits
from tests.books import GOLD, Bank
from tests.ledger.races import Started, wait_for_a_waiter

Change = Callable[[Bank, AsyncConnection], Awaitable[object]]
LIMITS = Limits(max_amount=5)
CHANGES: dict[str, Change] = {
    "a wallet's status": lambda bank, to: registers.set_wallet_status(to, bank.tenant, "alice", "frozen", by=bank.by),
    "an asset's status": lambda bank, to: registers.set_asset_status(to, bank.tenant, GOLD, "frozen", by=bank.by),
    "an asset's limits": lambda bank, to: registers.set_asset_limits(to, bank.tenant, GOLD, LIMITS, by=bank.by),
    "a wallet's limits": lambda bank, to: registers.set_wallet_limits(
        to, bank.tenant, "alice", GOLD, LIMITS, by=bank.by
    ),
}
every_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


def do(bank: Bank, change: Change) -> object:
    """On a connection and in a loop of its own, so that two can be under way."""

    async def changed() -> object:
        engine = db.async_engine(bank.url, application="test-race")
        try:
            async with engine.begin() as connection:
                return await change(bank, connection)
        finally:
            await engine.dispose()

    return asyncio.run(changed())


def close(bank: Bank) -> bool:
    with psycopg.connect(bank.url, autocommit=True) as connection:
        return closing.close(connection, bank.tenant, "alice", sweep_to=None, by=bank.by)


def stop_everybody(bank: Bank, hand: psycopg.Connection) -> None:
    """Partitions and accounts: nobody gets on until this hand's transaction ends."""
    hand.execute("SELECT count(pg_advisory_xact_lock(%s, partition)) FROM partitions", (PARTITION_LOCKS,))
    hand.execute("SELECT a.id FROM accounts a JOIN wallets w ON w.id = a.wallet_id WHERE w.code = 'alice' FOR UPDATE")


@every_change
def test_the_same_change_twice_at_once_is_noted_once(bank: Bank, change: Change) -> None:
    bank.top_up("alice", 1)
    with psycopg.connect(bank.url) as hand:
        stop_everybody(bank, hand)
        with Started(lambda: do(bank, change)) as one, Started(lambda: do(bank, change)) as two:
            wait_for_a_waiter(bank, 2)
            hand.rollback()
            one.result()
            two.result()
    assert bank.one("SELECT count(*) FROM changes WHERE tenant_id = %s", bank.tenant) == 1


@every_change
def test_what_is_so_already_waits_for_no_drain(bank: Bank, change: Change) -> None:
    bank.top_up("alice", 1)
    do(bank, change)
    with psycopg.connect(bank.url) as hand:
        stop_everybody(bank, hand)
        do(bank, change)
    assert bank.one("SELECT count(*) FROM changes WHERE tenant_id = %s", bank.tenant) == 1


def test_a_wallet_that_is_closed_already_waits_for_no_drain(bank: Bank) -> None:
    bank.open_wallet("alice")
    assert close(bank)
    with psycopg.connect(bank.url) as hand:
        stop_everybody(bank, hand)
        assert not close(bank)


def test_a_freeze_that_waited_for_a_close_leaves_the_wallet_closed(bank: Bank) -> None:
    bank.open_wallet("alice")
    with psycopg.connect(bank.url) as hand:
        stop_everybody(bank, hand)
        with Started(lambda: close(bank)) as closed:
            wait_for_a_waiter(bank)
            with Started(lambda: do(bank, CHANGES["a wallet's status"])) as frozen:
                wait_for_a_waiter(bank, 2)
                hand.rollback()
                assert closed.result()
                with pytest.raises(registers.WalletClosed):
                    frozen.result()
    assert bank.one("SELECT status FROM wallets WHERE tenant_id = %s AND code = 'alice'", bank.tenant) == "closed"


def test_a_key_that_is_being_revoked_has_no_successor(bank: Bank) -> None:
    engine = db.engine(bank.url, application="test-keys")
    tenant = bank.one("SELECT code FROM tenants WHERE id = %s", bank.tenant)
    keys.create_key(engine, env="test", client="a game", scopes=[keys.Scope.ADMIN], tenant=tenant)
    ours = bank.one("SELECT max(id) FROM api_keys")
    with psycopg.connect(bank.url) as hand:
        hand.execute("UPDATE api_keys SET revoked_at = now() WHERE id = %s", (ours,))
        with Started(lambda: keys.rotate_key(engine, ours, overlap=timedelta(hours=1))) as rotating:
            wait_for_a_waiter(bank)
            hand.commit()
            with pytest.raises(LookupError):
                rotating.result()
    engine.dispose()
    assert bank.one("SELECT max(id) FROM api_keys") == ours
