"""Frozen wallets and assets, expiry: what a drain reads beside balances, and when."""

import pytest

from ledger import registers
from ledger.inbox import Nothing
from tests.books import Bank
from tests.ledger.races import Started, wait_for_a_waiter


def test_a_frozen_wallet_neither_pays_nor_is_paid(bank: Bank) -> None:
    bank.top_up("alice", 100)
    bank.top_up("bob", 100)
    bank.freeze("alice")
    codes = [
        bank.spend("alice", 1).code,
        bank.top_up("alice", 1).code,
        bank.bonus("alice", 1).code,
        bank.transfer("alice", "bob", 1).code,
        bank.transfer("bob", "alice", 1).code,
    ]
    assert codes == ["wallet_frozen"] * 5
    assert bank.spend("bob", 1).status == "applied"
    bank.unfreeze("alice")
    assert bank.spend("alice", 1).status == "applied"
    bank.assert_settled()


def test_a_frozen_wallet_without_an_account_is_frozen_too(bank: Bank) -> None:
    """No account row, so nothing was locked: its status must be read all the same."""
    bank.open_wallet("newcomer")
    bank.freeze("newcomer")
    bank.top_up("alice", 5)
    assert bank.top_up("newcomer", 1).code == "wallet_frozen"
    assert bank.transfer("alice", "newcomer", 1).code == "wallet_frozen"
    assert bank.spend("newcomer", 1).code == "wallet_frozen"
    assert bank.account("newcomer") is None


def test_a_wallet_frozen_in_one_asset_is_frozen_in_all(bank: Bank) -> None:
    bank.open_asset("diamonds")
    bank.top_up("alice", 5)
    bank.freeze("alice")
    assert bank.top_up("alice", 5, asset="diamonds").code == "wallet_frozen"


def test_a_wallet_that_exists_without_credits_has_not_enough_rather_than_not_being(bank: Bank) -> None:
    bank.open_wallet("newcomer")
    refused = bank.spend("newcomer", 1)
    assert (refused.code, refused.detail) == ("insufficient_funds", "available 0, needed 1")
    assert bank.spend("nobody", 1).code == "wallet_not_found"


def test_a_closed_wallet_stays_closed(bank: Bank) -> None:
    bank.top_up("alice", 5)
    bank.close_wallet("alice")
    assert [bank.spend("alice", 1).code, bank.top_up("alice", 1).code] == ["wallet_closed"] * 2
    with pytest.raises(registers.WalletClosed):
        bank.unfreeze("alice")
    assert bank.spend("alice", 1).code == "wallet_closed"


def test_a_frozen_asset_does_not_move(bank: Bank) -> None:
    bank.open_asset("diamonds")
    bank.top_up("alice", 100)
    bank.freeze_asset()
    assert [bank.spend("alice", 1).code, bank.top_up("alice", 1).code] == ["asset_frozen"] * 2
    assert bank.top_up("alice", 1, asset="diamonds").status == "applied"
    bank.unfreeze_asset()
    assert bank.spend("alice", 1).status == "applied"
    bank.assert_settled()


def test_an_asset_that_nobody_created_is_not_found(bank: Bank) -> None:
    assert bank.top_up("alice", 1, asset="pebbles").code == "asset_not_found"
    bank.open_asset("pebbles")
    assert bank.top_up("alice", 1, asset="pebbles").status == "applied"


# --- a freeze is sharp -------------------------------------------------------------------------------------------


def test_a_freeze_waits_for_the_drain_under_way_and_holds_from_then_on(bank: Bank) -> None:
    bank.top_up("alice", 100)
    before = bank.order("spend", "alice", 1)
    with bank.another_drain() as drain:
        drain.claim()
        with Started(lambda: bank.freeze("alice")) as freezing:
            wait_for_a_waiter(bank)
            drain.apply()
            drain.commit()
            freezing.result()
    late = bank.order("spend", "alice", 1)
    bank.drain()
    assert bank.codes([before, late]) == ["applied", "wallet_frozen"]


def test_a_drain_that_comes_while_a_freeze_waits_or_works_leaves_the_commands_pending(bank: Bank) -> None:
    seq = bank.order("top_up", "alice", 1)
    with bank.another_drain() as register, bank.another_drain() as drain:
        every_partition = "SELECT count(pg_advisory_xact_lock(%s, partition)) FROM partitions"
        register.connection.execute(every_partition, (registers.PARTITION_LOCKS,))
        drain.claim()
        assert drain.claimed is Nothing.BUSY
    assert bank.pending() == [seq]
    bank.drain()
    assert bank.pending() == []


def test_an_expired_command_is_refused_by_the_databases_clock(bank: Bank) -> None:
    bank.top_up("alice", 100)
    late = bank.spend("alice", 1, expires_at=bank.in_seconds(-0.01))
    assert (late.status, late.code) == ("rejected", "expired")
    assert bank.spend("alice", 1, expires_at=bank.in_seconds(60)).status == "applied"
    assert bank.available("alice") == 99
    bank.assert_settled()


def test_a_command_that_expires_while_it_waits_is_refused(bank: Bank) -> None:
    bank.top_up("alice", 100)
    seq = bank.order("spend", "alice", 1, expires_at=bank.in_seconds(0.2))
    with bank.another_drain() as drain:
        drain.connection.execute("SELECT pg_sleep(0.25)")  # the drain's transaction is older than the expiry
        drain.claim()
        drain.apply()
        drain.commit()
    assert bank.outcome(seq).code == "expired"
