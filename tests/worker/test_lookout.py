"""The look-out: with every doorbell lost and Redis gone, commands are applied a second later."""

import threading
from collections.abc import Callable, Generator

import pytest

import worker.lookout
from bursar.local.valkey import Valkey
from tests.books import Bank
from tests.worker.conftest import Hall, Workshop, eventually, terminate
from worker.lookout import Lookout

# How a look-out is relieved, see Post.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class Post:
    """Starts look-outs and relieves them in the end: they are made to run for ever."""

    def __init__(self) -> None:
        self._over = False

    def start(self, lookout_of: Callable[[Callable[[], bool]], Lookout], *, busy: Callable[[], bool]) -> Lookout:
        def asked() -> bool:
            if self._over:
                raise SystemExit  # the look-out asks outside of its guard: the thread ends here
            return busy()

        lookout = lookout_of(asked)
        lookout.start()
        self._lookout = lookout
        return lookout

    def relieve(self) -> None:
        self._over = True
        self._lookout.join(5)


@pytest.fixture
def post(monkeypatch: pytest.MonkeyPatch) -> Generator[Post]:
    monkeypatch.setattr(worker.lookout, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(worker.lookout, "OVERDUE_S", 0.2)
    made = Post()
    yield made
    made.relieve()


def test_what_no_doorbell_announced_is_drained_once_it_is_overdue(bank: Bank, workshop: Workshop, post: Post) -> None:
    seqs = [bank.order("top_up", f"w{n}", 1) for n in range(10)]
    post.start(lambda busy: Lookout(workshop.drainer(bank), busy=busy), busy=lambda: False)
    eventually(lambda: not bank.pending())
    waited = "SELECT extract(epoch FROM max(o.at - c.accepted_at)) FROM outcomes o JOIN commands c USING (seq)"
    assert bank.one(waited + " WHERE c.tenant_id = %s", bank.tenant) > worker.lookout.OVERDUE_S, (
        "the doorbell is given its chance"
    )
    assert bank.codes(seqs) == ["applied"] * 10
    assert {bank.outcome(seq).task_id for seq in seqs} == {None}
    bank.assert_settled()


def test_spends_are_applied_with_redis_gone(bank: Bank, own_valkey: Valkey, post: Post) -> None:
    hall = Hall(own_valkey.url)
    workshop = Workshop(hall)
    own_valkey.kill()
    seq = bank.order("top_up", "alice", 1)
    post.start(lambda busy: Lookout(workshop.drainer(bank), busy=busy), busy=lambda: False)
    eventually(lambda: not bank.pending())
    assert bank.outcome(seq).status == "applied"
    workshop.close()


def test_a_process_that_is_draining_needs_no_look_out(bank: Bank, workshop: Workshop, post: Post) -> None:
    free = threading.Event()
    bank.order("top_up", "alice", 1)
    post.start(lambda busy: Lookout(workshop.drainer(bank), busy=busy), busy=lambda: not free.is_set())
    with pytest.raises(AssertionError):
        eventually(lambda: not bank.pending(), within_s=0.5)
    free.set()
    eventually(lambda: not bank.pending())


def test_the_look_out_survives_the_loss_of_its_connection(bank: Bank, workshop: Workshop, post: Post) -> None:
    drainer = workshop.drainer(bank)
    post.start(lambda busy: Lookout(drainer, busy=busy), busy=lambda: False)
    eventually(lambda: drainer._connection is not None)
    assert drainer._connection is not None
    terminate(bank, drainer._connection)
    seq = bank.order("top_up", "alice", 1)
    eventually(lambda: not bank.pending())
    assert bank.outcome(seq).status == "applied"


def test_what_is_past_its_time_expires_with_redis_gone(bank: Bank, own_valkey: Valkey, post: Post) -> None:
    workshop = Workshop(Hall(own_valkey.url))
    own_valkey.kill()
    soon = bank.in_seconds(0.3)
    bank.top_up("alice", 100)
    hold, bonus = bank.hold("alice", 60, hold_expires_at=soon), bank.bonus("alice", 5, credits_expire_at=soon)
    assert (hold.code, bonus.code) == ("applied", "applied")
    post.start(lambda busy: Lookout(workshop.drainer(bank), busy=busy), busy=lambda: False)
    eventually(lambda: bank.account("alice") == {"posted": 100, "held": 0, "version": 5})
    bank.assert_settled()
    workshop.close()


def test_a_process_that_is_draining_still_sees_what_is_due(bank: Bank, workshop: Workshop, post: Post) -> None:
    """The run under way, or another worker that answers the doorbell, expires it."""
    bank.top_up("alice", 100)
    bank.hold("alice", 60, hold_expires_at=bank.in_seconds(0.1))
    post.start(lambda busy: Lookout(workshop.drainer(bank), busy=busy), busy=lambda: True)
    eventually(lambda: len(bank.pending()) == 1)
    eventually(lambda: workshop.hall.all_messages() > 0)
    workshop.drainer(bank).run(task_id=None)
    assert bank.available("alice") == 100


def test_look_outs_that_come_at_once_expire_a_hold_once(bank: Bank) -> None:
    bank.top_up("alice", 100)
    bank.hold("alice", 60, hold_expires_at=bank.in_seconds(0.05))
    eventually(lambda: bank.enqueue_due() != set())
    bank.enqueue_due()
    assert len(bank.pending()) == 1
    bank.drain()
    assert bank.enqueue_due() == set()
    bank.assert_settled()
