"""Requests that wait for their client's next outcomes, long polls and event streams alike, and what wakes them.

An announcement names the clients that have something new (runtime.announce). It may be lost; so once a second one
statement asks for all who wait together. Who waits holds a few hundred bytes and neither a connection to PostgreSQL nor
a timer of its own but the one of its request.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import structlog

from api.problems import Problem
from ledger import db, feed
from ledger.feed import Cursor, Told

log = structlog.get_logger()

LOOK_EVERY_S = 1.0  # what a lost announcement costs at most
READ_MAX = 200  # outcomes of one read that looks for some: a few milliseconds
READS_AT_ONCE = 2  # connections; a read takes about a millisecond
READ_MAX_S = db.STATEMENT_TIMEOUT_MS / 1_000 + 2  # a PostgreSQL that hangs cannot end a statement by itself
WALK_MAX = 20  # reads of one look for outcomes that pass a rare filter; then the caller is told how far they went
NEWS_MAX = 1_000  # places that one statement asks for
WAITERS_MAX = 5_000  # of one process; each is an open connection of a client's


Wanted = Callable[[Told], bool]


class _Place:
    """What all that wait at one place, a client's cursor, share."""

    __slots__ = ("count", "news")

    def __init__(self) -> None:
        self.count = 0
        self.news = asyncio.Event()


class Feed:
    """One per api process, in the event loop that serves the requests."""

    def __init__(self, database_url: str, *, partitions: int, retention: timedelta) -> None:
        """`retention`: how far back a cursor may lie."""
        self._database_url = database_url
        self._partitions = partitions
        self._retention = retention
        self._places: dict[tuple[int, Cursor], _Place] = {}
        self._of_client: dict[int, set[tuple[int, Cursor]]] = {}
        self._free: asyncio.LifoQueue[psycopg.AsyncConnection[Any] | None] = asyncio.LifoQueue()
        self._waiting = 0
        self._stopping = False
        self._poller: asyncio.Task[None] | None = None

    def start(self) -> None:
        for _ in range(READS_AT_ONCE):
            self._free.put_nowait(None)
        self._poller = asyncio.create_task(self._poll(), name="feed-poller")

    async def stop(self) -> None:
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
        while not self._free.empty():
            if (connection := self._free.get_nowait()) is not None:
                await connection.close()

    def release(self) -> None:
        """The api stops: whoever waits is answered with what there is, and nobody waits from now on."""
        self._stopping = True
        for place in self._places.values():
            place.news.set()

    @property
    def waiting(self) -> int:
        return self._waiting

    @property
    def stopping(self) -> bool:
        return self._stopping

    def announced(self, clients: Iterable[int]) -> None:
        """These have something new."""
        if self._of_client:
            for client_id in clients:
                for key in list(self._of_client.get(client_id, ())):
                    self._leave(key).news.set()

    # --- what the routes ask ------------------------------------------------------------------------------------

    async def end(self, client_id: int) -> Cursor:
        """The cursor behind all that there is. Raises psycopg.OperationalError."""
        async with self._connection() as connection:
            return await feed.end(connection, client_id, self._partitions)

    async def next(
        self, client_id: int, cursor: Cursor, *, limit: int, wait_s: float, wanted: Wanted | None = None
    ) -> tuple[list[Told], Cursor]:
        """Outcomes behind the cursor that are wanted, and how far was looked; none: nothing came in that time.
        `wanted` None: all are.

        Raises Problem: 410 where the cursor is too old or of another database, 503 where too many wait;
        psycopg.OperationalError.
        """
        ends_at = asyncio.get_running_loop().time() + wait_s
        while True:
            with self._at(client_id, cursor) as place:
                found, passed = await self._look(client_id, cursor, limit, wanted)
                left_s = ends_at - asyncio.get_running_loop().time()
                if found or left_s <= 0 or self._stopping:
                    return found, passed
                if passed == cursor:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(left_s):
                            await place.news.wait()
            cursor = passed

    async def _look(
        self, client_id: int, cursor: Cursor, limit: int, wanted: Wanted | None
    ) -> tuple[list[Told], Cursor]:
        size = READ_MAX if wanted else limit
        for _ in range(WALK_MAX):
            async with self._connection() as connection:
                told = await feed.after(connection, client_id, cursor, limit=size)
                if not told and any(cursor) and max(cursor) > await feed.newest(connection):
                    raise Problem("cursor_expired", "the cursor is ahead of this database: was a backup restored?")
            oldest = feed.oldest(told)
            if oldest is not None and oldest < datetime.now(UTC) - self._retention:
                raise Problem("cursor_expired", f"what came after it is more than {self._retention.days} days old")
            found = [each for each in told if wanted is None or wanted(each)][:limit]
            if len(found) == limit:
                return found, found[-1].cursor
            if told:
                cursor = told[-1].cursor
            if found or len(told) < size:
                return found, cursor
        return [], cursor

    # --- waiting, and reading ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _at(self, client_id: int, cursor: Cursor) -> Generator[_Place]:
        """Stand at a place. Whoever does so before a look misses nothing that comes after it."""
        if self._waiting >= WAITERS_MAX:
            raise Problem("overloaded", f"{WAITERS_MAX} requests wait for outcomes here")
        key = client_id, cursor
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _Place()
            self._of_client.setdefault(client_id, set()).add(key)
        place.count += 1
        self._waiting += 1
        try:
            yield place
        finally:
            self._waiting -= 1
            place.count -= 1
            if place.count == 0 and self._places.get(key) is place:
                self._leave(key)

    def _leave(self, key: tuple[int, Cursor]) -> _Place:
        """Nobody stands here any more: those that stood here have news, or have gone."""
        of_client = self._of_client[key[0]]
        of_client.remove(key)
        if not of_client:
            del self._of_client[key[0]]
        return self._places.pop(key)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            waiting = list(self._places)
            try:
                for start in range(0, len(waiting), NEWS_MAX):
                    some = waiting[start : start + NEWS_MAX]
                    async with self._connection() as connection:
                        news = await feed.news(connection, some)
                    for n in news:
                        if some[n] in self._places:
                            self._leave(some[n]).news.set()
            except psycopg.Error as error:
                log.warning("feed.fault", error=type(error).__name__)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncGenerator[psycopg.AsyncConnection[Any]]:
        """One of the few, for a statement or two. Raises psycopg.OperationalError, also where none answers in time."""
        connection: psycopg.AsyncConnection[Any] | None = None
        try:
            async with asyncio.timeout(READ_MAX_S):
                connection = await self._free.get()
                try:
                    if connection is None or connection.closed:
                        connection = await db.connect_async(self._database_url, application="bursar-feed")
                    yield connection
                except BaseException as error:  # a request that was cut off leaves a statement under way
                    if connection is not None and not isinstance(error, Problem):
                        await asyncio.shield(connection.close())
                        connection = None
                    raise
                finally:
                    self._free.put_nowait(connection)
        except TimeoutError as late:
            raise psycopg.OperationalError("no answer in time") from late
