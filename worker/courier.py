"""The courier: takes what is due to webhook endpoints, posts it, and notes what came of it.

look ──► claim (an endpoint's advisory lock; what is due to it) ──► POST ──► settle
 ▲                                                                           │ in batches, a statement for many
 └────────────────────────────── whenever an attempt ended, or a doorbell rang, or a second has passed

An endpoint has one courier at a time; a process has one courier, an event loop in a thread of its own. Nothing is
locked in the database while a request is under way but the endpoint's advisory lock, which ends with the session.
Due times are in PostgreSQL: with Redis gone, deliveries go out a second later.
"""

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import LiteralString, NamedTuple

import msgspec
import psycopg
import structlog

from ledger import db, deliveries
from ledger.deliveries import Due, Event, Settled, Target
from ledger.outcomes import CommandState
from runtime import webhooks
from runtime.vault import Unsealable, Vault
from worker.metrics import CourierMetrics
from worker.sending import Answer, Failure, Sender

log = structlog.get_logger()

LOOK_EVERY_S = 1.0  # what a lost doorbell costs at most
PAUSE_AFTER_FAULT_S = 1.0
# Of one endpoint in the air at once: begins low, grows with success, falls to one with a failure. So an endpoint that
# hangs takes one connection of the process's, and a healthy one across an ocean (100 ms) gets 160 a second.
WINDOW_FIRST = 4
WINDOW_MAX = 16
IN_THE_AIR_MAX = 256  # of one process: sockets and a few KB each
FREE_SHARE = 4  # one endpoint has at most a quarter of what is free in the air: many slow ones leave places to others
ENDPOINTS_MAX = 1_000  # of one process: what a look costs, some 10 µs each
FETCH_AHEAD = 32  # deliveries of an endpoint that wait in memory for their turn
LANES_MAX = 100  # of one look into an endpoint that wants order
SETTLE_EVERY_S = 0.005  # a batch of outcomes is one commit

# Seconds until the next attempt, of the Standard Webhooks specification: ten attempts within three days and a half.
RETRIES_S = (5, 5 * 60, 30 * 60, 2 * 3_600, 5 * 3_600, 10 * 3_600, 14 * 3_600, 20 * 3_600, 24 * 3_600)
JITTER = 0.2  # of it, up or down: what failed together does not come back together
RETRY_AFTER_MAX_S = 3_600.0  # a receiver that asks for more is asked again within the hour
SLOW_DOWN = (429, 502, 503, 504)
GONE = 410
FAILING_MAX = timedelta(days=5)  # of nothing but failures; then it is disabled
# A courier that says nothing for so long, or does not take what it asked for, is frozen: PostgreSQL ends its session
# and gives its endpoints away. It says something every second.
SESSION_IDLE_MAX_MS = 10_000
OUR_FAULTS = (Failure.OVERLOADED, Failure.FAULT)  # they say nothing of the endpoint
DISABLED_GONE = "it answered 410 Gone"
DISABLED_FAILING = "nothing but failures for five days"
PURGE_EVERY_S = 60.0
PURGE_MAX = 1_000

_SESSION: LiteralString = """
SELECT set_config('idle_session_timeout', %b, false), set_config('tcp_user_timeout', %b, false)
"""

Clock = Callable[[], datetime]


async def limit_session(connection: deliveries.Connection) -> None:
    """The session ends, and with it its locks, where this process stands still."""
    await connection.execute(_SESSION, (str(SESSION_IDLE_MAX_MS),) * 2)


def utc_now() -> datetime:
    return datetime.now(UTC)


class _Letter(NamedTuple):
    """A delivery with what is to be sent: the webhook-id and the body."""

    due: Due
    id: str
    body: bytes


