"""The bundled load generator: `python -m bursar.bench.load PLAN` does what a Plan says, prints a LoadResult.

It shares the cores with what it measures, so it must be cheap: HTTP/1.1 by hand on asyncio's protocols,
requests put together from few parts (posts.py), answers read no further than needed: about 10 µs a post.
"""

import asyncio
import contextlib
import sys
import time
from array import array
from collections import Counter, deque
from pathlib import Path
from typing import cast

import msgspec
import uvloop

from bursar.bench.figures import spread
from bursar.bench.plan import READY_MARK, RESULT_MARK, LoadResult, Plan
from bursar.bench.posts import WAIT_S, Posts

ANSWER_GRACE_S = 30  # after the load's end, for the answers still owed; longer than WAIT_S
RECONNECTS_PER_CONNECTION = 3  # a server that keeps hanging up is broken: the load must end, not loop


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one post on it."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self.due_s = 0.0
        self.waits = False
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own is none by inheritance

    def send(self, request: bytes, *, due_s: float, waits: bool) -> None:
        assert self._transport is not None
        self.due_s, self.waits, self.busy = due_s, waits, True
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._received:
            data = self._received + data
        head_end = data.find(b"\r\n\r\n")
        if head_end < 0 or len(data) < head_end + 4 + _content_length(data, head_end):
            self._received = data
            return
        self._received = b""
        self.busy = False
        self._load.answered(self, int(data[9:12]), data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _content_length(data: bytes, head_end: int) -> int:
    head = data[:head_end].lower()
    at = head.find(b"content-length:")
    if at < 0:
        return 0
    end = head.find(b"\r", at)
    return int(head[at + 15 : end if end >= 0 else head_end])


class Load:
    """One run of a Plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._rendering = Posts(plan)
        self._idle: list[Connection] = []
        self._overdue: deque[float] = deque()  # open loop: due times of posts that found no free connection
        self._accept_ms = array("d")
        self._outcome_ms = array("d")
        self._errors: Counter[str] = Counter()
        self._sent = self._posts = self._commands = self._late = self._connected = 0
        self._reconnects_left = plan.connections * RECONNECTS_PER_CONNECTION
        self._end_s = 0.0
        self._offering = plan.rate is not None
        self._quiet = asyncio.Event()
        self._reconnecting: set[asyncio.Task[None]] = set()

    async def run(self) -> LoadResult:
        plan = self._plan
        for _ in range(plan.connections):
            await self._connect()
        print(READY_MARK, flush=True)
        started_s = time.monotonic()
        self._end_s = started_s + plan.duration_s
        if plan.rate is None:
            while self._idle and self._more(time.monotonic()):
                self._post(self._idle.pop(), due_s=time.monotonic())
        else:
            await self._offer(plan.rate, started_s)
        limit_s = max(0.0, self._end_s - time.monotonic()) + ANSWER_GRACE_S
        try:
            await asyncio.wait_for(self._quiet.wait(), limit_s)
        except TimeoutError:
            self._errors["no answer"] += self._connected - len(self._idle)
        if self._posts and self._rendering.blind:
            self._errors["ids not found in the answers"] += 1
        return LoadResult(
            generator="bundled",
            posts=self._posts,
            commands=self._commands,
            errors=dict(self._errors),
            accept_ms=spread(self._accept_ms),
            outcome_ms=spread(self._outcome_ms),
            late=self._late,
        )

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        plan = self._plan
        _, connection = await loop.create_connection(lambda: Connection(self), plan.host, plan.port)
        self._connected += 1
        self._idle.append(connection)
        return connection

    async def _offer(self, rate: float, started_s: float) -> None:
        """Open loop: each post leaves when it is due, or as soon as a connection is free."""
        for number in range(round(rate * self._plan.duration_s)):
            due_s = started_s + number / rate
            if (delay_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(delay_s)
            if self._idle:
                self._post(self._idle.pop(), due_s=due_s)
            else:
                self._late += 1
                self._overdue.append(due_s)
        self._offering = False
        self._settle()

    def _more(self, now_s: float) -> bool:
        posts_max = self._plan.posts_max
        return now_s < self._end_s and (posts_max is None or self._sent < posts_max)

    def _post(self, connection: Connection, *, due_s: float) -> None:
        self._sent += 1
        waits = self._plan.wait_every > 0 and self._sent % self._plan.wait_every == 0
        connection.send(self._rendering.next(wait=waits), due_s=due_s, waits=waits)

    def answered(self, connection: Connection, status: int, data: bytes) -> None:
        now_s = time.monotonic()
        elapsed_ms = (now_s - connection.due_s) * 1000
        if status in (200, 202):
            self._rendering.answered(data)
            self._posts += 1
            self._commands += self._plan.batch
            if self._plan.batch > 1 and (refused := data.count(b'"problem"')):
                self._commands -= refused
                self._errors["item refused"] += refused
            if not connection.waits:
                self._accept_ms.append(elapsed_ms)
            elif status == 200:
                self._outcome_ms.append(elapsed_ms)
            else:
                self._errors[f"no outcome in {WAIT_S} s"] += 1
        else:
            self._errors[str(status)] += 1
        if self._overdue:
            self._post(connection, due_s=self._overdue.popleft())
        elif self._plan.rate is None and self._more(now_s):
            self._post(connection, due_s=now_s)
        else:
            self._idle.append(connection)
            self._settle()

    def lost(self, connection: Connection) -> None:
        self._connected -= 1
        if connection in self._idle:
            self._idle.remove(connection)
        if connection.busy:
            self._errors["connection lost"] += 1
        if (self._offering or self._more(time.monotonic())) and self._reconnects_left > 0:
            self._reconnects_left -= 1
            task = asyncio.ensure_future(self._replace())
            self._reconnecting.add(task)
            task.add_done_callback(self._reconnecting.discard)
        else:
            self._settle()

    async def _replace(self) -> None:
        try:
            connection = await self._connect()
        except OSError:
            self._errors["connection refused"] += 1
            self._settle()
            return
        if self._plan.rate is None:
            self._idle.remove(connection)
            self._post(connection, due_s=time.monotonic())

    def _settle(self) -> None:
        """Over once nothing more is to be sent and every connection that is left has its answer."""
        if self._connected == 0:
            self._quiet.set()
        more = self._offering if self._plan.rate is not None else self._more(time.monotonic())
        if not more and not self._overdue and len(self._idle) == self._connected:
            self._quiet.set()


def main() -> None:
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    with contextlib.suppress(KeyboardInterrupt):
        result = uvloop.run(Load(plan).run())
        print(RESULT_MARK + msgspec.json.encode(result).decode(), flush=True)


if __name__ == "__main__":
    main()
