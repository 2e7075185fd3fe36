"""Claiming: in acceptance order, one drain at a time per partition, and nothing lost by whoever gives up."""

import time

import psycopg
import pytest

from ledger import inbox
from ledger.commands import Spend, Unknown
from ledger.errors import BrokenInvariant
from ledger.inbox import PARTITION_LOCKS, Claim, Nothing
from tests.books import ALL, Bank
from tests.ledger.tampering import by_hand


def locks_held(bank: Bank, connection: psycopg.Connection) -> set[int]:
    """The partitions that this connection holds."""
    query = "SELECT objid::int FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND pid = %s AND granted"
    return {partition for (partition,) in bank.rows(query, PARTITION_LOCKS, connection.info.backend_pid)}


def test_commands_are_claimed_in_acceptance_order(bank: Bank) -> None:
    seqs = [bank.order("top_up", f"w{n * 5 % 13}", 1) for n in range(30)]
    with bank.another_drain() as drain:
        assert drain.claim() == seqs


def test_a_claim_takes_no_more_than_it_was_told_and_the_oldest_first(bank: Bank) -> None:
    wallet = bank.wallet_in(3)
    seqs = [bank.order("top_up", wallet, 1) for _ in range(7)]
    assert [bank.drain(max_rows=3) for _ in range(4)] == [seqs[:3], seqs[3:6], seqs[6:], []]


def test_a_claim_over_many_partitions_takes_no_more_than_it_was_told(bank: Bank) -> None:
    seqs = [bank.order("top_up", bank.wallet_in(n % 3), 1) for n in range(12)]
    first, second = bank.drain(max_rows=6), bank.drain(max_rows=6)
    assert (len(first), len(second)) == (6, 6)
    assert sorted(first + second) == seqs


def test_groups_are_claimed_whole_and_the_last_one_alone_may_go_beyond_what_was_told(bank: Bank) -> None:
    for _ in range(3):
        bank.accept_group([bank.new("top_up", "alice", amount) for amount in (1, 2, 3)])
    with bank.another_drain() as drain:
        assert len(drain.claim(max_rows=3)) == 3
        drain.rollback()
        assert len(drain.claim(max_rows=4)) == 6
        drain.rollback()


def test_a_small_claim_serves_the_partitions_in_the_order_they_are_given_and_looks_no_further(bank: Bank) -> None:
    six, two, four = bank.wallet_in(6), bank.wallet_in(2), bank.wallet_in(4)
    seqs = [bank.order("top_up", wallet, 1) for wallet in (six, two, four, six, two)]
    with bank.another_drain() as drain:
        assert drain.claim([0, 2, 4, 6], max_rows=1) == [seqs[1]]
        assert locks_held(bank, drain.connection) == {2}
        with bank.another_drain() as second:
            assert second.claim([2, 6, 4], max_rows=2) == [seqs[0], seqs[3]], "two is taken, four is not needed"
            assert locks_held(bank, second.connection) == {6}


def test_a_partition_that_another_drain_holds_is_passed_over(bank: Bank) -> None:
    one, five = bank.wallet_in(1), bank.wallet_in(5)
    first = bank.order("top_up", one, 1)
    with bank.another_drain() as holder:
        assert holder.claim() == [first]
        late, free = bank.order("top_up", one, 1), bank.order("top_up", five, 1)
        assert bank.drain() == [free]
        assert bank.pending() == [first, late], "the holder's are pending until it commits"
        holder.apply()
        holder.commit()
    assert bank.drain() == [late]
    bank.assert_settled()


def test_only_the_partitions_asked_for_are_served(bank: Bank) -> None:
    wallets = [bank.wallet_in(partition) for partition in ALL]
    seqs = [bank.order("top_up", wallet, 1) for wallet in wallets]
    assert bank.drain([2, 5]) == [seqs[2], seqs[5]]
    assert bank.drain([2, 5]) == []
    assert len(bank.drain()) == 6


def test_a_look_that_finds_nothing_takes_no_lock(bank: Bank) -> None:
    with bank.another_drain() as drain:
        drain.claim()
        assert drain.claimed is Nothing.IDLE
        assert locks_held(bank, drain.connection) == set()


def test_a_look_at_what_another_drain_holds_takes_no_lock_and_tells_it_from_nothing(bank: Bank) -> None:
    bank.order("top_up", bank.wallet_in(1), 1)
    with bank.another_drain() as holder, bank.another_drain() as second:
        holder.claim()
        second.claim()
        assert second.claimed is Nothing.BUSY
        assert locks_held(bank, second.connection) == set()


def test_a_lock_is_held_until_the_drain_ends_and_no_longer(bank: Bank) -> None:
    bank.order("top_up", bank.wallet_in(3), 1)
    with bank.another_drain() as drain:
        drain.claim()
        drain.apply()
        assert locks_held(bank, drain.connection) == {3}
        drain.commit()
        assert locks_held(bank, drain.connection) == set()


def test_a_drain_that_gives_up_puts_everything_back(bank: Bank) -> None:
    seqs = [bank.order("top_up", "alice", 1) for _ in range(3)]
    with bank.another_drain() as drain:
        drain.claim()
        drain.apply()
        drain.rollback()
    assert bank.pending() == seqs
    assert bank.account("alice") is None
    assert bank.drain() == seqs
    bank.assert_settled()


