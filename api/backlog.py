"""How much is pending, and what the intake makes of it: nothing, a slower pace, or a refusal.

Accepting costs less than half of what applying costs. Clients that never wait would fill the backlog with seconds of
work, and the accepting would take the processor from the drains. So past PACE_FROM an answer takes a little longer:
clients that post as fast as they are answered settle at the drains' own speed, with a second of backlog.

Only while drains are at work: with every worker down there is nothing to wait for, and 202s come as fast as ever, up
to `max_backlog`.
"""

import asyncio
from typing import Any

import psycopg
import structlog

from ledger import db, inbox

log = structlog.get_logger()

LOOK_EVERY_S = 0.5  # a look reads at most 2 x PACE_FROM rows of the queue's index: 3 ms
PACE_FROM = 10_000  # pending commands: more than half a second of one worker's work
PACE_MAX_S = 0.2  # what an answer takes longer at 2 x PACE_FROM: two groups in flight still accept 10,000/s
FULL_EVERY = 4  # looks between two at the bound, which read as many rows as it is high: 50 ms for a million


class Backlog:
    """One per api process. As of half a second ago: a bound and a pace, not a ration."""

    def __init__(self, database_url: str, *, max_backlog: int) -> None:
        self._database_url = database_url
        self._max_backlog = max_backlog
        self._oldest: int | None = None
        self._task: asyncio.Task[None] | None = None
        self.full = False  # more than `max_backlog` are pending
        self.pace_s = 0.0  # how much longer an answer is to take

    def start(self) -> None:
        self._task = asyncio.create_task(self._watch(), name="backlog")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        connection: psycopg.AsyncConnection[Any] | None = None
        looks = 0
        while True:
            try:
                async with asyncio.timeout(db.STATEMENT_TIMEOUT_MS / 1_000 + 2):
                    if connection is None or connection.closed:
                        connection = await db.connect_async(self._database_url, application="bursar-backlog")
                    await self.look(connection)
                    if looks % FULL_EVERY == 0:
                        self.full = await inbox.backlog_exceeds(connection, self._max_backlog)
                    looks += 1
            except (psycopg.Error, TimeoutError) as fault:  # then the intake fails by itself
                log.warning("backlog.fault", error=type(fault).__name__)
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Set the pace: by how much is pending, and only if the oldest of it has moved since the last look."""
        pending, oldest = await inbox.backlog(connection, at_most=2 * PACE_FROM)
        drained = oldest != self._oldest
        self._oldest = oldest
        self.pace_s = PACE_MAX_S * max(0, pending - PACE_FROM) / PACE_FROM if drained else 0.0
