"""After a freeze every doorbell rings, also where a worker on duty had silenced them and was turned away."""

import time
from types import SimpleNamespace

import pytest

import worker.drain
from ledger import registers
from tests.books import ALL, Bank
from tests.worker.conftest import Hall, Workshop, eventually
from worker.drain import BUSY_MIN


def test_a_freeze_that_turned_a_worker_away_can_ring_after_it(
    bank: Bank, workshop: Workshop, hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    doorbell = hall.doorbell()
    with bank.another_drain() as register:

        def freeze(_: float) -> None:
            bank.order("top_up", "alice", 1)
            every_partition = "SELECT count(pg_advisory_xact_lock(%s, partition)) FROM partitions"
            register.connection.execute(every_partition, (registers.PARTITION_LOCKS,))

        monkeypatch.setattr(worker.drain, "time", SimpleNamespace(monotonic=time.monotonic, sleep=freeze))
        bank.accept([bank.new("top_up", "alice", 1) for _ in range(BUSY_MIN)])
        assert workshop.drainer(bank, doorbell=doorbell).run(task_id=None) == BUSY_MIN
    assert len(bank.pending()) == 1
    doorbell.ring_all(ALL)  # as the api does after the commit
    eventually(lambda: hall.all_messages() > 0, within_s=0.5)
