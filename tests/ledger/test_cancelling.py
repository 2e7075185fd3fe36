"""Cancelling: a pending command becomes `cancelled`, a decided one stays as it is, and a key never seen is taken."""

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from ledger import cancelling, db, inbox
from ledger.cancelling import Cancelled
from ledger.inbox import Accepted, NewCommand
from tests.books import ALL, Bank
from tests.ledger.races import Started, wait_for_a_waiter


class Canceller:
    """A connection to cancel on, as the api has one."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank
        self.connection = db.connect(bank.url, application="test-cancel")

    def cancel(self, seq: int) -> list[int]:
        """What was cancelled, committed."""
        with self.connection.transaction():
            return cancelling.cancel(self.connection, seq).seqs

    def cancel_key(self, key: str) -> Cancelled:
        with self.connection.transaction():
            return self.cancel_key_uncommitted(key)

    def cancel_key_uncommitted(self, key: str) -> Cancelled:
        bank = self._bank
        return cancelling.cancel_key(self.connection, tenant_id=bank.tenant, client_id=bank.client, key=key)


@pytest.fixture
def desk(bank: Bank) -> Generator[Canceller]:
    canceller = Canceller(bank)
    yield canceller
    canceller.connection.close()


def accept_group(bank: Bank, group: list[NewCommand]) -> list[Accepted | None]:
    return bank._loop.run(inbox.accept_group(bank._intake, group))


def uncommitted(bank: Bank, command: NewCommand) -> psycopg.Connection:
    """An intake's connection that has stored a command and not committed it. Close it: that rolls back."""
    intake = db.connect(bank.url, application="test-intake")
    inbox.enqueue(intake, [command])
    return intake


# --- pending, or decided ---------------------------------------------------------------------------------------------


def test_a_pending_command_is_cancelled_and_never_applied(bank: Bank, desk: Canceller) -> None:
    bank.top_up("alice", 100)
    first, second, third = (bank.order("spend", "alice", 10) for _ in range(3))
    assert desk.cancel(second) == [second]
    assert bank.pending() == [first, third]
    bank.drain()
    assert bank.codes([first, second, third]) == ["applied", "cancelled", "applied"]
    outcome = bank.outcome(second)
    assert (outcome.status, outcome.accounts, outcome.task_id) == ("cancelled", [], None)
    assert bank.available("alice") == 80
    bank.assert_settled()


def test_a_command_with_an_outcome_keeps_it(bank: Bank, desk: Canceller) -> None:
    bank.top_up("alice", 100)
    applied, refused = bank.spend("alice", 10), bank.spend("alice", 1_000)
    assert desk.cancel(applied.seq) == desk.cancel(refused.seq) == []
    assert (bank.outcome(applied.seq), bank.outcome(refused.seq)) == (applied, refused)
    bank.assert_settled()


def test_a_second_cancel_cancels_nothing(bank: Bank, desk: Canceller) -> None:
    seq = bank.order("top_up", "alice", 1)
    assert [desk.cancel(seq), desk.cancel(seq)] == [[seq], []]
    bank.assert_settled()


def test_a_cancelled_hold_cannot_be_captured(bank: Bank, desk: Canceller) -> None:
    bank.top_up("alice", 100)
    options = '{"hold_expires_at": "2099-01-01T00:00:00Z"}'
    hold = bank.order("hold", "alice", 40, options=options)
    capture = bank.order("capture", "alice", 40, ref_seq=hold)
    assert desk.cancel(hold) == [hold]
    bank.drain()
    assert bank.outcome(capture).code == "command_not_applied"
    assert bank.available("alice") == 100
    bank.assert_settled()


def test_a_poison_command_can_be_cancelled(bank: Bank, desk: Canceller) -> None:
    """A drain that isolates it finds it gone, and blames nobody."""
    seq = bank.conjure("alice")
    with bank.another_drain() as drain:
        drain.claim()
        poison = drain.commands
        drain.rollback()
        assert desk.cancel(seq) == [seq]
        assert inbox.reclaim(drain.connection, poison) is None
        assert inbox.count_attempt(drain.connection, seq) == 0


# --- groups ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", [0, 1, 2])
def test_cancelling_one_of_a_group_cancels_all_of_it(bank: Bank, desk: Canceller, member: int) -> None:
    group = accept_group(bank, [bank.new("top_up", "alice", n) for n in (1, 2, 3)])
    alone = bank.order("top_up", "alice", 4)
    later = accept_group(bank, [bank.new("top_up", "alice", n) for n in (5, 6)])
    seqs, others = ([accepted.seq for accepted in of_group if accepted] for of_group in (group, later))
    assert desk.cancel(seqs[member]) == seqs
    bank.drain()
    assert bank.codes([*seqs, alone, *others]) == ["cancelled"] * 3 + ["applied"] * 3
    bank.assert_settled()


