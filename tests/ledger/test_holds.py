"""Holds: what comes back from one, and what becomes of it when two want it at once."""

from datetime import timedelta
from typing import Any

import pytest

from tests.books import Bank, Outcome
from tests.ledger.races import Started, wait_for_a_waiter


@pytest.mark.parametrize("ends", ["release", "capture", "expire"])
def test_what_comes_back_from_a_hold_repays_what_is_owed_first(bank: Bank, ends: str) -> None:
    """Otherwise the end of such a lot would take the wallet below zero once more."""
    bank.set_clock(start := bank.in_seconds(60))
    bank.bonus("alice", 30, credits_expire_at=start + timedelta(seconds=90))
    paid = bank.top_up("alice", 20)
    hold = bank.hold("alice", 30, hold_expires_at=start + timedelta(seconds=30))
    bank.spend("alice", 20)
    bank.reverse(paid, allow_negative=True)
    assert bank.available("alice") == -20
    match ends:
        case "release":
            bank.release(hold)
        case "capture":
            bank.capture(hold, 1)
        case _:
            bank.set_clock(start + timedelta(seconds=30))
            bank.expire_due()
    left = 9 if ends == "capture" else 10
    assert [(lot.remaining, lot.held) for lot in bank.lots("alice")] == [(left, 0)]
    assert bank.available("alice") == left
    bank.set_clock(start + timedelta(seconds=90))
    bank.expire_due()
    assert bank.available("alice") == 0
    bank.assert_settled()


def test_a_capture_leaves_the_wallets_other_hold_alone(bank: Bank) -> None:
    bank.top_up("alice", 100)
    first, second = bank.hold("alice", 40), bank.hold("alice", 30)
    bank.capture(first)
    assert [bank.hold_status(hold) for hold in (first, second)] == [("captured", 0, 40), ("open", 30, 0)]
    bank.assert_settled()


# --- two at once -------------------------------------------------------------------------------------------------


def one_applied(bank: Bank, seqs: list[int], refusal: str) -> None:
    assert sorted(bank.codes(seqs)) == sorted(["applied", refusal])
    bank.assert_books_balance(in_order=False)  # which only the partitions' locks can promise


def race(bank: Bank, first_seq: int, second_seq: int) -> None:
    """Two drains as if the partition's lock had been stolen, each with one of the commands in a partition of its own:
    the second one waits for the rows that the first has."""
    with bank.another_drain() as first, bank.another_drain() as second:
        assert first.claim([6]) == [first_seq]
        assert second.claim([7]) == [second_seq]
        first.apply()
        with Started(second.apply) as applying:
            wait_for_a_waiter(bank)
            first.commit()
            applying.result()
        second.commit()


def test_of_two_captures_at_once_one_has_the_hold(bank: Bank) -> None:
    bank.top_up("alice", 100, credits_expire_at=bank.in_seconds(3600))
    hold = bank.hold("alice", 40)
    seqs = [about(bank, "capture", hold, partition) for partition in (6, 7)]
    race(bank, *seqs)
    one_applied(bank, seqs, "hold_not_open")
    assert (bank.account("alice"), bank.hold_status(hold)) == (
        {"posted": 60, "held": 0, "version": 3},
        ("captured", 0, 40),
    )


def test_of_a_capture_and_a_release_at_once_one_has_the_hold(bank: Bank) -> None:
    bank.top_up("alice", 100)
    hold = bank.hold("alice", 40)
    seqs = [about(bank, "release", hold, 6), about(bank, "capture", hold, 7)]
    race(bank, *seqs)
    one_applied(bank, seqs, "hold_not_open")
    assert bank.account("alice") == {"posted": 100, "held": 0, "version": 3}


