"""A command that breaks every drain: it alone is held back, everybody else's are applied, in order."""

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
from structlog.testing import capture_logs

import worker.drain
from ledger import inbox
from ledger.ids import Kind, parse_id
from tests.books import Bank
from tests.worker.conftest import Workshop
from worker.drain import ATTEMPTS_MAX


def make_poisonous(bank: Bank, seq: int) -> None:
    """Another session's doing: whatever writes this command's transfer breaks."""
    bank.do("ALTER TABLE transfers ADD CONSTRAINT poison CHECK (seq <> " + str(seq) + ") NOT VALID")  # type: ignore[arg-type]


def queue_of_spends(bank: Bank, wallet: str, number: int) -> list[int]:
    """A wallet with just enough, and `number` spends of 1, 2, 3 … of it."""
    bank.top_up(wallet, sum(range(1, number + 1)))
    return [a.seq for a in bank.accept([bank.new("spend", wallet, n) for n in range(1, number + 1)])]


@pytest.mark.parametrize(("number", "position"), [(1, 0), (2, 0), (2, 1), (100, 37), (499, 0), (499, 498), (700, 600)])
def test_of_a_full_partition_only_the_poison_fails(bank: Bank, workshop: Workshop, number: int, position: int) -> None:
    bank.top_up("alice", number * 10)
    before = [a.seq for a in bank.accept([bank.new("spend", "alice", 1) for _ in range(position)])] if position else []
    poison = bank.conjure("alice")
    after = bank.accept([bank.new("spend", "alice", 1) for _ in range(number - position)])
    assert workshop.drainer(bank).run(task_id=None) == number + 1
    outcome = bank.outcome(poison)
    assert (outcome.status, outcome.code, outcome.accounts) == ("failed", "internal_error", None)
    paid = [entry.seq for entry in bank.entries("alice")[1:]]
    assert paid == before + [answer.seq for answer in after], "all others, each once, in order"
    assert bank.available("alice") == number * 9
    bank.assert_settled()


def test_several_poisons_in_one_batch_are_each_found(bank: Bank, workshop: Workshop) -> None:
    bank.top_up("alice", 100)
    seqs = [
        bank.conjure("alice") if n in (0, 3, 4, 19) else bank.order("spend", bank.wallet_in(n % 8), 1)
        for n in range(20)
    ]
    workshop.drainer(bank).run(task_id=None)
    assert [n for n, seq in enumerate(seqs) if bank.outcome(seq).code == "internal_error"] == [0, 3, 4, 19]
    bank.assert_settled()


def test_a_command_that_the_database_refuses_is_poison_too(own_bank: Bank, workshop: Workshop) -> None:
    seqs = queue_of_spends(own_bank, "alice", 20)
    make_poisonous(own_bank, seqs[7])
    workshop.drainer(own_bank).run(task_id=None)
    assert own_bank.codes(seqs) == ["applied"] * 7 + ["internal_error"] + ["applied"] * 12
    assert own_bank.available("alice") == 8, "what the poison would have spent"
    own_bank.assert_settled()


def test_a_poison_is_given_its_attempts_and_no_more(bank: Bank, workshop: Workshop) -> None:
    poison, task_id = bank.conjure("alice"), uuid4()
    with capture_logs() as logs:
        workshop.drainer(bank).run(task_id=task_id)
    (quarantined,) = [line for line in logs if line["event"] == "command.quarantined"]
    named = parse_id(Kind.COMMAND, quarantined["command"])
    assert named is not None
    assert named[0] == poison
    assert quarantined["wallet"] == bank.one("SELECT wallet FROM commands WHERE seq = %s", poison)
    assert (quarantined["seq"], quarantined["attempts"], quarantined["log_level"]) == (poison, ATTEMPTS_MAX, "error")
    assert bank.outcome(poison).task_id == task_id
    assert bank.pending() == []