def test_a_group_with_a_cancelled_key_stores_nothing_and_says_which(bank: Bank, desk: Canceller) -> None:
    group = [bank.new("top_up", "alice", n, key=f"of a group {n}") for n in (1, 2, 3)]
    tombstone = desk.cancel_key("of a group 2").seq
    first, second, third = accept_group(bank, group)
    assert (first, third) == (None, None)
    assert second is not None
    assert (second.seq, second.replayed, second.same_request) == (tombstone, True, True)
    assert bank.pending() == []
    bank.assert_settled()


# --- keys ------------------------------------------------------------------------------------------------------------


def test_by_key_a_pending_command_is_cancelled(bank: Bank, desk: Canceller) -> None:
    seq = bank.order("top_up", "alice", 1, key="known")
    assert desk.cancel_key("known") == Cancelled(seq, [seq])
    assert desk.cancel_key("known") == Cancelled(seq, [])
    bank.drain()
    assert bank.outcome(seq).status == "cancelled"
    bank.assert_settled()


def test_a_key_never_seen_is_taken_and_what_comes_late_never_applies(bank: Bank, desk: Canceller) -> None:
    buried = desk.cancel_key("late")
    assert buried.seqs == [buried.seq]
    assert bank.pending() == []
    late, other = bank.accept([bank.new("top_up", "alice", 1, key="late"), bank.new("top_up", "alice", 2)])
    assert (late.seq, late.replayed, late.same_request) == (buried.seq, True, True)
    assert bank.drain() == [other.seq]
    assert (bank.outcome(buried.seq).status, bank.outcome(buried.seq).code) == ("cancelled", "cancelled")
    assert bank.available("alice") == 2
    bank.assert_settled()


def test_a_key_is_taken_once(bank: Bank, desk: Canceller) -> None:
    buried = desk.cancel_key("late")
    assert desk.cancel_key("late") == Cancelled(buried.seq, [])
    bank.assert_settled()


def test_a_cancelled_key_is_its_clients_own(bank: Bank, desk: Canceller) -> None:
    desk.cancel_key("shared")
    (accepted,) = bank.accept([bank.new("top_up", "alice", 1, key="shared", client_id=bank.new_client())])
    assert not accepted.replayed
    assert bank.drain() == [accepted.seq]
    bank.assert_settled()


# --- races -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["by seq", "by key"])
def cancel(request: pytest.FixtureRequest, bank: Bank, desk: Canceller) -> Callable[[int], list[int]]:
    """Cancel the command of this seq, under the name of either kind; what was cancelled."""
    if request.param == "by seq":
        return desk.cancel
    return lambda seq: desk.cancel_key(bank.one("SELECT idempotency_key FROM commands WHERE seq = %s", seq)).seqs


def test_a_cancel_waits_for_the_drain_and_finds_the_outcome(bank: Bank, cancel: Callable[[int], list[int]]) -> None:
    seq = bank.order("top_up", "alice", 1)
    with bank.another_drain() as drain:
        drain.claim()
        with Started(lambda: cancel(seq)) as cancelling_it:
            wait_for_a_waiter(bank)
            drain.apply_and_commit()
            assert cancelling_it.result() == []
    assert bank.outcome(seq).status == "applied"
    bank.assert_settled()


def test_a_cancel_waits_for_the_drain_and_wins_if_that_rolls_back(
    bank: Bank, cancel: Callable[[int], list[int]]
) -> None:
    seq, other = bank.order("top_up", "alice", 1), bank.order("top_up", "alice", 2)
    with bank.another_drain() as drain:
        drain.claim()
        drain.apply()
        with Started(lambda: cancel(seq)) as cancelling_it:
            wait_for_a_waiter(bank)
            drain.rollback()
            assert cancelling_it.result() == [seq]
    assert bank.drain() == [other]
    assert bank.outcome(seq).status == "cancelled"
    bank.assert_settled()


