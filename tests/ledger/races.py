"""Races, made by hand: a call under way in a thread, and the proof that it waits."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from tests.books import Bank

WAITS_WITHIN_S = 5.0  # PostgreSQL shows a lock wait within milliseconds; the rest is for a busy machine
ENDS_WITHIN_S = 10.0

Answer = TypeVar("Answer")


class Started(Generic[Answer]):
    """`with Started(call) as under_way:` … `under_way.result()`. Leaving the block waits for its end."""

    def __init__(self, call: Callable[[], Answer]) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._future: Future[Answer] = self._thread.submit(call)

    def __enter__(self) -> "Started[Answer]":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown()

    def result(self) -> Answer:
        return self._future.result(ENDS_WITHIN_S)


def wait_for_a_waiter(bank: Bank, number: int = 1) -> None:
    """Returns once so many sessions of this database wait for another's lock; fails where fewer do."""
    deadline = time.monotonic() + WAITS_WITHIN_S
    while time.monotonic() < deadline:
        waiting = bank.one("""
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0
        """)
        if waiting >= number:
            return
        time.sleep(0.005)
    raise AssertionError("somebody should wait for a lock by now, and too few do")


def partition_locks_stolen(bank: Bank) -> None:
    """From now on every drain of this database gets every partition's lock at once, as if it were nobody's."""
    bank.do("""
        CREATE FUNCTION pg_try_advisory_xact_lock(integer, smallint) RETURNS boolean LANGUAGE sql AS 'SELECT true'
    """)
