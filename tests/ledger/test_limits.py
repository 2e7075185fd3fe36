"""Limits, sharp within a batch and between drains; each with a refusal of its own."""

import json
from typing import Any

import pytest
from psycopg.errors import LockNotAvailable

from ledger import books
from ledger.errors import BooksMoved
from ledger.limits import Velocity
from tests.books import ALL, GOLD, PARTITIONS, Bank
from tests.ledger.races import Started, wait_for_a_waiter


def limit(bank: Bank, asset: str = GOLD, **limits: Any) -> None:
    """The asset's limits; of a maximum supply, the headroom lies in equal shares."""
    bank.do("UPDATE assets SET limits = %s WHERE tenant_id = %s AND code = %s", json.dumps(limits), bank.tenant, asset)
    if "max_supply" in limits:
        bank.do(
            """INSERT INTO supply_shares SELECT a.id, p.partition, %s FROM assets a, partitions p
               WHERE a.tenant_id = %s AND a.code = %s""",
            limits["max_supply"] // PARTITIONS, bank.tenant, asset,
        )  # fmt: skip


def limit_wallet(bank: Bank, wallet: str, asset: str = GOLD, **limits: Any) -> None:
    bank.do(
        """UPDATE accounts a SET limits = %s FROM wallets w, assets s
           WHERE w.id = a.wallet_id AND s.id = a.asset_id AND w.tenant_id = %s AND w.code = %s AND s.code = %s""",
        json.dumps(limits), bank.tenant, wallet, asset,
    )  # fmt: skip


def headroom(bank: Bank) -> int:
    query = "SELECT sum(headroom)::bigint FROM supply_shares s JOIN assets a ON a.id = s.asset_id WHERE tenant_id = %s"
    return bank.one(query, bank.tenant)


def circulation(bank: Bank, asset: str = GOLD) -> int:
    ours = ("@treasury", "@bonus", "@revenue", "@adjustment", "@exchange", "@expired")
    return -sum(bank.system(wallet, asset) for wallet in ours)


def decided(bank: Bank, *orders: tuple[Any, ...], **more: Any) -> list[str]:
    """What these come to in one drain: (kind, wallet, amount)."""
    seqs = [answer.seq for answer in bank.accept([bank.new(*each, **more) for each in orders])]
    bank.drain()
    return bank.codes(seqs)


# --- one command -----------------------------------------------------------------------------------------------------


def test_one_commands_amount(bank: Bank) -> None:
    limit(bank, max_amount=50)
    assert decided(bank, ("top_up", "alice", 51), ("top_up", "alice", 50)) == ["amount_limit_exceeded", "applied"]
    bank.open_asset("gems")
    assert bank.hold("alice", 51).code == "amount_limit_exceeded"
    assert bank.transfer("alice", "bob", 51).code == "amount_limit_exceeded"
    assert bank.exchange("alice", 51, "gems", 1).code == "amount_limit_exceeded"
    hold = bank.hold("alice", 50)
    assert bank.capture(hold).code == "applied"


def test_corrections_have_no_limits(bank: Bank) -> None:
    spent = [bank.top_up("alice", 100), bank.spend("alice", 60)][1]
    limit(bank, max_amount=5, max_balance=50, velocity={"window_s": 60, "max_count": 1})
    assert bank.adjust("alice", 70).code == "applied"
    assert bank.reverse(spent).code == "applied"
    assert bank.available("alice") == 170


# --- balances --------------------------------------------------------------------------------------------------------


def test_a_balance_within_one_batch(bank: Bank) -> None:
    limit(bank, max_balance=100)
    assert decided(
        bank, ("top_up", "alice", 60), ("bonus", "alice", 41), ("bonus", "alice", 40), ("top_up", "alice", 1)
    ) == ["applied", "balance_limit_exceeded", "applied", "balance_limit_exceeded"]
    bank.top_up("bob", 90)
    assert bank.transfer("bob", "alice", 1).code == "balance_limit_exceeded"
    assert bank.capture(bank.hold("bob", 5), to_wallet="alice").code == "balance_limit_exceeded"
    assert bank.spend("alice", 1).code == "applied"
    assert bank.transfer("bob", "alice", 1).code == "applied"


def test_a_wallets_own_limit_goes_before_the_assets_member_by_member(bank: Bank) -> None:
    limit(bank, max_balance=100, max_amount=80)
    bank.top_up("alice", 10)
    limit_wallet(bank, "alice", max_balance=500)
    assert bank.top_up("alice", 81).code == "amount_limit_exceeded"
    assert [bank.top_up("alice", 80).code, bank.top_up("alice", 80).code] == ["applied", "applied"]
    assert bank.top_up("bob", 80).code == "applied"
    assert bank.top_up("bob", 21).code == "balance_limit_exceeded"