@pytest.mark.parametrize("committed", [True, False])
def test_a_drain_waits_for_the_cancel_and_does_the_rest(bank: Bank, desk: Canceller, committed: bool) -> None:
    first, second, third = (bank.order("top_up", "alice", n) for n in (1, 2, 3))
    assert cancelling.cancel(desk.connection, second).seqs == [second]
    with bank.another_drain() as drain, Started(drain.claim) as claiming:
        wait_for_a_waiter(bank)
        desk.connection.commit() if committed else desk.connection.rollback()
        assert claiming.result() == ([first, third] if committed else [first, second, third])
        drain.apply_and_commit()
    bank.assert_settled()


def test_a_drain_that_waited_in_vain_looks_again(bank: Bank, desk: Canceller) -> None:
    seq = bank.order("top_up", "alice", 1)
    cancelling.cancel(desk.connection, seq)
    with bank.another_drain() as drain, Started(drain.claim) as claiming:
        wait_for_a_waiter(bank)
        desk.connection.commit()
        assert claiming.result() == []
        assert drain.commands == [], "an empty claim, not Nothing: a doorbell may have been turned away"
    bank.assert_settled()


def test_a_cancel_gives_up_on_a_drain_that_hangs(bank: Bank, desk: Canceller) -> None:
    seq = bank.order("top_up", "alice", 1)
    desk.connection.execute("SET lock_timeout = 50")
    desk.connection.commit()
    with bank.another_drain() as drain:
        drain.claim()
        with pytest.raises(psycopg.errors.LockNotAvailable):
            desk.cancel(seq)
        assert isinstance(psycopg.errors.LockNotAvailable(), psycopg.OperationalError), "the api's 503"
        drain.apply_and_commit()
    assert bank.outcome(seq).status == "applied"


@pytest.mark.parametrize("committed", [True, False])
def test_a_cancel_by_key_waits_for_the_accept_under_way(bank: Bank, desk: Canceller, committed: bool) -> None:
    intake = uncommitted(bank, bank.new("top_up", "alice", 1, key="racing"))
    with Started(lambda: desk.cancel_key("racing")) as cancelling_it:
        wait_for_a_waiter(bank)
        intake.commit() if committed else intake.rollback()
        cancelled = cancelling_it.result()
    intake.close()
    assert cancelled.seqs == [cancelled.seq]
    assert bank.drain() == []
    kind = bank.one("SELECT type FROM commands WHERE seq = %s", cancelled.seq)
    assert kind == ("top_up" if committed else "tombstone")
    bank.assert_settled()


@pytest.mark.parametrize("committed", [True, False])
def test_an_accept_waits_for_the_cancel_of_its_key_under_way(bank: Bank, desk: Canceller, committed: bool) -> None:
    desk.cancel_key_uncommitted("racing")
    with Started(lambda: bank.accept([bank.new("top_up", "alice", 1, key="racing")])) as accepting:
        wait_for_a_waiter(bank)
        desk.connection.commit() if committed else desk.connection.rollback()
        (accepted,) = accepting.result()
    assert accepted.replayed == committed
    assert bank.drain() == ([] if committed else [accepted.seq])
    bank.assert_settled()


def test_posts_drains_and_cancels_in_a_crowd_leave_each_key_one_fate(bank: Bank) -> None:
    """Each key is posted and cancelled at the same time, while drains come by."""
    bank.top_up("alice", 1_000)
    keys = [f"crowd-{n}" for n in range(120)]
    told: dict[str, Cancelled] = {}

    def post() -> None:
        for key in keys:
            bank.accept([bank.new("spend", "alice", 1, key=key)])

    def cancel(some: list[str]) -> None:
        canceller = Canceller(bank)
        for key in some:
            told[key] = canceller.cancel_key(key)
        canceller.connection.close()

    def drain() -> None:
        with bank.another_drain() as drain:
            while len(told) < len(keys):
                if drain.claim(ALL, max_rows=3):
                    drain.apply()
                drain.commit()

    with ThreadPoolExecutor(4) as crowd:
        jobs = [
            crowd.submit(drain),
            crowd.submit(post),
            crowd.submit(cancel, keys[::2]),
            crowd.submit(cancel, keys[1::2]),
        ]
        for job in jobs:
            job.result()
    bank.drain()
    spent = 0
    for key, cancelled in told.items():
        outcome = bank.outcome(cancelled.seq)
        assert bank.one("SELECT seq FROM commands WHERE idempotency_key = %s", key) == cancelled.seq
        assert (outcome.status == "cancelled") == bool(cancelled.seqs), key
        assert outcome.status in ("cancelled", "applied")
        spent += outcome.status == "applied"
    assert bank.available("alice") == 1_000 - spent
    bank.assert_settled()