@pytest.mark.parametrize("first", ["capture", "expire_hold"])
def test_of_a_capture_and_the_end_of_the_hold_at_once_one_has_it(bank: Bank, first: str) -> None:
    """The capture was claimed within the hold's time, the expiry after it."""
    bank.set_clock(start := bank.in_seconds(60))
    bank.top_up("alice", 100)
    hold = bank.hold("alice", 40, hold_expires_at=start + timedelta(seconds=10))
    capture = about(bank, "capture", hold, 6)
    expiry = about(bank, "expire_hold", hold, 7, client_id=0)
    with bank.another_drain() as capturing, bank.another_drain() as expiring:
        assert capturing.claim([6]) == [capture]
        bank.set_clock(start + timedelta(seconds=10))
        assert expiring.claim([7]) == [expiry]
        one, other = (capturing, expiring) if first == "capture" else (expiring, capturing)
        one.apply()
        with Started(other.apply) as applying:
            wait_for_a_waiter(bank)
            one.commit()
            applying.result()
        other.commit()
    seqs = [capture, expiry] if first == "capture" else [expiry, capture]
    assert bank.codes(seqs) == ["applied", "hold_not_open"]
    assert bank.account("alice") == {"posted": 60 if first == "capture" else 100, "held": 0, "version": 3}
    bank.assert_books_balance(in_order=False)


def test_of_two_reversals_at_once_one_finds_nothing_left(bank: Bank) -> None:
    bank.top_up("alice", 100)
    spent = bank.spend("alice", 40)
    seqs = [about(bank, "reverse", spent, partition) for partition in (6, 7)]
    race(bank, *seqs)
    one_applied(bank, seqs, "already_reversed")
    assert bank.available("alice") == 100


def test_of_two_reversals_in_parts_at_once_the_second_sees_what_the_first_left(bank: Bank) -> None:
    bank.top_up("alice", 100)
    spent = bank.spend("alice", 40)
    seqs = [about(bank, "reverse", spent, partition, 30) for partition in (6, 7)]
    race(bank, *seqs)
    one_applied(bank, seqs, "reversal_exceeded")
    assert bank.available("alice") == 90


def test_a_drain_that_gives_up_leaves_the_hold_as_it_was(bank: Bank) -> None:
    bank.top_up("alice", 100, credits_expire_at=bank.in_seconds(3600))
    hold = bank.hold("alice", 40)
    lots = bank.lots("alice")
    seq = about(bank, "capture", hold, bank.partition("alice"), 10, final=False)
    with bank.another_drain() as drain:
        drain.claim()
        drain.apply()
        drain.rollback()
    assert (bank.hold_status(hold), bank.lots("alice")) == (("open", 40, 0), lots)
    bank.drain()
    assert bank.codes([seq]) == ["applied"]
    assert bank.hold_status(hold) == ("open", 30, 10)
    bank.assert_settled()


def test_a_group_that_its_drain_gives_up_is_whole_again(bank: Bank) -> None:
    bank.top_up("alice", 100)
    group = bank.accept_group([bank.new("spend", "alice", 60), bank.new("hold", "alice", 40, **in_an_hour(bank))])
    seqs = [answer.seq for answer in group if answer]
    with bank.another_drain() as drain:
        assert drain.claim() == seqs
        drain.apply()
        drain.rollback()
    assert bank.account("alice") == {"posted": 100, "held": 0, "version": 1}
    assert bank.pending() == seqs
    bank.drain()
    assert bank.codes(seqs) == ["applied", "applied"]
    assert bank.account("alice") == {"posted": 40, "held": 40, "version": 3}
    bank.assert_settled()


def test_a_reversal_of_a_hold_finds_nothing_to_reverse(bank: Bank) -> None:
    """The api stores none. The books would refuse it all the same, in the hold's own batch and later."""
    bank.top_up("alice", 100)
    hold = bank.order("hold", "alice", 40, **in_an_hour(bank))
    at_once = bank.accept([bank.new_about("reverse", hold)])[0].seq
    bank.drain()
    assert bank.codes([hold, at_once]) == ["applied", "command_not_applied"]
    assert bank.reverse(hold).code == "command_not_applied"
    bank.assert_settled()


def in_an_hour(bank: Bank) -> dict[str, Any]:
    return {"hold_expires_at": bank.in_seconds(3600)}


def about(bank: Bank, kind: str, named: Outcome, partition: int, amount: int | None = None, **more: Any) -> int:
    """Accept a command about another one, in a partition of its own choice; its seq."""
    (answer,) = bank.accept([bank.new_about(kind, named, amount, partition=partition, **more)])
    return answer.seq
