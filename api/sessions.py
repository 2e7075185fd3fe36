"""A few connections for transactions of the api's own making: a cancel, a preview, a projection, a close.

Each has a thread, because the ledger's functions that they call are the drain's, which are not asynchronous. How many
there are bounds what such requests can take from the others.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg

from api.problems import Problem, unavailable
from ledger import db

T = TypeVar("T")

SIZE = 4  # a cancel waits for a drain, some 30 ms: four serve a hundred a second at the worst
WAIT_MAX_S = 2.0  # for one of them to be free: longer than every healthy use of it
WORK_MAX_S = db.STATEMENT_TIMEOUT_MS / 1_000 + 2  # a PostgreSQL that hangs cannot end a statement by itself


class Sessions:
    """`application`: how its connections are named in pg_stat_activity. They are opened when they are first needed."""

    def __init__(self, database_url: str, *, application: str) -> None:
        self._database_url = database_url
        self._application = application
        self._free = asyncio.Semaphore(SIZE)
        self._threads = ThreadPoolExecutor(SIZE, thread_name_prefix=application)
        self._mine = threading.local()
        self._opened: list[psycopg.Connection[Any]] = []

    def start(self) -> None:
        """Nothing to do before somebody asks."""

    async def stop(self) -> None:
        """Requests have ended by now."""
        await asyncio.to_thread(self._threads.shutdown)
        for connection in self._opened:
            connection.close()

    async def run(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        """What `work` returns; it runs in a thread, on a connection that is in no transaction.

        Raises Problem, 503, where none is free in time or PostgreSQL does not answer, and what `work` raises.
        """
        try:
            async with asyncio.timeout(WAIT_MAX_S):
                await self._free.acquire()
        except TimeoutError as late:
            raise Problem("overloaded", "nothing was done; send again") from late
        running = asyncio.get_running_loop().run_in_executor(self._threads, self._run, work)
        running.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(WORK_MAX_S):
                return await asyncio.shield(running)
        except TimeoutError as late:
            raise unavailable() from late

    def _ended(self, running: "asyncio.Future[Any]") -> None:
        self._free.release()
        if not running.cancelled():
            running.exception()  # whoever waited has heard of it, or has gone

    def _run(self, work: Callable[[psycopg.Connection[Any]], T]) -> T:
        connection: psycopg.Connection[Any] | None = getattr(self._mine, "connection", None)
        if connection is None or connection.closed:
            connection = self._mine.connection = db.connect(self._database_url, application=self._application)
            self._opened = [other for other in self._opened if not other.closed] + [connection]
        return work(connection)
