"""Requests that wait for outcomes, and the one reader that serves them.

An announcement (runtime.announce) wakes the waiting requests it names; all that woke share one SELECT. Announcements
may be lost, so every LOOK_EVERY_S the reader also looks for everything that is being waited for.
"""

import asyncio
import contextlib
from collections.abc import Collection, Iterable
from typing import Any, cast

import psycopg
import redis.asyncio
import structlog

from api.feed import Feed
from ledger import db, outcomes
from ledger.outcomes import CommandState
from runtime.announce import CHANNEL, CLIENTS_CHANNEL, unpack

log = structlog.get_logger()

LOOK_EVERY_S = 1.0  # what a lost announcement costs at most
READ_MAX = 1_000  # rows of one read: a few milliseconds
READ_MAX_S = db.STATEMENT_TIMEOUT_MS / 1_000 + 2  # a PostgreSQL that hangs cannot end a statement by itself
WAITERS_MAX = 20_000  # waiting requests of one process; past that a request is answered with where its command stands
SUBSCRIBE_AGAIN_S = 0.5


class _Waiter:
    """An outcome to come, shared by all who wait for it."""

    __slots__ = ("count", "outcome")

    def __init__(self) -> None:
        self.count = 0
        self.outcome: asyncio.Future[CommandState] = asyncio.get_running_loop().create_future()


class Waiting:
    """One per api process, in the event loop that serves the requests."""

    def __init__(self, database_url: str, redis_url: str, *, feed: Feed) -> None:
        """`feed`: who else listens to announcements."""
        self._database_url = database_url
        self._redis_url = redis_url
        self._feed = feed
        self._waiters: dict[int, _Waiter] = {}
        self._stopping = False
        self._reads: dict[int, asyncio.Future[CommandState | None]] = {}  # seq → its present state
        self._looks: set[int] = set()  # seqs to look at for the waiters' sake
        self._wake = asyncio.Event()
        self._reading = asyncio.Lock()
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        jobs = {"reader": self._read(), "poller": self._poll(), "subscriber": self._subscribe()}
        self._tasks = [asyncio.create_task(job, name=f"waiting-{name}") for name, job in jobs.items()]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._connection is not None:
            await self._connection.close()

    @property
    def waiting(self) -> int:
        """How many commands are being waited for."""
        return len(self._waiters)

    async def state(self, seq: int) -> CommandState | None:
        """Where a command stands now. Raises psycopg.OperationalError."""
        return (await self.states((seq,))).get(seq)

    async def states(self, seqs: Collection[int]) -> dict[int, CommandState]:
        """Where these commands stand now. Concurrent calls share one read. Raises psycopg.OperationalError."""
        futures: dict[int, asyncio.Future[CommandState | None]] = {}
        for seq in seqs:
            future = self._reads.get(seq)
            if future is None:
                future = self._reads[seq] = asyncio.get_running_loop().create_future()
                self._wake.set()
            futures[seq] = future
        found = await asyncio.gather(*map(asyncio.shield, futures.values()))
        return {state.seq: state for state in found if state is not None}

    async def state_by_key(self, client_id: int, key: str) -> CommandState | None:
        try:
            async with asyncio.timeout(READ_MAX_S), self._reading:
                return await outcomes.state_by_key(await self._connected(), client_id, key)
        except TimeoutError as error:
            raise psycopg.OperationalError("no answer in time") from error

    async def outcomes(self, seqs: Collection[int], timeout_s: float) -> dict[int, CommandState]:
        """The commands with their outcomes, or where they stand when the time is up or the api stops.

        First comes the waiter, then a look: an outcome is either there to be seen, or yet to be announced.
        """
        waiters = {} if self._stopping else {seq: waiter for seq in set(seqs) if (waiter := self._waiter(seq))}
        self._looks.update(waiters)
        self._wake.set()
        try:
            if waiters:
                await asyncio.wait([waiter.outcome for waiter in waiters.values()], timeout=timeout_s)
        finally:
            for seq, waiter in waiters.items():
                waiter.count -= 1
                if waiter.count == 0 and self._waiters.get(seq) is waiter:
                    del self._waiters[seq]
        told = {seq: waiter.outcome for seq, waiter in waiters.items()}
        found = {seq: outcome.result() for seq, outcome in told.items() if outcome.done() and not outcome.cancelled()}
        return found | await self.states(set(seqs) - found.keys())

    def _waiter(self, seq: int) -> _Waiter | None:
        waiter = self._waiters.get(seq)
        if waiter is None:
            if len(self._waiters) >= WAITERS_MAX:
                return None
            waiter = self._waiters[seq] = _Waiter()
        waiter.count += 1
        return waiter

    def release(self) -> None:
        """The api stops: whoever waits is told where the command stands, and nobody waits from now on."""
        self._stopping = True
        for waiter in self._waiters.values():
            waiter.outcome.cancel()

    def announced(self, seqs: Iterable[int]) -> None:
        if self._waiters:
            woken = self._waiters.keys() & set(seqs)
            if woken:
                self._looks |= woken
                self._wake.set()

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = await db.connect_async(self._database_url, application="bursar-waiting")
        return self._connection

    async def _read(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            reads, self._reads = self._reads, {}
            looks, self._looks = self._looks, set()
            wanted = list(reads.keys() | (looks & self._waiters.keys()))
            try:
                for start in range(0, len(wanted), READ_MAX):
                    async with asyncio.timeout(READ_MAX_S), self._reading:
                        states = await outcomes.states(await self._connected(), wanted[start : start + READ_MAX])
                    for seq in wanted[start : start + READ_MAX]:
                        self._deliver(seq, states.get(seq), reads.get(seq))
            except (psycopg.Error, TimeoutError) as error:
                fault = psycopg.OperationalError("no answer in time") if isinstance(error, TimeoutError) else error
                log.warning("waiting.fault", error=type(error).__name__)
                with contextlib.suppress(psycopg.Error):
                    if self._connection is not None:
                        await self._connection.close()
                self._connection = None
                for future in reads.values():
                    if not future.done():
                        future.set_exception(fault)

    def _deliver(
        self, seq: int, state: CommandState | None, read: "asyncio.Future[CommandState | None] | None"
    ) -> None:
        if read is not None and not read.done():
            read.set_result(state)
        if state is None or state.status is None:
            return
        waiter = self._waiters.pop(seq, None)
        if waiter is not None and not waiter.outcome.done():
            waiter.outcome.set_result(state)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._waiters:
                self._looks |= self._waiters.keys()
                self._wake.set()

    async def _subscribe(self) -> None:
        while True:
            client = redis.asyncio.Redis.from_url(self._redis_url, socket_connect_timeout=1.0, health_check_interval=15)
            try:
                async with client.pubsub(ignore_subscribe_messages=True) as pubsub:
                    await pubsub.subscribe(CHANNEL, CLIENTS_CHANNEL)
                    while True:
                        message = cast(dict[str, Any] | None, await pubsub.get_message(timeout=None))
                        if message is not None and message["channel"] == CHANNEL.encode():
                            self.announced(unpack(message["data"]))
                        elif message is not None:
                            self._feed.announced(unpack(message["data"]))
            except (redis.RedisError, OSError, ValueError) as error:  # ValueError: no announcement of ours
                log.warning("announcements.lost", error=type(error).__name__, hint="waiting requests look every second")
            finally:
                with contextlib.suppress(redis.RedisError, OSError):
                    await client.aclose()
            await asyncio.sleep(SUBSCRIBE_AGAIN_S)