class _Served:
    """An endpoint that this courier has."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.ready: deque[_Letter] = deque()
        self.flying: set[int] = set()  # seqs that are not settled yet
        self.window = WINDOW_FIRST if target.failing_since is None else 1
        self.lane = -1  # where the next look into its lanes begins
        self.next_at = 0.0  # time.monotonic(): not before, for `max_per_second`
        self.maybe_more = True
        self.idle = False  # nothing to do at the last look
        self.over = False  # disabled: it gets nothing more
        self.turn = 0  # when it last had one

    @property
    def known(self) -> list[int]:
        return [*self.flying, *(letter.due.seq for letter in self.ready)]

    def end(self) -> None:
        self.over = True
        self.ready.clear()

    def hungry(self, now: datetime) -> bool:
        """Whether to look for what may be sent next."""
        return (
            self.maybe_more
            and not self.over
            and len(self.ready) < FETCH_AHEAD // 2
            and not _paused(self.target, now)
        )  # fmt: skip


class Courier:
    """`run` until `stop`; `wake` from any thread."""

    def __init__(
        self,
        database_url: str,
        vault: Vault,
        sender: Callable[[], Sender],
        *,
        retention: timedelta,
        clock: Clock = utc_now,
        retries_s: Sequence[float] = RETRIES_S,
        metrics: CourierMetrics | None = None,
    ) -> None:
        """`sender` makes one in the loop in which the courier runs."""
        self._database_url = database_url
        self._vault = vault
        self._make_sender = sender
        self._retention = retention
        self._clock = clock
        self._retries_s = retries_s
        self._metrics = metrics or CourierMetrics()
        self._metrics.watch(lambda: len(self._tasks))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._something = asyncio.Event()  # to do; each run has its own
        self._rung = self._stopping = False
        self._served: dict[int, _Served] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._done: list[tuple[_Served, _Letter, Answer, datetime]] = []
        self._turns = itertools.count(1)
        self._purging: dict[int, int] = {}  # endpoints of which there is more to look at, and behind which seq
        self._share = 0  # of the endpoints
        self._looked_at = self._purged_at = float("-inf")

    def wake(self) -> None:
        """Something may be due. From any thread."""
        self._rung = True
        self._stir()

    def stop(self) -> None:
        """Claim nothing more, and end when what is in the air has come down. From any thread."""
        self._stopping = True
        self._stir()

    @property
    def stopping(self) -> bool:
        return self._stopping

    def _stir(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._something.set)

    async def run(self) -> None:
        """Returns after `stop`. Faults of PostgreSQL are waited out."""
        self._something = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._sender = self._make_sender()
        try:
            while not self._stopping:
                try:
                    async with await db.connect_async(self._database_url, application="bursar-courier") as connection:
                        await limit_session(connection)
                        await self._serve(connection)
                except (psycopg.Error, OSError) as fault:
                    self._metrics.faults.inc()
                    log.warning("courier.fault", error=type(fault).__name__, detail=str(fault).strip()[:200])
                    await self._forget()
                    await asyncio.sleep(PAUSE_AFTER_FAULT_S)
        finally:
            await self._forget()
            await self._sender.close()

    async def _forget(self) -> None:
        """The session is over, and with it every claim: what is in the air will be sent again by whoever is next."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._served.clear()
        self._done.clear()
        self._looked_at = float("-inf")

    async def _serve(self, connection: deliveries.Connection) -> None:
        while True:
            self._something.clear()
            await self._settle(connection)
            if not self._stopping:
                await self._claim(connection)
                self._launch()
            elif not self._tasks and not self._done:
                return
            else:
                await deliveries.alive(connection)
            await self._pause()

    async def _pause(self) -> None:
        """Until there is something to do: an attempt that ended, a doorbell, a turn that has come, or the next look."""
        at, all_served = self._clock(), self._served.values()
        hungry = not self._stopping and any(served.hungry(at) and not served.ready for served in all_served)
        if self._done or hungry:
            await asyncio.sleep(SETTLE_EVERY_S)
            return
        now = time.monotonic()
        turns = [served.next_at for served in all_served if served.ready and served.next_at > now]
        until = now + LOOK_EVERY_S if self._stopping else min([self._looked_at + LOOK_EVERY_S, *turns])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(until - now, 0.001)):
                await self._something.wait()

    # --- claim -------------------------------------------------------------------------------------------------------

    async def _claim(self, connection: deliveries.Connection) -> None:
        looking = time.monotonic() - self._looked_at >= LOOK_EVERY_S
        if looking:
            self._looked_at = time.monotonic()
            await self._look_after(connection, self._clock())
        looking, self._rung = looking or self._rung, False
        now = self._clock()  # after that: what rings from here on is looked for again, and what rang is due by now
        if looking:
            for served in self._served.values():
                served.maybe_more = True
            await self._take(connection, now)
        await self._fetch(connection, now)

    async def _look_after(self, connection: deliveries.Connection, now: datetime) -> None:
        """Once a second: those that had nothing to do are left to whoever wants them; the others may have been changed,
        or disabled, or be more than this courier's share: those are left when what is in the air has come down."""
        left = [id_ for id_, served in self._served.items() if served.idle and not served.known]
        surplus = await self._surplus(connection)
        targets = await deliveries.targets(connection, list(self._served), now)
        for id_, served in self._served.items():
            served.idle = not served.known
            if id_ in targets and id_ not in surplus:
                served.target, served.over = targets[id_], False
            else:
                served.end()
                left.extend([] if served.flying or id_ in left else [id_])
        if left:
            await deliveries.leave(connection, left)
            for id_ in left:
                del self._served[id_]
        if self._purging or time.monotonic() - self._purged_at >= PURGE_EVERY_S:
            self._purged_at = time.monotonic()
            self._purging = await deliveries.purge(
                connection, now, retention=self._retention, most=PURGE_MAX, after=self._purging
            )

    async def _surplus(self, connection: deliveries.Connection) -> set[int]:
        """The endpoints beyond this courier's share, which another has room for."""
        self._share = min(ENDPOINTS_MAX, await deliveries.share(connection) or ENDPOINTS_MAX)
        busy = [id_ for id_, served in self._served.items() if not served.idle and not served.over]
        return set(busy[self._share :])

    async def _take(self, connection: deliveries.Connection, now: datetime) -> None:
        room = self._share - sum(not served.over for served in self._served.values())
        if room <= 0 or len(self._tasks) >= IN_THE_AIR_MAX:
            return
        if taken := await deliveries.take(connection, now, but=list(self._served), most=room):
            targets = await deliveries.targets(connection, taken, now)
            self._served |= {id_: _Served(target) for id_, target in targets.items()}
            if gone := [id_ for id_ in taken if id_ not in targets]:
                await deliveries.leave(connection, gone)

    async def _fetch(self, connection: deliveries.Connection, now: datetime) -> None:
        """Into memory what will be sent next."""
        hungry = {id_: served for id_, served in self._served.items() if served.hungry(now)}
        if not hungry:
            return
        # Those that are known already are among the soonest due, and are passed over below.
        wanted = {id_: len(served.known) + FETCH_AHEAD for id_, served in hungry.items()}
        found = await deliveries.due(connection, list(wanted.items()), now)
        counts = Counter(due.endpoint_id for due in found)
        for id_, served in hungry.items():
            served.maybe_more = counts[id_] == wanted[id_]
            if served.target.ordered:
                heads, served.lane = await deliveries.heads(
                    connection, id_, now, after_lane=served.lane, most=LANES_MAX
                )  # fmt: skip
                found.extend(heads)
                served.maybe_more = served.maybe_more or served.lane != -1
        known = {id_: set(served.known) for id_, served in hungry.items()}
        new = [due for due in found if due.seq not in known[due.endpoint_id]]
        if not new:
            return
        contents = await deliveries.contents(connection, sorted({due.seq for due in new}))
        messages = {due.seq: _message(due.seq, contents.get(due.seq)) for due in new}
        for due in new:
            served = self._served[due.endpoint_id]
            if (message := messages[due.seq]) is not None:
                served.ready.append(_Letter(due, *message))
            else:
                served.flying.add(due.seq)
                self._done.append((served, _Letter(due, "", b""), _fault("What it tells of cannot be read."), now))

    # --- post --------------------------------------------------------------------------------------------------------

    def _launch(self) -> None:
        """One of each endpoint in turn, as long as there are some that may fly."""
        now, at = time.monotonic(), self._clock()
        # Whoever had its turn longest ago comes first: with more endpoints than places the last ones would have none.
        waiting = sorted(self._served.values(), key=lambda served: served.turn)
        waiting = [served for served in waiting if not _paused(served.target, at)]
        while waiting:
            waiting = [
                served
                for served in waiting
                if served.ready and now >= served.next_at and len(served.flying) < self._window(served)
            ]
            for served in waiting:
                if len(self._tasks) >= IN_THE_AIR_MAX:
                    return
                letter, served.turn = served.ready.popleft(), next(self._turns)
                served.flying.add(letter.due.seq)
                if (most := served.target.max_per_second) is not None:
                    served.next_at = max(served.next_at, now - 1 / most) + 1 / most
                task = asyncio.create_task(self._attempt(served, letter))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _window(self, served: _Served) -> int:
        """How many it may have in the air now."""
        return min(served.window, max(1, (IN_THE_AIR_MAX - len(self._tasks)) // FREE_SHARE))

    async def _attempt(self, served: _Served, letter: _Letter) -> None:
        at, target = self._clock(), served.target
        try:
            keys, headers = self._opened(target)
            signed = webhooks.signed_headers(letter.id, letter.body, keys, unix_s=int(at.timestamp()))
        except Unsealable as error:
            log.error("courier.unsealable", endpoint=target.endpoint_id, detail=str(error))
            answer = _fault("No key that is set opens the endpoint's secrets.")
        except Exception as error:  # or it would be in the air for ever
            log.exception("courier.unsignable", endpoint=target.endpoint_id)
            answer = _fault(f"A defect of the courier: {type(error).__name__}.")
        else:
            answer = await self._post(letter.due, target.url, headers | signed, letter.body)
        self._done.append((served, letter, answer, at))
        self._something.set()

    async def _post(self, _due: Due, url: str, headers: dict[str, str], body: bytes) -> Answer:
        return await self._sender.post(url, headers, body)

    def _opened(self, target: Target) -> tuple[list[str], dict[str, str]]:
        """The secrets that sign, and the headers that go with every attempt. Raises Unsealable."""
        of = webhooks.OF_SECRET.format(target.tenant_id)
        keys = [self._vault.open(sealed, of=of).decode() for sealed in (target.secret, target.former_secret) if sealed]
        headers = {"Content-Type": webhooks.CONTENT_TYPE, "User-Agent": webhooks.USER_AGENT}
        if target.headers is not None:
            of = webhooks.OF_HEADERS.format(target.tenant_id)
            headers = msgspec.json.decode(self._vault.open(target.headers, of=of), type=dict[str, str]) | headers
        return keys, headers

    # --- settle ------------------------------------------------------------------------------------------------------

    async def _settle(self, connection: deliveries.Connection) -> None:
        """Note what has come down, in one transaction. Until then it counts as in the air."""
        done, self._done = self._done, []
        if not done:
            return
        now = self._clock()
        settled = [self._settled(letter, answer, at) for _, letter, answer, at in done]
        by_endpoint: dict[int, tuple[_Served, list[Answer]]] = {}
        for served, _, answer, _ in done:
            by_endpoint.setdefault(served.target.endpoint_id, (served, []))[1].append(answer)
        async with connection.transaction():
            await deliveries.settle(connection, settled)
            for served, answers in by_endpoint.values():
                await self._judge(connection, served, answers, now)
        self._metrics.exhausted.inc(sum(each.outcome == "exhausted" for each in settled))
        for served, letter, answer, _ in done:
            self._metrics.attempted(answer)
            served.flying.discard(letter.due.seq)
            served.window = min(served.window + 1, WINDOW_MAX) if answer.failure is None else 1
            served.maybe_more = served.maybe_more or served.target.ordered  # the next one of its lane

    def _settled(self, letter: _Letter, answer: Answer, at: datetime) -> Settled:
        due_at = None
        tried = letter.due.attempts % (len(self._retries_s) + 1)  # what is sent anew has all its retries before it
        if answer.failure is not None and tried < len(self._retries_s):
            pause_s = self._retries_s[tried] * random.uniform(1 - JITTER, 1 + JITTER)
            due_at = self._clock() + timedelta(seconds=max(pause_s, _asked_pause_s(answer)))
        return Settled(
            letter.due,
            delivered=answer.failure is None,
            due_at=due_at,
            at=at,
            status=answer.status,
            failure=answer.failure,
            detail=answer.detail or None,
            took_ms=round(answer.took_s * 1_000),
            body=answer.body,
        )

    async def _judge(
        self, connection: deliveries.Connection, served: _Served, answers: Sequence[Answer], now: datetime
    ) -> None:
        """The endpoint's health after these attempts: failing or not, to be spared for a while, or no use any more."""
        answers = [answer for answer in answers if answer.failure not in OUR_FAULTS]
        if not answers:
            return
        target = served.target
        failing_since = target.failing_since or now
        if any(answer.failure is None for answer in answers):
            failing_since = None
        pause_s = max(map(_asked_pause_s, answers))
        paused_until = now + timedelta(seconds=pause_s) if pause_s else target.paused_until
        if (failing_since, paused_until) != (target.failing_since, target.paused_until):
            health = {"failing_since": failing_since, "paused_until": paused_until}
            await deliveries.note_health(connection, target.endpoint_id, **health)
            served.target = replace(target, **health)
        gone = any(answer.status == GONE for answer in answers)
        if gone or (failing_since is not None and now - failing_since >= FAILING_MAX):
            served.end()
            reason = DISABLED_GONE if gone else DISABLED_FAILING
            if await deliveries.disable(connection, target, reason, now):
                (self._metrics.gone if gone else self._metrics.failing).inc()
                log.warning("courier.endpoint_disabled", endpoint=target.endpoint_id, reason=reason)


def _message(seq: int, content: CommandState | Event | None) -> tuple[str, bytes] | None:
    """None where what it tells of is gone, or is a defect of ours: that holds up nobody else."""
    if content is None:
        log.error("courier.unreadable", seq=seq, hint="what it tells of is gone")
        return None
    try:
        return webhooks.message(content)
    except Exception:
        log.exception("courier.unreadable", seq=seq)
        return None


def _fault(detail: str) -> Answer:
    return Answer(None, Failure.FAULT, detail, "", None, 0.0)


def _paused(target: Target, now: datetime) -> bool:
    return target.paused_until is not None and target.paused_until > now


def _asked_pause_s(answer: Answer) -> float:
    """What a receiver that is overwhelmed asks for, within bounds; 0: it asks for nothing."""
    if answer.status not in SLOW_DOWN or answer.retry_after_s is None:
        return 0.0
    return min(answer.retry_after_s, RETRY_AFTER_MAX_S)