def test_a_balance_between_drains_of_two_partitions(bank: Bank) -> None:
    """Two payers of different partitions, one receiver: the second drain waits, and counts what the first one paid."""
    payers = [bank.wallet_in(1), bank.wallet_in(2)]
    for payer in payers:
        bank.top_up(payer, 100)
    bank.top_up("bob", 50)
    limit(bank, max_balance=100)
    seqs = [bank.order("transfer", payer, 40, to_wallet="bob") for payer in payers]
    with bank.another_drain() as first:
        first.claim([1])
        first.apply()
        first.commit()
    bank.drain([2])
    assert bank.codes(seqs) == ["applied", "balance_limit_exceeded"]


# --- velocity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("velocity", "codes"),
    [
        ({"max_amount": 50}, ["applied", "applied", "velocity_limit_exceeded", "applied"]),
        ({"max_count": 2}, ["applied", "applied", "velocity_limit_exceeded", "velocity_limit_exceeded"]),
    ],
)
@pytest.mark.parametrize("drains", [1, 4])
def test_velocity_within_a_batch_and_between_drains(
    bank: Bank, velocity: dict[str, int], codes: list[str], drains: int
) -> None:
    bank.top_up("alice", 1_000)
    limit(bank, velocity={"window_s": 60, **velocity})
    seqs = [
        bank.order("spend", "alice", 20),
        bank.order("hold", "alice", 20, hold_expires_at=bank.in_seconds(60)),
        bank.order("transfer", "alice", 20, to_wallet="bob"),
        bank.order("spend", "alice", 10),
    ]
    for _ in range(drains):
        bank.drain(max_rows=4 // drains)
    assert bank.codes(seqs) == codes


def test_velocity_binds_a_wallet_that_its_batch_opens(bank: Bank) -> None:
    bank.limit_asset(velocity=Velocity(window_s=60, max_count=1))
    seqs = [bank.order("top_up", "newcomer", 100), *(bank.order("spend", "newcomer", 1) for _ in range(2))]
    bank.drain()
    assert bank.codes(seqs) == ["applied", "applied", "velocity_limit_exceeded"]


def test_a_wallets_own_velocity_binds_it_where_the_asset_has_none(bank: Bank) -> None:
    for wallet in ("alice", "bob"):
        bank.top_up(wallet, 100)
    bank.limit_wallet("alice", velocity=Velocity(window_s=60, max_count=1))
    assert [bank.spend("alice", 1).code for _ in range(2)] == ["applied", "velocity_limit_exceeded"]
    assert [bank.spend("bob", 1).code for _ in range(2)] == ["applied", "applied"]


def test_windows_are_read_of_players_alone(bank: Bank) -> None:
    """A system wallet has as many entries as all of them together, and no limit binds it."""
    bank.top_up("alice", 100)
    bank.limit_asset(velocity=Velocity(window_s=60, max_count=1))
    bank.order("spend", "alice", 1)
    with bank.another_drain() as drain:
        drain.claim()
        locked = books.lock(drain.connection, drain.commands, bank.in_seconds(0))
        assert {wallet for _, wallet, _, _ in locked.accounts} == {"alice", "@revenue"}
        assert [wallet for _, wallet, _, _ in locked.windows] == ["alice"]
    bank.drain()


def test_what_an_exchange_brings_is_no_debit(bank: Bank) -> None:
    bank.open_asset("diamonds")
    bank.top_up("alice", 100)
    bank.top_up("alice", 1, asset="diamonds")
    bank.limit_asset("diamonds", velocity=Velocity(window_s=60, max_count=1))
    assert bank.exchange("alice", 100, "diamonds", 10).code == "applied"
    codes = [bank.spend("alice", 1, asset="diamonds").code for _ in range(2)]
    assert codes == ["applied", "velocity_limit_exceeded"]


def test_a_maximum_balance_binds_players_and_not_us(bank: Bank) -> None:
    alice, bob = bank.wallets_in(3, 2)
    for wallet in (alice, bob):
        bank.top_up(wallet, 100)
    bank.limit_asset(max_balance=100)
    held = bank.hold(bob, 100)
    assert [bank.spend(alice, 100).code, bank.capture(held).code] == ["applied", "applied"]
    bank.assert_settled()


def test_the_window_slides(bank: Bank) -> None:
    bank.top_up("alice", 1_000)
    limit(bank, velocity={"window_s": 60, "max_amount": 50})
    assert bank.spend("alice", 50).code == "applied"
    assert bank.spend("alice", 1).code == "velocity_limit_exceeded"
    bank.do("ALTER TABLE entries DISABLE TRIGGER append_only")
    bank.do("UPDATE entries SET at = at - interval '60 seconds' WHERE amount <> 0")
    bank.do("ALTER TABLE entries ENABLE TRIGGER append_only")
    assert bank.spend("alice", 50).code == "applied"


def test_only_ones_own_debits_count(bank: Bank) -> None:
    bank.top_up("alice", 1_000)
    bank.top_up("bob", 1_000)
    limit(bank, velocity={"window_s": 60, "max_amount": 50})
    bank.transfer("bob", "alice", 50)
    spent = bank.spend("alice", 30)
    bank.reverse(spent)  # what came back has been debited all the same
    bank.adjust("alice", -100)
    assert bank.spend("alice", 21).code == "velocity_limit_exceeded"
    assert bank.spend("alice", 20).code == "applied"


# --- supply ----------------------------------------------------------------------------------------------------------


def test_a_supply_is_sharp_within_one_batch_and_over_all_partitions(bank: Bank) -> None:
    limit(bank, max_supply=80)
    wallets = [bank.wallet_in(partition) for partition in ALL]
    seqs = [bank.order("top_up", wallet, 15) for wallet in wallets]  # each share has 10
    bank.drain()
    assert sorted(bank.codes(seqs)) == ["applied"] * 5 + ["supply_limit_exceeded"] * 3
    assert (circulation(bank), headroom(bank)) == (75, 5)
    assert bank.top_up(wallets[-1], 6).code == "supply_limit_exceeded"
    assert bank.top_up(wallets[-1], 5).code == "applied"
    assert (circulation(bank), headroom(bank)) == (80, 0)


def test_what_comes_back_may_be_issued_again(bank: Bank) -> None:
    limit(bank, max_supply=80)
    alice, bob = bank.wallet_in(1), bank.wallet_in(2)
    spent = [bank.top_up(alice, 80), bank.spend(alice, 30)][1]
    assert bank.top_up(bob, 31).code == "supply_limit_exceeded"
    assert bank.top_up(bob, 30).code == "applied"
    assert bank.reverse(spent).code == "applied"  # a correction passes the cap
    assert (circulation(bank), headroom(bank)) == (110, -30)
    assert bank.bonus(bob, 1).code == "supply_limit_exceeded"


def test_an_exchange_issues_one_asset_and_gives_back_another(bank: Bank) -> None:
    bank.open_asset("gems")
    limit(bank, "gems", max_supply=80)
    bank.top_up("alice", 1_000)
    done = bank.exchange("alice", 100, "gems", 80)
    assert done.code == "applied"
    assert bank.exchange("alice", 1, "gems", 1).code == "supply_limit_exceeded"
    assert bank.reverse(done, 50).code == "applied"
    assert (circulation(bank, "gems"), headroom(bank)) == (40, 40)
    assert bank.exchange("alice", 1, "gems", 40).code == "applied"


def test_a_supply_is_sharp_between_drains_of_all_partitions(bank: Bank) -> None:
    """A drain that took the last share must be seen by one that looked before."""
    limit(bank, max_supply=80)
    one, other = bank.wallet_in(1), bank.wallet_in(2)
    first_seq, second_seq = bank.order("top_up", one, 75), bank.order("top_up", other, 10)
    with bank.another_drain() as first, bank.another_drain() as second:
        second.claim([2])
        first.claim([1])
        first.apply()  # holds all shares: 75 is more than its own
        first.commit()
        second.apply()  # the share that had 10 is down to a part of the 5 that are left
        second.commit()
    assert bank.codes([first_seq, second_seq]) == ["applied", "supply_limit_exceeded"]
    assert (circulation(bank), headroom(bank)) == (75, 5)


def test_a_share_is_another_drains_no_more_once_it_was_read(bank: Bank) -> None:
    limit(bank, max_supply=80)
    bank.order("top_up", bank.wallet_in(1), 75)
    bank.order("top_up", bank.wallet_in(2), 10)
    with bank.another_drain() as first, bank.another_drain() as second:
        second.claim([2])
        books.lock(second.connection, second.commands, bank.in_seconds(0))
        first.connection.execute("SET lock_timeout = '20ms'")
        first.connection.commit()
        first.claim([1])
        with pytest.raises(LockNotAvailable):
            first.apply()


def test_a_share_that_was_emptied_while_its_drain_waited_is_made_up_from_the_others(bank: Bank) -> None:
    """It was enough when the drain looked, and is not when the drain has it: there is enough all the same."""
    limit(bank, max_supply=80)
    seqs = [bank.order("top_up", bank.wallet_in(1), 75), bank.order("top_up", bank.wallet_in(2), 5)]
    with bank.another_drain() as first, bank.another_drain() as second:
        first.claim([1])
        first.apply()
        second.claim([2])
        with Started(second.apply) as applying:
            wait_for_a_waiter(bank)
            first.commit()
            with pytest.raises(BooksMoved):
                applying.result()
        second.rollback()
    bank.drain()
    assert bank.codes(seqs) == ["applied", "applied"]
    assert (circulation(bank), headroom(bank)) == (80, 0)


def test_one_batch_may_issue_more_than_a_share_by_and_by(bank: Bank) -> None:
    limit(bank, max_supply=80)
    alice, bob = bank.wallets_in(3, 2)
    assert decided(bank, ("top_up", alice, 6), ("top_up", bob, 6)) == ["applied", "applied"]  # a share has 10
    assert (circulation(bank), headroom(bank)) == (12, 68)
