"""A change of a register changes that one row, not its like: another tenant's, another asset's, another account's."""

from collections.abc import Iterator

import pytest

from tests.books import GOLD, Bank


@pytest.fixture
def other(bank: Bank) -> Iterator[Bank]:
    """Another tenant with the same names."""
    opened = Bank(bank.url)
    yield opened
    opened.close()


def test_a_wallet_is_frozen_in_its_own_tenant(bank: Bank, other: Bank) -> None:
    for each in (bank, other):
        each.top_up("alice", 10)
    bank.freeze("alice")
    assert (bank.spend("alice", 1).code, other.spend("alice", 1).code) == ("wallet_frozen", "applied")


def test_a_maximum_supply_counts_and_shares_out_its_own_asset(bank: Bank) -> None:
    bank.open_asset("gems")
    bank.top_up("alice", 70)
    bank.top_up("alice", 20, asset="gems")
    bank.limit_asset("gems", max_supply=100)
    bank.limit_asset(GOLD, max_supply=100)
    assert bank.top_up("alice", 81, asset="gems").code == "supply_limit_exceeded"
    assert bank.top_up("alice", 80, asset="gems").code == "applied"
    assert bank.top_up("alice", 31).code == "supply_limit_exceeded"
    assert bank.top_up("alice", 30).code == "applied"


def test_maximum_supplies_in_one_batch_are_kept_apart(bank: Bank, other: Bank) -> None:
    bank.open_asset("gems")
    bank.limit_asset("gems", max_supply=100)
    for each in (bank, other):
        each.limit_asset(GOLD, max_supply=100)
    seqs = [
        bank.order("top_up", "alice", 101, asset="gems"), bank.order("top_up", "alice", 101),
        other.order("top_up", "alice", 101), bank.order("top_up", "alice", 100, asset="gems"),
        bank.order("top_up", "alice", 100), other.order("top_up", "alice", 100),
    ]  # fmt: skip
    bank.drain()
    assert bank.codes(seqs) == ["supply_limit_exceeded"] * 3 + ["applied"] * 3


def test_a_bonus_counts_towards_the_supply(bank: Bank) -> None:
    bank.limit_asset(GOLD, max_supply=100)
    assert bank.bonus("alice", 60).code == "applied"
    assert bank.bonus("alice", 41).code == "supply_limit_exceeded"
    assert bank.top_up("alice", 41).code == "supply_limit_exceeded"
    assert bank.bonus("alice", 40).code == "applied"


def test_a_wallets_limits_are_of_one_account(bank: Bank) -> None:
    bank.open_asset("gems")
    for wallet in ("alice", "bob"):
        bank.top_up(wallet, 10)
    bank.top_up("alice", 10, asset="gems")
    bank.limit_wallet("alice", max_amount=1)
    assert bank.spend("alice", 2).code == "amount_limit_exceeded"
    assert bank.spend("bob", 2).code == "applied"
    assert bank.spend("alice", 2, asset="gems").code == "applied"
