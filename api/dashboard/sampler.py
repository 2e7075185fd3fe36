"""The figures of the overview: one sampler per api process, however many look on.

It samples tenants whose overview was open within the last hour, every TICK_S while somebody looks and every REST_S
after that, on a connection of its own. What a sample asks is bounded (ledger.sampling), and nothing is written.
"""

import asyncio
import contextlib
import time
from collections import Counter, deque
from typing import Any

import msgspec
import psycopg
import redis.asyncio
import structlog
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from ledger import db, operators, reads, sampling
from ledger.sampling import Marks

log = structlog.get_logger()

TICK_S = 2.0  # live enough to watch; five short statements
REST_S = 10.0  # while nobody looks: the history goes on
HISTORY_S = 3_600.0
SAMPLES_MAX = int(HISTORY_S / TICK_S)  # of one tenant: an hour, some 1 MB
TENANTS_MAX = 16  # sampled by one process: 16 MB; a seventeenth takes the place of the one that is unseen for longest
SLOW_EVERY = 5  # ticks between two looks at what changes slowly: workers, webhooks, supply, the last audit
COUNTED_MAX = 2_000  # pending commands counted in each partition at every tick: 2 ms for all eight together
COUNTED_SLOWLY_MAX = 10_000  # … and at the slow ones: 10 ms; past that "more" says as much
SAMPLE_MAX_S = 5.0  # a PostgreSQL that takes longer is down, as far as the overview is concerned
REDIS_MAX_S = 0.5
ASSETS_MAX = 12  # whose supply is shown; the page of assets has all


class Sample(msgspec.Struct, frozen=True, gc=False):
    """`at`: unix time in seconds. Rates are of the tenant, per second. None: not known."""

    at: float
    accepted: float | None = None
    applied: float | None = None
    refused: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    pending: int | None = None
    oldest_s: float | None = None
    codes: dict[str, int] = {}


class State(msgspec.Struct):
    """What is so now. `database_ms`, `redis_ms` None: it does not answer."""

    database_ms: float | None = None
    redis_ms: float | None = None
    queues: list[sampling.Queue] = []
    sessions: dict[str, sampling.Sessions] = {}
    webhooks: sampling.Webhooks | None = None
    supply: list[reads.Supply] = []
    scales: dict[str, int] = {}
    audit: operators.Audit | None = None
    refused: dict[str, int] = {}  # by code, over the history

    @property
    def workers(self) -> sampling.Sessions | None:
        return self.sessions.get("bursar-worker")

    @property
    def couriers(self) -> sampling.Sessions | None:
        return self.sessions.get("bursar-courier")

    @property
    def stuck(self) -> bool:
        """Work waits, and nothing has been begun for a while."""
        return any(queue.oldest_s > 10 for queue in self.queues)


class Watch:
    """One tenant's history, and what is so now."""

    def __init__(self, tenant_id: int) -> None:
        self.tenant_id = tenant_id
        self.samples: deque[Sample] = deque(maxlen=SAMPLES_MAX)
        self.state = State()
        self.viewers = 0
        self.seen_at = time.monotonic()
        self.marks: deque[tuple[float, Marks]] = deque(maxlen=3)
        self.ticks = 0
        self._refused: Counter[str] = Counter()
        self._next = asyncio.Event()

    def add(self, sample: Sample) -> None:
        if len(self.samples) == SAMPLES_MAX:
            self._refused -= Counter(self.samples[0].codes)
        self.samples.append(sample)
        self._refused += Counter(sample.codes)
        self.state.refused = dict(self._refused.most_common())
        self._next.set()
        self._next = asyncio.Event()

    def wake(self) -> None:
        self._next.set()

    async def next(self) -> None:
        """Returns when there is a sample more."""
        await self._next.wait()


class TooManyTenants(Exception):
    """TENANTS_MAX others are looked at."""


