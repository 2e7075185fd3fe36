"""The client for asyncio. It performs the steps of flows (bursar.client.core) and decides nothing."""

import asyncio
import atexit
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar, Unpack

import httpx2

from bursar.client import sync, wire
from bursar.client.answers import Command, Preview, Wallet
from bursar.client.buffer import Buffer, Fired, Firing
from bursar.client.core import Core, Flow, Idle, Open, Read, Result, Retries, Send, Sleep, Step, Told
from bursar.client.filters import Filters, filters
from bursar.client.orders import Order
from bursar.client.verbs import Verbs

T = TypeVar("T")

Awaited: TypeAlias = Coroutine[Any, Any, T]


async def _no_more() -> bool:
    return False


class _Line:
    """Performs steps, one flow at a time where it opens a stream."""

    def __init__(self, http: httpx2.AsyncClient, *, idle: Callable[[], Awaited[bool]] = _no_more) -> None:
        self._http = http
        self._idle = idle
        self._open: httpx2.Response | None = None
        self._parts: AsyncIterator[bytes] | None = None

    async def run(self, flow: Flow[Any]) -> Any:
        """What the flow comes to, or the next Told: then run it again."""
        came: Any = None
        while True:
            try:
                step = flow.send(came)
            except StopIteration as end:
                return end.value
            if isinstance(step, Told):
                return step
            try:
                came = await self._perform(step)
            except wire.Failure as error:
                came = wire.lost(error)

    async def close(self) -> None:
        if self._open is not None:
            await self._open.aclose()

    async def _perform(self, step: Step) -> Any:
        match step:
            case Send():
                response = await self._http.send(wire.built(self._http, step))
                return wire.answer(response, response.content)
            case Open():
                await self.close()
                self._open = await self._http.send(wire.built(self._http, step), stream=True)
                self._parts = self._open.aiter_bytes()
                return wire.answer(self._open, b"" if self._open.status_code == 200 else await self._open.aread())
            case Read():
                assert self._parts is not None
                return await anext(self._parts, b"")
            case Sleep(seconds):
                return await asyncio.sleep(seconds)
            case Idle():
                return await self._idle()
            case Told():
                raise AssertionError("for the caller")


class AsyncOutcomes(AsyncIterator[Command]):
    """The feed, from a cursor on: `async for command in client.outcomes(cursor)`. As bursar.client.sync.Outcomes."""

    def __init__(
        self, http: httpx2.AsyncClient, core: Core, cursor: str | None, wanted: Filters, idle_s: float | None
    ) -> None:
        self.cursor = cursor
        self._line = _Line(http)
        self._flow = core.follow(cursor, filters(wanted), idle_s)

    async def __anext__(self) -> Command:
        while told := await self._line.run(self._flow):
            self.cursor = told.cursor
            if told.command is not None:
                return told.command
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._flow.close()
        await self._line.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()


class AsyncBackgroundSender:
    """Sends what is in a buffer, from a task of its own, which starts with the first order."""

    def __init__(self, http: httpx2.AsyncClient, core: Core, buffer: Buffer) -> None:
        self._buffer = buffer
        self._changed = asyncio.Event()
        self._line = _Line(http, idle=self._idle)
        self._core = core
        self._task: asyncio.Task[None] | None = None
        buffer.changed = self._changed.set

    async def fire(self, order: Order) -> str:
        await self._until(lambda: self._buffer.put(order))
        if self._task is None or self._task.done():  # done: somebody cancelled it
            self._task = asyncio.create_task(self._line.run(self._core.deliver(self._buffer)), name="bursar-client")
        self._changed.set()
        return order.idempotency_key

    async def flush(self, timeout_s: float | None) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                await self._until(lambda: self._buffer.empty)
        except TimeoutError:
            return False
        return True

    async def aclose(self) -> None:
        """Sends what is left, as long as it may take; then gives up the rest."""
        self._buffer.closed = True
        self._changed.set()
        await self.flush(self._buffer.firing.exit_s)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._buffer.give_up()

    async def _idle(self) -> bool:
        await self._until(lambda: self._buffer.closed or not self._buffer.empty)
        return not self._buffer.empty

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


class AsyncClient(
    Verbs[
        Awaited[Command],
        Awaited[Command | None],
        Awaited[list[Result]],
        Awaited[Preview],
        Awaited[list[Preview]],
        Awaited[Wallet],
        Awaited[str],
    ]
):
    """As bursar.Client, for one event loop: `await client.spend(…)`."""

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout_s: float = 10.0,
        retries: Retries | None = None,
        firing: Firing | None = None,
        verify: ssl.SSLContext | bool = True,
        proxy: str | None = None,
    ) -> None:
        self._url = url
        self._options = wire.options(url, api_key, verify, proxy)
        self._http = httpx2.AsyncClient(**self._options)
        self._core = Core(timeout_s=timeout_s, retries=retries or Retries())
        self._buffer = Buffer(firing or Firing())
        self._sender = AsyncBackgroundSender(self._http, self._core, self._buffer)
        self._fires = False

    async def _run(self, flow: Flow[Any]) -> Any:
        return await _Line(self._http).run(flow)

    def outcomes(
        self, cursor: str | None = None, *, idle_s: float | None = None, **wanted: Unpack[Filters]
    ) -> AsyncOutcomes:
        """As bursar.Client.outcomes: `async for command in client.outcomes(cursor)`."""
        return AsyncOutcomes(self._http, self._core, cursor, wanted, idle_s)

    async def fire(self, order: Order) -> str:
        """Put it into the buffer, to be sent in the background; its idempotency key. See Firing for a full buffer."""
        if not self._fires:
            self._fires = True
            atexit.register(self._at_exit)
        return await self._sender.fire(order)

    @property
    def fired(self) -> Fired:
        return self._buffer.fired

    async def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until all that was fired has its answer; False: not within this time."""
        return await self._sender.flush(timeout_s)

    async def aclose(self) -> None:
        """Sends what was fired (Firing.exit_s), then closes the connections. Again is nothing."""
        atexit.unregister(self._at_exit)
        await self._sender.aclose()
        await self._http.aclose()

    def _at_exit(self) -> None:
        """The loop is gone, and nobody closed the client: what was fired goes out all the same."""
        if not self._buffer.empty:
            with httpx2.Client(**self._options) as http:
                sync.send_the_rest(http, self._core, self._buffer)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._url!r})"
