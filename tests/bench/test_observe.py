"""What the bench reads from a real database, and the floor that it measures there."""

from pathlib import Path

import psycopg
import pytest

from bursar.bench import floor
from bursar.bench.figures import window
from bursar.bench.observe import NotDurable, Observer

ACCEPT = """
WITH accepted AS (
    INSERT INTO commands (tenant_id, client_id, partition, type, idempotency_key, request_hash, wallet, asset, amount)
    SELECT 1, 1, 0, 'spend', %s || number, '', 'w', 'a', 1 FROM generate_series(1, %s) AS number RETURNING seq
) INSERT INTO pending (partition, seq) SELECT 0, seq FROM accepted
"""
APPLY = """
WITH claimed AS (DELETE FROM pending WHERE seq IN (SELECT seq FROM pending ORDER BY seq LIMIT %s) RETURNING seq)
INSERT INTO outcomes (seq, status, code, at) SELECT seq, 'applied', 'applied', clock_timestamp() FROM claimed
"""


def test_the_observer_tells_commands_and_outcomes_by_the_transactions_that_made_them(database_url: str) -> None:
    observer = Observer(database_url)
    with psycopg.connect(database_url, autocommit=True) as books:
        books.execute(ACCEPT, ("earlier-", 3))
        since, start_s = observer.last_seq(), observer.clock_s()
        books.execute(ACCEPT, ("a-", 4))
        books.execute(ACCEPT, ("b-", 6))
        assert not observer.drained()
        books.execute(APPLY, (3 + 5,))
        assert not observer.drained()
        books.execute(APPLY, (100,))
        end_s = observer.clock_s()

    seen = window(observer.flows(since), start_s=start_s, end_s=end_s)
    assert observer.drained()
    assert observer.applied_since(since) == 10
    observer.close()
    assert (seen.accepted, seen.applied, seen.backlog_end) == (10, 10, 0)
    assert seen.intake_batch is not None
    assert seen.drain_batch is not None
    assert seen.outcome_ms is not None
    assert (seen.intake_batch.count, seen.intake_batch.max) == (2, 6)
    assert (seen.drain_batch.count, seen.drain_batch.max) == (2, 5)
    assert 0 <= seen.outcome_ms.p50 <= (end_s - start_s) * 1000


def test_a_server_that_answers_before_its_data_is_safe_is_refused(database_url: str) -> None:
    observer = Observer(database_url)
    shown = observer.settings()
    observer.close()
    assert (shown["fsync"], shown["synchronous_commit"]) == ("on", "on")

    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$"
        )
    observer = Observer(database_url)
    with pytest.raises(NotDurable, match="synchronous_commit"):
        observer.settings()
    observer.close()


def test_the_floor_is_measured_in_a_schema_of_its_own_that_is_gone_afterwards(
    database_url: str, tmp_path: Path
) -> None:
    measured = floor.measure(database_url, tmp_path, wallets=100, seconds=2)  # pgbench's time includes 32 logins

    assert measured.spread_per_s > 0
    assert measured.hot_per_s > 0
    with psycopg.connect(database_url) as connection:
        left = connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname = %s", (floor.SCHEMA,)).fetchone()
    assert left == (0,)
