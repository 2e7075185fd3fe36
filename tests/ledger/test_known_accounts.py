"""A drain's connection remembers the ids of accounts: which is faster, and may never be wrong or grow without end."""

from typing import Any

import pytest

from ledger import books
from ledger.errors import BooksMoved
from tests.books import GOLD, Bank


def known(bank: Bank) -> set[str]:
    return {wallet for _, wallet, _, _ in books._accounts_known.get(bank.drains, {})}


def test_an_account_is_looked_up_once_and_an_opened_one_when_it_is_met_again(bank: Bank) -> None:
    bank.top_up("alice", 10)
    assert known(bank) == {"@treasury"}
    bank.spend("alice", 1)
    assert {"alice", "@treasury", "@revenue"} <= known(bank)

    bank.spend("alice", 2)
    assert bank.available("alice") == 7


def test_an_account_that_was_never_committed_is_forgotten_and_the_batch_drained_again(bank: Bank) -> None:
    """As it would be if the database were put back to an earlier state under a connection that lives on."""
    bank.top_up("bob", 10)
    bank.spend("bob", 1)
    books._accounts_known[bank.drains][bank.tenant, "bob", GOLD, 0] = 2**40

    assert bank.spend("bob", 4).code == "applied"
    assert bank.available("bob") == 5


def test_a_wallet_that_is_opened_meanwhile_is_not_seen_without_its_account(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the search for the account, which finds none, and that for the wallet, another drain commits both."""
    receiver = bank.wallet_in(1)
    spend = bank.order("spend", receiver, 1)
    find = books._find

    def find_and_then(connection: Any, keys: Any) -> Any:
        found = find(connection, keys)
        monkeypatch.undo()
        with bank.another_drain() as opening:
            bank.order("top_up", receiver, 10, partition=2)
            opening.claim([2])
            opening.apply_and_commit()
        return found

    with bank.another_drain() as drain:
        assert drain.claim([1]) == [spend]
        monkeypatch.setattr(books, "_find", find_and_then)
        with pytest.raises(BooksMoved):
            drain.apply()
    bank.drain()
    assert bank.codes([spend]) == ["applied"]


def test_what_is_remembered_has_a_bound(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "ACCOUNTS_KNOWN_MAX", 3)
    for wallet in ("a", "b", "c", "d", "e", "f"):
        bank.top_up(wallet, 10)
        bank.spend(wallet, 1)

    assert len(books._accounts_known[bank.drains]) <= 3 + 2  # and the accounts of one batch
    assert [bank.available(wallet) for wallet in "abcdef"] == [9] * 6


def test_what_is_forgotten_for_the_bound_is_looked_up_in_the_same_batch(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An account of the wallet that was known, beside one that was not."""
    bank.open_asset("diamonds")
    bank.top_up("alice", 10)
    bank.spend("alice", 1)
    bank.top_up("alice", 10, asset="diamonds")
    monkeypatch.setattr(books, "ACCOUNTS_KNOWN_MAX", 1)
    seqs = [bank.order("spend", "alice", 1), bank.order("spend", "alice", 1, asset="diamonds")]
    bank.drain()
    assert bank.codes(seqs) == ["applied", "applied"]
    assert (bank.available("alice"), bank.available("alice", "diamonds")) == (8, 9)


def test_each_connection_remembers_for_itself_and_it_is_gone_with_the_connection(bank: Bank) -> None:
    bank.top_up("carol", 10)
    before = len(books._accounts_known)
    bank.order("spend", "carol", 1)
    with bank.another_drain() as second:
        second.claim()
        second.apply_and_commit()
        assert len(books._accounts_known) == before + 1
    del second

    assert len(books._accounts_known) == before
