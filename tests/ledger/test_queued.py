"""What a wallet's pending commands will take is told with its balance, while they wait."""

import pytest

from ledger import inbox, reads
from tests.books import GOLD, PARTITIONS, Bank


def queued(bank: Bank, wallet: str, asset: str = GOLD) -> int:
    """As told of the wallet alone and in the list of all."""
    found = bank._register(lambda to: reads.wallet(to, bank.tenant, wallet, partition=bank.partition(wallet)))
    listed = bank._register(lambda to: reads.wallets(to, bank.tenant, after="", limit=99, partitions=PARTITIONS))
    assert found is not None
    (alone, among) = (
        {account.asset: account.queued for account in shown.accounts}
        for shown in (found, *(other for other in listed if other.id == wallet))
    )
    assert alone == among
    return alone.get(asset, 0)


def test_what_debits_or_reserves_is_queued_and_what_credits_or_settles_is_not(bank: Bank) -> None:
    bank.top_up("alice", 100)
    for kind, amount in (("spend", 1), ("hold", 2), ("exchange", 4), ("adjust", -8)):
        bank.order(kind, "alice", amount)
    bank.order("transfer", "alice", 16, to_wallet="bob")
    for kind, amount in (("top_up", 1_000), ("bonus", 1_000), ("adjust", 1_000), ("capture", 1_000)):
        bank.order(kind, "alice", amount)
    assert queued(bank, "alice") == 31


def test_every_command_of_a_group_is_queued(bank: Bank) -> None:
    bank.open_asset("diamonds")
    bank.top_up("alice", 100)
    group = [
        bank.new("spend", "alice", 30),
        bank.new("spend", "alice", 2, asset="diamonds"),
        bank.new("spend", "alice", 5),
        bank.new("top_up", "alice", 50),
    ]
    bank._loop.run(inbox.accept_group(bank._intake, group))
    bank.order("spend", "alice", 1)
    assert (queued(bank, "alice"), queued(bank, "alice", "diamonds")) == (36, 2)


@pytest.mark.parametrize(
    ("kind", "credited", "asked", "taken"),
    [
        ("top_up", 30, 10, 10),
        ("bonus", 30, None, 30),  # all that is left
        ("adjust", 30, None, 30),
        ("top_up", 30, 99, 30),  # never more than that
        ("adjust", -30, None, 0),  # gives back
        ("spend", 30, None, 0),
    ],
)
def test_a_reversal_of_a_credit_is_a_debit(bank: Bank, kind: str, credited: int, asked: int | None, taken: int) -> None:
    bank.top_up("alice", 100)
    seq = bank.order(kind, "alice", credited)
    bank.drain()
    bank.order("reverse", "alice", asked or 0, ref_seq=seq)
    assert queued(bank, "alice") == taken


def test_of_a_credit_reversed_in_part_only_the_rest_is_queued(bank: Bank) -> None:
    seq = bank.top_up("alice", 30).seq
    bank.order("reverse", "alice", 10, ref_seq=seq)
    bank.drain()
    assert queued(bank, "alice") == 0
    bank.order("reverse", "alice", 0, ref_seq=seq)
    assert queued(bank, "alice") == 20