def test_a_drain_whose_connection_dies_puts_everything_back(bank: Bank) -> None:
    seqs = [bank.order("top_up", "alice", 1) for _ in range(3)]
    with bank.another_drain() as drain:
        drain.claim()
        drain.apply()
        bank.rows("SELECT pg_terminate_backend(%s)", drain.connection.info.backend_pid)
        with pytest.raises(psycopg.OperationalError):
            drain.commit()
    assert bank.drain() == seqs
    bank.assert_settled()


def test_a_newer_command_is_claimed_by_whoever_looks_after_the_holder(bank: Bank) -> None:
    """The DELETE sees what was committed before it, not before the claim's first statement."""
    wallet = bank.wallet_in(0)
    bank.order("top_up", wallet, 1)
    with bank.another_drain() as holder:
        holder.claim()
        second = bank.order("top_up", wallet, 1)
        holder.apply()
        holder.commit()
        assert holder.claim() == [second]


def test_now_is_the_databases_clock_at_the_claim_not_at_its_transactions_start(bank: Bank) -> None:
    bank.order("top_up", "alice", 1)
    with bank.another_drain() as drain:
        row = drain.connection.execute("SELECT now()").fetchone()
        assert row is not None
        time.sleep(0.05)
        before = bank.in_seconds(0)
        drain.claim()
        assert isinstance(drain.claimed, Claim)
        assert row[0] < before <= drain.claimed.now <= bank.in_seconds(0)


def test_a_row_of_a_type_that_nobody_knows_is_unknown_not_something_else(bank: Bank) -> None:
    bank.order("spend", "alice", 7)
    bank.conjure("alice")
    with bank.another_drain() as drain:
        drain.claim()
        assert [type(command) for command in drain.commands] == [Spend, Unknown]


# --- reclaim, count_attempt, overdue -----------------------------------------------------------------------------


def test_reclaim_takes_just_these_and_only_what_is_still_pending(bank: Bank) -> None:
    seqs = [bank.order("top_up", f"w{n}", 1) for n in range(6)]
    with bank.another_drain() as drain:
        drain.claim()
        commands = drain.commands
        drain.rollback()
        bank.drain([commands[2].partition])
        gone = {command.seq for command in commands if command.partition == commands[2].partition}
        claim = inbox.reclaim(drain.connection, commands[:4])
        assert claim is not None
        assert [command.seq for command in claim.commands] == [seq for seq in seqs[:4] if seq not in gone]
        drain.rollback()
        assert inbox.reclaim(drain.connection, [commands[2]]) is None


def test_reclaim_waits_for_whoever_holds_the_partition(bank: Bank) -> None:
    bank.order("top_up", "alice", 1)
    with bank.another_drain() as patient:
        patient.claim()
        commands = patient.commands
        patient.rollback()
        bank.drains.execute("SELECT pg_advisory_xact_lock(%s, %s)", (PARTITION_LOCKS, bank.partition("alice")))
        patient.connection.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            inbox.reclaim(patient.connection, commands)
        bank.drains.rollback()


def test_a_queue_that_names_a_command_that_was_never_accepted_is_a_broken_invariant(bank: Bank) -> None:
    bank.do("INSERT INTO pending (partition, seq) VALUES (0, 9000000000)")
    with pytest.raises(BrokenInvariant, match="1 pending commands were claimed, 0 of them exist"):
        bank.drain()


def test_a_broken_drain_is_counted_on_the_command_that_broke_it(bank: Bank) -> None:
    seq, other = bank.order("top_up", "alice", 1), bank.order("top_up", "alice", 1)
    assert [inbox.count_attempt(bank.drains, seq) for _ in range(2)] == [1, 2]
    bank.drains.commit()
    assert (bank.attempts(seq), bank.attempts(other)) == (2, 0)


def test_a_broken_group_is_counted_on_its_row_whichever_of_its_commands_is_named(bank: Bank) -> None:
    group = bank.accept_group([bank.new("top_up", "alice", 1), bank.new("top_up", "alice", 2)])
    named = [answer.seq for answer in group if answer]
    assert [inbox.count_attempt(bank.drains, seq) for seq in named] == [1, 2]
    bank.drains.commit()
    assert bank.attempts(named[0]) == 2


def test_a_command_with_an_outcome_cannot_break_a_drain(bank: Bank) -> None:
    seq = bank.top_up("alice", 1).seq
    assert inbox.count_attempt(bank.drains, seq) == 0
    bank.drains.rollback()


def test_overdue_is_what_has_waited_longer_in_the_partitions_asked_for(bank: Bank) -> None:
    bank.order("top_up", bank.wallet_in(3), 1)
    time.sleep(0.05)
    asked = [([3], 0.04), ([3], 10.0), ([2], 0.04), (list(ALL), 0.04)]
    answers = [inbox.overdue(bank.drains, partitions, age_s=age_s) for partitions, age_s in asked]
    assert answers == [True, False, False, True]
    bank.drains.rollback()
    bank.drain()
    assert not inbox.overdue(bank.drains, ALL, age_s=0)
    bank.drains.rollback()


def test_a_partition_is_overdue_by_its_oldest_command(bank: Bank) -> None:
    waiting, _ = (bank.order("top_up", wallet, 1) for wallet in bank.wallets_in(3, 2))
    by_hand(bank)
    bank.do("UPDATE commands SET accepted_at = accepted_at - interval '1 minute' WHERE seq = %s", waiting)
    assert inbox.overdue(bank.drains, [3], age_s=30)
    bank.drains.rollback()
