"""A run of the drainer: it leaves nothing behind, and nobody unheard."""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from uuid import uuid4

import pytest
import redis
from structlog.testing import capture_logs

import worker.drain
from ledger import drain, journal
from ledger.inbox import Claim
from runtime.announce import CHANNEL, CLIENTS_CHANNEL, Announcer, unpack
from runtime.doorbell import Doorbell
from tests.books import ALL, Bank
from tests.worker.conftest import Hall, Workshop, eventually
from worker.drain import BUSY_MIN


class AtEachAnnouncement(Announcer):
    """An announcer that lets something happen just after a drain has committed."""

    def __init__(self, redis_url: str, happen: Callable[[], object]) -> None:
        super().__init__(redis_url)
        self._happen = happen

    def announce(self, seqs: Sequence[int], clients: Iterable[int] = ()) -> None:
        super().announce(seqs, clients)
        self._happen()


class AtTheFirstClear(Doorbell):
    """A doorbell that lets something happen just before it is cleared for the first time."""

    happen: Callable[[], object] | None = None

    def clear(self, partitions: Iterable[int]) -> None:
        happen, self.happen = self.happen, None
        if happen:
            happen()
        super().clear(partitions)


def during_the_drain(monkeypatch: pytest.MonkeyPatch, happen: Callable[[], object], *, times: int = 1) -> None:
    """Let something happen between a drain's claim and its writing."""
    apply, left = drain.apply, [happen] * times

    def slowly(*args: object, **named: object) -> list[int]:
        if left:
            left.pop()()
        return apply(*args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(worker.drain.drain, "apply", slowly)


def test_a_run_drains_everything_in_all_partitions(bank: Bank, workshop: Workshop) -> None:
    batch = [bank.new("top_up", f"w{n % 50}", 1) for n in range(1_200)]
    bank.accept(batch)
    assert workshop.drainer(bank).run(task_id=None) == 1_200
    assert sum(bank.available(f"w{n}") for n in range(50)) == 1_200
    bank.assert_settled()


def test_a_run_with_nothing_to_do_ends_at_once(bank: Bank, workshop: Workshop) -> None:
    started = time.monotonic()
    assert workshop.drainer(bank).run(task_id=None) == 0
    assert time.monotonic() - started < worker.drain.RUN_MAX_S / 2


def test_a_run_serves_its_own_partitions_only(bank: Bank, workshop: Workshop) -> None:
    seqs = [bank.order("top_up", bank.wallet_in(partition), 1) for partition in ALL]
    assert workshop.drainer(bank, [1, 3]).run(task_id=None) == 2
    assert bank.pending() == [seq for partition, seq in enumerate(seqs) if partition not in (1, 3)]


def test_outcomes_name_the_task_that_brought_them(bank: Bank, workshop: Workshop) -> None:
    seq, task_id = bank.order("top_up", "alice", 1), uuid4()
    workshop.drainer(bank).run(task_id=task_id)
    assert bank.outcome(seq).task_id == task_id


@pytest.mark.parametrize("number", [1, BUSY_MIN - 1, BUSY_MIN, 500])
def test_a_command_committed_during_the_last_drain_is_not_lost(
    bank: Bank, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Its doorbell found the partition locked and went away: whoever holds the lock must look again."""
    wallet = bank.wallet_in(2)
    bank.accept([bank.new("top_up", wallet, 1) for _ in range(number)])
    during_the_drain(monkeypatch, lambda: bank.order("top_up", wallet, 1))
    workshop.drainer(bank).run(task_id=None)
    assert bank.available(wallet) == number + 1
    bank.assert_settled()


@pytest.mark.parametrize("number", [0, 1, BUSY_MIN])
@pytest.mark.parametrize("late", [1, BUSY_MIN])
def test_a_command_that_came_before_the_doorbell_was_cleared_is_found_by_the_last_look(
    bank: Bank, workshop: Workshop, hall: Hall, number: int, late: int
) -> None:
    """Its ring was free, because one was waiting already: nobody else will come for it."""
    doorbell = AtTheFirstClear(hall.celery, hall.url)
    doorbell.happen = lambda: bank.accept([bank.new("top_up", "alice", 1) for _ in range(late)])
    bank.accept([bank.new("top_up", "alice", 1) for _ in range(number)]) if number else None
    workshop.drainer(bank, doorbell=doorbell).run(task_id=None)
    assert bank.available("alice") == number + late
    bank.assert_settled()


@pytest.mark.parametrize("number", [0, 1, BUSY_MIN - 1, BUSY_MIN, 20])
def test_after_a_run_the_doorbell_rings_again(bank: Bank, workshop: Workshop, hall: Hall, number: int) -> None:
    doorbell = hall.doorbell()
    bank.accept([bank.new("top_up", "alice", 1) for _ in range(number)]) if number else None
    workshop.drainer(bank, doorbell=doorbell).run(task_id=None)
    assert hall.flags() == set()
    doorbell.ring(3)
    eventually(lambda: hall.messages(3) == 1)


def test_while_commands_keep_coming_the_doorbell_is_quiet(
    bank: Bank, workshop: Workshop, hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    doorbell = hall.doorbell()
    gathered: list[float] = []

    def gather(seconds: float) -> None:
        gathered.append(seconds)
        doorbell.ring_all(ALL)
        time.sleep(0.1)

    bank.accept([bank.new("top_up", "alice", 1) for _ in range(BUSY_MIN)])
    monkeypatch.setattr(worker.drain, "time", SimpleNamespace(monotonic=time.monotonic, sleep=gather))
    workshop.drainer(bank, doorbell=doorbell).run(task_id=None)
    assert gathered == [worker.drain.GATHER_S]
    assert hall.all_messages() == 0


@pytest.mark.parametrize("number", [1, BUSY_MIN])
def test_a_run_that_has_served_long_enough_rings_for_the_rest(
    bank: Bank, workshop: Workshop, hall: Hall, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(worker.drain, "RUN_MAX_S", 0.1)
    bank.accept([bank.new("top_up", "alice", 1) for _ in range(number)])
    endless = AtEachAnnouncement(hall.url, lambda: bank.accept([bank.new("top_up", "alice", 1) for _ in range(number)]))
    started = time.monotonic()
    workshop.drainer(bank, announcer=endless).run(task_id=None)
    assert time.monotonic() - started < 1.0
    assert len(bank.pending()) == number
    eventually(lambda: hall.all_messages() > 0, within_s=1.0)


def test_a_small_claim_after_another_leaves_no_partition_waiting(
    bank: Bank, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than one batch, over more than one partition."""
    monkeypatch.setattr(worker.drain, "DRAIN_MAX", 7)
    bank.accept([bank.new("top_up", f"w{n % 30}", 1) for n in range(100)])
    assert workshop.drainer(bank).run(task_id=None) == 100
    bank.assert_settled()


def test_a_long_queue_of_one_partition_keeps_no_other_waiting(
    bank: Bank, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each drain begins with another partition, however long the one before has waited."""
    monkeypatch.setattr(worker.drain, "DRAIN_MAX", 5)
    batches: list[Sequence[int]] = []
    apply = drain.apply

    def noted(connection: object, claim: Claim, *, task_id: object) -> object:
        batches.append([command.seq for command in claim.commands])
        return apply(connection, claim, task_id=None)  # type: ignore[arg-type]

    monkeypatch.setattr(worker.drain.drain, "apply", noted)
    bank.accept([bank.new("top_up", bank.wallet_in(2), 1) for _ in range(100)])
    late = bank.order("top_up", bank.wallet_in(6), 1)
    assert workshop.drainer(bank).run(task_id=None) == 101
    assert any(late in batch for batch in batches[: len(ALL)])
    bank.assert_settled()


def test_books_that_moved_are_drained_again_without_ado(
    bank: Bank, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another drain opened the newcomer's wallet first. Nobody is looked for, nobody is blamed."""
    alice, bob = bank.wallet_in(1), bank.wallet_in(2)
    bank.top_up(alice, 10)
    bank.top_up(bob, 10)
    open_accounts, others_turn = journal.open_accounts, [True]

    def too_late(*args: object) -> None:
        if others_turn:
            others_turn.clear()
            assert bank.transfer(bob, "newcomer", 3).status == "applied"
        open_accounts(*args)  # type: ignore[arg-type]

    bank.order("transfer", alice, 4, to_wallet="newcomer")
    monkeypatch.setattr(journal, "open_accounts", too_late)
    with capture_logs() as logs:
        assert workshop.drainer(bank).run(task_id=None) == 1
    assert [line["event"] for line in logs] == []
    assert bank.available("newcomer") == 7
    bank.assert_settled()


def test_a_hundred_equal_doorbells_do_no_harm(bank: Bank, workshop: Workshop) -> None:
    bank.accept([bank.new("top_up", f"w{n % 30}", 10) for n in range(300)])
    bank.accept([bank.new("transfer", f"w{n % 30}", 1, to_wallet=f"w{(n * 7 + 1) % 30}") for n in range(300)])
    drainers = [workshop.drainer(bank) for _ in range(4)]
    with ThreadPoolExecutor(4) as workers:
        done = list(workers.map(lambda n: [drainers[n].run(task_id=None) for _ in range(25)], range(4), timeout=40))
    assert sum(map(sum, done)) == 600
    assert sum(bank.available(f"w{n}") for n in range(30)) == 3_000
    bank.assert_settled()


def test_every_outcome_is_announced_after_its_commit(bank: Bank, workshop: Workshop, hall: Hall) -> None:
    heard: dict[bytes, list[int]] = {CHANNEL.encode(): [], CLIENTS_CHANNEL.encode(): []}
    listener = redis.Redis.from_url(hall.url).pubsub(ignore_subscribe_messages=True)
    listener.subscribe(CHANNEL, CLIENTS_CHANNEL)
    for _ in heard:
        listener.get_message(timeout=2)

    class Checked(Announcer):
        def announce(self, seqs: Sequence[int], clients: Iterable[int] = ()) -> None:
            assert all(bank.outcome(seq) for seq in seqs), "announced before it was there to be read"
            super().announce(seqs, clients)

    seqs = [answer.seq for answer in bank.accept([bank.new("spend", f"w{n}", 1) for n in range(20)])]
    workshop.drainer(bank, announcer=Checked(hall.url)).run(task_id=None)

    def all_heard() -> bool:
        if message := listener.get_message(timeout=0.1):
            assert isinstance(message["data"], bytes)
            assert isinstance(message["channel"], bytes)
            heard[message["channel"]].extend(unpack(message["data"]))
        return (sorted(heard[CHANNEL.encode()]), heard[CLIENTS_CHANNEL.encode()]) == (seqs, [bank.client])

    eventually(all_heard)
    listener.close()


def test_a_run_works_on_after_its_connection_died_between_runs(bank: Bank, workshop: Workshop) -> None:
    drainer = workshop.drainer(bank)
    bank.top_up("alice", 1)
    drainer.run(task_id=None)
    bank.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bursar-worker'"
        " AND datname = current_database()"
    )
    bank.order("top_up", "alice", 1)
    drainer.run(task_id=None)  # this one finds it out
    drainer.run(task_id=None)
    assert bank.available("alice") == 2


def test_a_second_worker_that_found_it_busy_leaves_no_silence_behind(
    bank: Bank, workshop: Workshop, hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever goes off duty last lets the doorbell ring, whatever the other was told meanwhile."""
    first, second = workshop.drainer(bank), workshop.drainer(bank)

    def come_by() -> None:
        assert second.run(task_id=None) == 0

    def more() -> None:
        bank.accept([bank.new("top_up", "alice", 1) for _ in range(BUSY_MIN)])
        during_the_drain(monkeypatch, come_by)

    bank.order("top_up", "alice", 1)
    during_the_drain(monkeypatch, more)
    first.run(task_id=None)
    assert bank.available("alice") == 1 + BUSY_MIN
    assert hall.flags() == set(), "nobody serves, so ringing must not be taken for needless"


def test_a_worker_that_finds_everything_held_ends_at_once(bank: Bank, workshop: Workshop) -> None:
    bank.order("top_up", "alice", 1)
    with bank.another_drain() as holder:
        holder.claim()
        started = time.monotonic()
        assert workshop.drainer(bank).run(task_id=None) == 0
        assert time.monotonic() - started < worker.drain.RUN_MAX_S / 2
