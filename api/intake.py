"""Group commit: the requests that arrive while one INSERT is under way share the next one.

A commit costs the same for one row as for a thousand, so the group grows with the load and nobody waits for a timer.
A request is answered when its group is committed; then the partitions' doorbells ring.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import structlog

from api.backlog import Backlog
from ledger import db, inbox
from ledger.inbox import Accepted, NewCommand
from runtime.doorbell import Doorbell

log = structlog.get_logger()

# Rows of one INSERT, unless a single batch request brings more: a statement of this size takes 20 ms.
GROUP_MAX = 1_000
# Commands waiting for their group. At 10,000/s they leave within a second; past that the answer is 503, try again.
WAITING_MAX = 10_000
# Two groups in flight keep the api busy while PostgreSQL flushes; more would only make the groups smaller.
FLUSHERS = 2
# A PostgreSQL that hangs cannot end a statement by its own timeout. A little longer than that one, so that it may.
STORE_MAX_S = db.STATEMENT_TIMEOUT_MS / 1_000 + 2
DEADLOCKS_MAX = 3  # the keys of a retried batch, in another order, meet once; thrice is bad luck, more is a fault


class Overloaded(Exception):
    """More commands wait to be stored than this process will hold. Nothing was stored."""


class Unavailable(Exception):
    """PostgreSQL did not answer. The commands may or may not be stored: the same keys tell."""


class _Submission:
    __slots__ = ("answer", "atomic", "commands")

    def __init__(
        self, commands: Sequence[NewCommand], answer: "asyncio.Future[list[Accepted | None]]", *, atomic: bool
    ) -> None:
        self.commands = commands
        self.answer = answer
        self.atomic = atomic  # all of them or none, in a transaction of their own


class Intake:
    """Accepts commands for one api process. Start it in the event loop that serves the requests."""

    def __init__(
        self,
        database_url: str,
        doorbell: Doorbell,
        *,
        backlog: Backlog,
        grouped: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._database_url = database_url
        self._doorbell = doorbell
        self._backlog = backlog
        self._grouped = grouped  # told the size of each group, for the metrics
        self._queue: deque[_Submission] = deque()
        self._queued = 0
        self._arrived = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._flush(), name=f"intake-{n}") for n in range(FLUSHERS)]

    async def stop(self) -> None:
        """Requests have ended by now; nothing is queued."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def submit(self, commands: Sequence[NewCommand], *, atomic: bool = False) -> list[Accepted | None]:
        """Store the commands in order; returns after the commit. Raises Overloaded, Unavailable.

        `atomic`: as one group. If any of their keys is there, nothing is stored, and None answers those that are not.
        """
        if self._queued + len(commands) > WAITING_MAX:
            raise Overloaded
        answer: asyncio.Future[list[Accepted | None]] = asyncio.get_running_loop().create_future()
        self._queue.append(_Submission(commands, answer, atomic=atomic))
        self._queued += len(commands)
        self._arrived.set()
        return await answer

    def _take(self) -> list[_Submission]:
        group: list[_Submission] = []
        size = 0
        while self._queue and (not group or self._joins(self._queue[0], size)):
            submission = self._queue.popleft()
            group.append(submission)
            size += len(submission.commands)
            if submission.atomic:
                break
        self._queued -= size
        if not self._queue:
            self._arrived.clear()
        return group

    @staticmethod
    def _joins(submission: _Submission, size: int) -> bool:
        """Whether it is stored together with `size` commands before it."""
        return not submission.atomic and size + len(submission.commands) <= GROUP_MAX

    async def _flush(self) -> None:
        connection: psycopg.AsyncConnection[Any] | None = None
        while True:
            await self._arrived.wait()
            group = self._take()
            if not group:
                continue
            try:
                if connection is None or connection.closed:
                    connection = await db.connect_async(self._database_url, application="bursar-intake")
                await self._store(connection, group)
            except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError) as fault:
                log.warning("intake.fault", error=type(fault).__name__, detail=str(fault).strip()[:200])
                self._fail(group, Unavailable())
                if connection is not None:
                    with contextlib.suppress(psycopg.Error):
                        await connection.close()
                    connection = None
            except BaseException as error:  # cancelled, or a defect: nobody may be left waiting for an answer
                self._fail(group, Unavailable())
                if not isinstance(error, Exception):
                    raise
                log.exception("intake.error")

    async def _store(self, connection: psycopg.AsyncConnection[Any], group: list[_Submission]) -> None:
        batch = [command for submission in group for command in submission.commands]
        try:
            async with asyncio.timeout(STORE_MAX_S):
                accepted = await self._accept(connection, batch, atomic=group[0].atomic)
        except psycopg.DataError:
            if len(group) == 1:
                raise
            for submission in group:  # one of them holds what PostgreSQL cannot store: the others must not suffer
                try:
                    await self._store(connection, [submission])
                except psycopg.DataError:
                    log.exception("intake.refused_by_database")
                    self._fail([submission], Unavailable())
            return
        self._grouped(len(batch))
        self._doorbell.ring_all({command.partition for command in batch})
        if self._backlog.pace_s > 0:
            await asyncio.sleep(self._backlog.pace_s)
        position = 0
        for submission in group:
            answers = accepted[position : position + len(submission.commands)]
            position += len(submission.commands)
            if not submission.answer.done():  # done: its client has gone
                submission.answer.set_result(list(answers))

    async def _accept(
        self, connection: psycopg.AsyncConnection[Any], batch: list[NewCommand], *, atomic: bool
    ) -> Sequence[Accepted | None]:
        """Two groups with the same keys in opposite order deadlock; PostgreSQL ends one of them, which goes again."""
        for _ in range(DEADLOCKS_MAX):
            with contextlib.suppress(psycopg.errors.DeadlockDetected):
                return await self._accept_once(connection, batch, atomic=atomic)
        return await self._accept_once(connection, batch, atomic=atomic)

    async def _accept_once(
        self, connection: psycopg.AsyncConnection[Any], batch: list[NewCommand], *, atomic: bool
    ) -> Sequence[Accepted | None]:
        return await (inbox.accept_group if atomic else inbox.accept)(connection, batch)

    @staticmethod
    def _fail(group: list[_Submission], error: Exception) -> None:
        for submission in group:
            if not submission.answer.done():
                submission.answer.set_exception(error)
