"""Faults of the surroundings: the batch stays pending, no command is blamed, and the next run applies it."""

import time
from collections.abc import Callable

import psycopg
import pytest

import worker.drain
from bursar.local.postgres import Postgres
from runtime.announce import Announcer
from tests.books import Bank
from tests.worker.conftest import Workshop, terminate
from worker.drain import ATTEMPTS_MAX, Drainer

Fault = Callable[[Bank, psycopg.Connection], None]


def backend_terminated(bank: Bank, connection: psycopg.Connection) -> None:
    terminate(bank, connection)


def row_lock_not_had(bank: Bank, connection: psycopg.Connection) -> None:
    """Somebody holds alice's row, and does not let go."""
    connection.execute("SET LOCAL lock_timeout = '50ms'")
    bank.do("BEGIN")
    bank.do(
        "SELECT FROM accounts a JOIN wallets w ON w.id = a.wallet_id WHERE w.tenant_id = %s FOR UPDATE", bank.tenant
    )


def statement_too_slow(bank: Bank, connection: psycopg.Connection) -> None:
    row_lock_not_had(bank, connection)
    connection.execute("SET LOCAL lock_timeout = 0")
    connection.execute("SET LOCAL statement_timeout = '50ms'")


def disk_full(bank: Bank, connection: psycopg.Connection) -> None:
    connection.execute("DO $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = 'disk_full'; END $$")


def table_missing(bank: Bank, connection: psycopg.Connection) -> None:
    connection.execute("SELECT FROM a_table_that_no_migration_has_made_yet")


FAULTS: tuple[Fault, ...] = (backend_terminated, row_lock_not_had, statement_too_slow, disk_full, table_missing)


def break_drains(monkeypatch: pytest.MonkeyPatch, bank: Bank, fault: Fault) -> list[int]:
    """From now on the fault strikes every drain between its claim and its writing; the list grows with each."""
    apply, struck = worker.drain.drain.apply, [0]

    def breaking(connection: psycopg.Connection, *args: object, **named: object) -> list[int]:
        struck.append(len(struck))
        fault(bank, connection)
        return apply(connection, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(worker.drain.drain, "apply", breaking)
    return struck


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("number", [1, 20])
def test_a_fault_in_mid_drain_blames_no_command(
    bank: Bank, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, fault: Fault, number: int
) -> None:
    bank.top_up("alice", 100)
    seqs = [answer.seq for answer in bank.accept([bank.new("spend", "alice", 1) for _ in range(number)])]
    drainer = workshop.drainer(bank)
    with monkeypatch.context() as breaking:
        struck = break_drains(breaking, bank, fault)
        for _ in range(ATTEMPTS_MAX + 1):
            assert drainer.run(task_id=None) == 0
            bank.do("ROLLBACK")
        assert len(struck) == 1 + ATTEMPTS_MAX + 1, "each run was struck, and ended at that"
    assert bank.pending() == seqs
    assert [bank.attempts(seq) for seq in seqs] == [0] * number
    assert drainer.run(task_id=None) == number
    assert bank.available("alice") == 100 - number
    bank.assert_settled()


def test_a_run_that_cannot_connect_says_so_and_ends(workshop: Workshop) -> None:
    hall = workshop.hall
    nowhere = Drainer("postgresql://nobody@127.0.0.1:1/nothing", hall.doorbell(), Announcer(hall.url), [0])
    started = time.monotonic()
    assert nowhere.run(task_id=None) == 0
    assert time.monotonic() - started < 2.0


def test_runs_wait_out_a_restart_of_postgresql(own_postgres: Postgres, workshop: Workshop) -> None:
    bank = Bank(own_postgres.url)
    drainer = workshop.drainer(bank)
    bank.top_up("alice", 100)
    client_wrote = [bank.order("spend", "alice", 1) for _ in range(10)]
    own_postgres.stop_immediately()
    assert drainer.run(task_id=None) == 0
    own_postgres.start()
    bank = Bank(own_postgres.url)
    assert drainer.run(task_id=None) == 10
    assert bank.codes(client_wrote) == ["applied"] * 10
    bank.close()