class Sampler:
    def __init__(self, database_url: str, redis_url: str, engine: AsyncEngine) -> None:
        self._database_url = database_url
        self._redis_url = redis_url
        self._engine = engine
        self._watches: dict[int, Watch] = {}  # by tenant, the one seen longest ago first
        self._somebody = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._redis: redis.asyncio.Redis | None = None
        self.stopping = False

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="sampler")

    async def stop(self) -> None:
        self.release()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._close()
        if self._redis is not None:
            with contextlib.suppress(RedisError, OSError):
                await self._redis.aclose()

    def release(self) -> None:
        """The api stops: whoever looks on is let go."""
        self.stopping = True
        for watch in self._watches.values():
            watch.wake()

    @property
    def viewers(self) -> int:
        return sum(watch.viewers for watch in self._watches.values())

    def watch(self, tenant_id: int) -> Watch:
        """The tenant's figures, sampled from now on. Raises TooManyTenants."""
        watch = self._watches.pop(tenant_id, None)
        if watch is None:
            watch = Watch(tenant_id)
            if len(self._watches) >= TENANTS_MAX:
                unseen = next((each for each, other in self._watches.items() if not other.viewers), None)
                if unseen is None:
                    raise TooManyTenants
                del self._watches[unseen]
        watch.seen_at = time.monotonic()
        self._watches[tenant_id] = watch
        self._somebody.set()
        return watch

    async def _run(self) -> None:
        while True:
            await self._somebody.wait()
            began = time.monotonic()
            for watch in list(self._watches.values()):
                await self._sample(watch)
            self._forget()
            looked_at = any(w.viewers or time.monotonic() - w.seen_at < REST_S for w in self._watches.values())
            self._somebody.clear()
            pause = max(0.1, (TICK_S if looked_at else REST_S) - (time.monotonic() - began))
            if not self._watches:
                continue
            if looked_at:
                await asyncio.sleep(pause)
            else:
                with contextlib.suppress(TimeoutError):  # a new viewer need not wait for the end of the rest
                    await asyncio.wait_for(self._somebody.wait(), pause)
            self._somebody.set()

    def _forget(self) -> None:
        now = time.monotonic()
        for tenant_id, watch in list(self._watches.items()):
            if not watch.viewers and now - watch.seen_at > HISTORY_S:
                del self._watches[tenant_id]

    async def _sample(self, watch: Watch) -> None:
        """Raises nothing: a server that is down is a figure, too, and a defect ends one sample."""
        if watch.viewers:
            watch.seen_at = time.monotonic()
        slow = watch.ticks % SLOW_EVERY == 0
        watch.ticks += 1
        await self._ask_redis(watch.state)
        try:
            async with asyncio.timeout(SAMPLE_MAX_S):
                sample = await self._ask_database(watch, slow=slow)
        except (psycopg.Error, SQLAlchemyError, OSError, TimeoutError) as fault:
            log.warning("sampler.fault", error=type(fault).__name__)
            await self._close()
            watch.state.database_ms = None
            watch.marks.clear()
            sample = Sample(time.time())
        except Exception:
            log.exception("sampler.broken")
            await self._close()
            watch.marks.clear()
            sample = Sample(time.time())
        watch.add(sample)

    async def _ask_database(self, watch: Watch, *, slow: bool) -> Sample:
        if self._connection is None or self._connection.closed:
            self._connection = await db.connect_async(self._database_url, application="bursar-sampler")
        connection, state = self._connection, watch.state
        began = time.perf_counter()
        marks = await sampling.marks(connection)
        state.database_ms = 1_000 * (time.perf_counter() - began)
        watch.marks.append((time.monotonic(), marks))
        queues = await sampling.queues(connection, at_most=COUNTED_SLOWLY_MAX if slow else COUNTED_MAX)
        known = {queue.partition: queue.pending for queue in state.queues}
        state.queues = [
            msgspec.structs.replace(queue, pending=max(queue.pending, known.get(queue.partition, 0)))
            if not slow and queue.pending >= COUNTED_MAX
            else queue
            for queue in queues
        ]
        if slow:
            state.sessions = await sampling.sessions(connection)
            state.webhooks = await sampling.webhooks(connection, watch.tenant_id)
            await self._ask_slowly(watch)
        pending = sum(queue.pending for queue in state.queues)
        sample = Sample(time.time(), pending=pending, oldest_s=max((q.oldest_s for q in state.queues), default=0.0))
        if len(watch.marks) < 3:
            return sample
        # Of the stretch before the last: who took a number in it has committed by now.
        (since, after), (until, upto), _ = watch.marks
        took_s = until - since
        accepted = await sampling.accepted(connection, watch.tenant_id, after=after, upto=upto)
        decided = await sampling.decided(connection, watch.tenant_id, after=after, upto=upto)
        return msgspec.structs.replace(
            sample,
            accepted=accepted / took_s,
            applied=decided.applied / took_s,
            refused=sum(decided.refused.values()) / took_s,
            p50_ms=decided.p50_ms,
            p99_ms=decided.p99_ms,
            codes=decided.refused,
        )

    async def _ask_slowly(self, watch: Watch) -> None:
        async with self._engine.connect() as pooled:
            connection = await pooled.execution_options(isolation_level="AUTOCOMMIT")
            watch.state.supply = await reads.supply(connection, watch.tenant_id, after="", limit=ASSETS_MAX)
            assets = await reads.assets(connection, watch.tenant_id, after="", limit=ASSETS_MAX)
            watch.state.scales = {asset.code: asset.scale for asset in assets}
            watch.state.audit = await operators.last_audit(connection)

    async def _ask_redis(self, state: State) -> None:
        if self._redis is None:
            self._redis = redis.asyncio.Redis.from_url(
                self._redis_url, socket_timeout=REDIS_MAX_S, socket_connect_timeout=REDIS_MAX_S
            )
        began = time.perf_counter()
        try:
            async with asyncio.timeout(REDIS_MAX_S):
                await self._redis.ping()
            state.redis_ms = 1_000 * (time.perf_counter() - began)
        except (RedisError, OSError, TimeoutError):
            state.redis_ms = None

    async def _close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                await self._connection.close()
        self._connection = None
