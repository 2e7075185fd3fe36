"""Locks that a test holds in the way of a drain or of an accepting statement, to catch it in the middle."""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, LiteralString

import psutil
import psycopg

from tests.crash.service import Service, Worker, wait_for

LOCKS_REVENUE: LiteralString = """
SELECT FROM accounts a JOIN wallets w ON w.id = a.wallet_id
WHERE w.tenant_id = %s AND w.code = '@revenue' ORDER BY a.id FOR UPDATE OF a
"""
LOCKS_OUTCOMES: LiteralString = "LOCK TABLE outcomes IN SHARE MODE"
LOCKS_COMMANDS: LiteralString = "LOCK TABLE commands IN SHARE MODE"

_STUCK: LiteralString = """
SELECT pid, client_port FROM pg_stat_activity
WHERE application_name = %s AND %s = ANY (pg_blocking_pids(pid)) ORDER BY pid
"""


@dataclass(frozen=True)
class StuckDrain:
    """A drain inside its transaction: the backend that waits in it, and the worker whose child began it."""

    backend_pid: int
    child: psutil.Process
    worker: Worker


class Obstacle:
    """A lock that no drain gets past, until it is removed."""

    def __init__(self, service: Service, lock: psycopg.Connection[Any]) -> None:
        self._service = service
        self._lock = lock

    def caught(self) -> list[StuckDrain]:
        """The drains that stand before it by now; waits for the first."""
        found: list[StuckDrain] = []

        def some() -> bool:
            found[:] = [drain for pid, port in self._blocked("bursar-worker") if (drain := self._whose(pid, port))]
            return bool(found)

        wait_for(some, "a drain to stand before the lock", within_s=15.0)
        return found

    def caught_intake(self) -> None:
        """Waits until an accepting statement stands before it."""
        wait_for(lambda: self._blocked("bursar-intake"), "a post to stand before the lock", within_s=15.0)

    def _blocked(self, application: str) -> list[tuple[Any, ...]]:
        return self._service.rows(_STUCK, application, self._lock.info.backend_pid)

    def _whose(self, backend_pid: int, port: int) -> StuckDrain | None:
        for worker in self._service.workers:
            if worker.alive:
                for child in worker.children():
                    with contextlib.suppress(psutil.Error):
                        if any(line.laddr.port == port for line in child.net_connections("tcp4")):
                            return StuckDrain(backend_pid, child, worker)
        return None


@contextlib.contextmanager
def obstacle(service: Service, lock: LiteralString, *values: object) -> Generator[Obstacle]:
    """Hold a lock that drains need: LOCKS_REVENUE stops them before they decide, LOCKS_OUTCOMES at their last write."""
    with psycopg.connect(service.database_url, connect_timeout=5) as connection:
        connection.execute(lock, values or None)
        try:
            yield Obstacle(service, connection)
        finally:
            connection.rollback()