def test_attempts_survive_a_restart_between_them(
    bank: Bank, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is counted in a transaction of its own; the worker that comes next goes on where the last one died."""
    poison, behind = bank.conjure("alice"), bank.order("top_up", "alice", 5)
    count_attempt = inbox.count_attempt

    def dies_after_counting(connection: psycopg.Connection, seq: int) -> int:
        deaths.append(count_attempt(connection, seq))
        return deaths[-1]

    deaths: list[int] = []
    reclaim = inbox.reclaim

    def power_cut(connection: psycopg.Connection, commands: object) -> object:
        if deaths and len(deaths) % 2:
            deaths.append(0)
            connection.close()
        return reclaim(connection, commands)  # type: ignore[arg-type]

    monkeypatch.setattr(worker.drain.inbox, "count_attempt", dies_after_counting)
    monkeypatch.setattr(worker.drain.inbox, "reclaim", power_cut)
    attempts: list[int] = []
    for _ in range(ATTEMPTS_MAX - 1):
        workshop.drainer(bank).run(task_id=None)
        attempts.append(bank.attempts(poison))
    assert attempts == list(range(1, ATTEMPTS_MAX))
    monkeypatch.setattr(worker.drain.inbox, "reclaim", reclaim)
    workshop.drainer(bank).run(task_id=None)
    assert bank.codes([poison, behind]) == ["internal_error", "applied"]
    assert [attempt for attempt in deaths if attempt] == [1, 2, 3]


@pytest.mark.parametrize("search", range(ATTEMPTS_MAX + 1))
def test_what_another_worker_settled_meanwhile_is_left_alone(
    bank: Bank, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, search: int
) -> None:
    """A defect that only this worker has: at some point of its search, another one applies everything."""
    seq = bank.order("top_up", "alice", 5)
    drainer = workshop.drainer(bank)
    apply, reclaim, reclaims = worker.drain.drain.apply, inbox.reclaim, [0]

    def broken_here(connection: psycopg.Connection, *args: object, **named: object) -> list[int]:
        if connection is drainer._connection:
            raise RuntimeError("only here")
        return apply(connection, *args, **named)  # type: ignore[arg-type]

    def another_is_faster(connection: psycopg.Connection, commands: object) -> object:
        if reclaims[0] == search:
            bank.drain()
        reclaims[0] += 1
        return reclaim(connection, commands)  # type: ignore[arg-type]

    monkeypatch.setattr(worker.drain.drain, "apply", broken_here)
    monkeypatch.setattr(worker.drain.inbox, "reclaim", another_is_faster)
    drainer.run(task_id=None)
    assert reclaims[0] == search + 1
    assert bank.outcome(seq).code == "applied"
    assert bank.available("alice") == 5
    bank.assert_settled()


def test_a_poison_does_not_keep_other_partitions_waiting(bank: Bank, workshop: Workshop) -> None:
    bank.conjure(bank.wallet_in(0))
    seq = bank.order("top_up", bank.wallet_in(5), 1)
    workshop.drainer(bank).run(task_id=None)
    assert bank.outcome(seq).status == "applied"


def test_two_workers_that_meet_the_same_poison_fail_it_once(bank: Bank, workshop: Workshop) -> None:
    for _ in range(3):
        seqs = [bank.order("top_up", f"w{n}", 1) for n in range(30)]
        poison = bank.conjure("w3")
        seqs += [bank.order("spend", f"w{n}", 1) for n in range(30)]
        drainers = [workshop.drainer(bank) for _ in range(2)]
        with ThreadPoolExecutor(2) as workers:
            list(workers.map(lambda drainer: drainer.run(task_id=None), drainers, timeout=20))
        workshop.drainer(bank).run(task_id=None)
        assert bank.outcome(poison).code == "internal_error"
        assert set(bank.codes(seqs)) == {"applied"}
        bank.assert_settled()


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_poison_in_a_group_fails_the_whole_group_and_nobody_else(
    bank: Bank, workshop: Workshop, position: int
) -> None:
    bank.top_up("alice", 100)
    before = bank.order("spend", "alice", 1)
    legs = [bank.new("spend", "alice", 10) for _ in range(3)]
    legs[position] = bank.new("conjure", "alice", 1)
    group = [answer.seq for answer in bank.accept_group(legs) if answer]
    after = bank.order("spend", "alice", 1)
    workshop.drainer(bank).run(task_id=None)
    assert bank.codes([before, *group, after]) == ["applied", *["internal_error"] * 3, "applied"]
    assert bank.available("alice") == 98
    bank.assert_settled()
