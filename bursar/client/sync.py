"""The client for threads. It performs the steps of flows (bursar.client.core) and decides nothing."""

import atexit
import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, Unpack

import httpx2

from bursar.client import wire
from bursar.client.answers import Command, Preview, Wallet
from bursar.client.buffer import Buffer, Fired, Firing
from bursar.client.core import Core, Flow, Idle, Open, Read, Result, Retries, Send, Sleep, Step, Told
from bursar.client.filters import Filters, filters
from bursar.client.orders import Order
from bursar.client.verbs import Verbs


class _Line:
    """Performs steps, one flow at a time where it opens a stream."""

    def __init__(
        self,
        http: httpx2.Client,
        *,
        sleep: Callable[[float], None] = time.sleep,
        idle: Callable[[], bool] = lambda: False,
    ) -> None:
        self._http = http
        self._sleep = sleep
        self._idle = idle
        self._open: httpx2.Response | None = None
        self._parts: Iterator[bytes] = iter(())

    def run(self, flow: Flow[Any]) -> Any:
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
                came = self._perform(step)
            except wire.Failure as error:
                came = wire.lost(error)

    def close(self) -> None:
        if self._open is not None:
            self._open.close()

    def _perform(self, step: Step) -> Any:
        match step:
            case Send():
                response = self._http.send(wire.built(self._http, step))
                return wire.answer(response, response.content)
            case Open():
                self.close()
                self._open = self._http.send(wire.built(self._http, step), stream=True)
                self._parts = self._open.iter_bytes()
                return wire.answer(self._open, b"" if self._open.status_code == 200 else self._open.read())
            case Read():
                return next(self._parts, b"")
            case Sleep(seconds):
                return self._sleep(seconds)
            case Idle():
                return self._idle()
            case Told():
                raise AssertionError("for the caller")


class Outcomes(Iterator[Command]):
    """The feed, from a cursor on: `for command in client.outcomes(cursor)`. Connections that break are its own affair.

    `cursor`: where it is. After a command it is that command's own; with filters it moves on without one, too.
    """

    def __init__(
        self, http: httpx2.Client, core: Core, cursor: str | None, wanted: Filters, idle_s: float | None
    ) -> None:
        self.cursor = cursor
        self._line = _Line(http)
        self._flow = core.follow(cursor, filters(wanted), idle_s)

    def __next__(self) -> Command:
        while told := self._line.run(self._flow):
            self.cursor = told.cursor
            if told.command is not None:
                return told.command
        self.close()
        raise StopIteration

    def close(self) -> None:
        self._flow.close()
        self._line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class BackgroundSender:
    """Sends what is in a buffer, from a thread of its own, which starts with the first order."""

    def __init__(self, http: httpx2.Client, core: Core, buffer: Buffer) -> None:
        self._buffer = buffer
        self._changed = threading.Condition(buffer.lock)
        self._stopped = threading.Event()
        self._line = _Line(http, sleep=self._sleep, idle=self._idle)
        self._core = core
        self._thread: threading.Thread | None = None
        buffer.changed = self._changed.notify_all

    def fire(self, order: Order) -> str:
        with self._changed:
            while not self._buffer.put(order):
                self._changed.wait()
            if self._thread is None:
                atexit.register(self.close)
                self._thread = threading.Thread(target=self._work, name="bursar-client", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return order.idempotency_key

    def flush(self, timeout_s: float | None) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._buffer.empty, timeout_s)

    def close(self) -> None:
        """Sends what is left, as long as it may take; then gives up the rest."""
        atexit.unregister(self.close)
        with self._changed:
            self._buffer.closed = True
            self._changed.notify_all()
        if self.flush(self._buffer.firing.exit_s):
            if self._thread is not None:
                self._thread.join(self._buffer.firing.exit_s)
            return
        self._stopped.set()
        self._buffer.give_up()

    def _work(self) -> None:
        with contextlib.suppress(wire.Abandoned):
            self._line.run(self._core.deliver(self._buffer))

    def _idle(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._buffer.closed or not self._buffer.empty)
            return not self._buffer.empty

    def _sleep(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise wire.Abandoned


def send_the_rest(http: httpx2.Client, core: Core, buffer: Buffer) -> None:
    """Here and now, without a thread: what is left in a buffer that nobody else sends any more."""
    ends_at = time.monotonic() + buffer.firing.exit_s

    def sleep(seconds: float) -> None:
        if time.monotonic() + seconds >= ends_at:
            raise wire.Abandoned
        time.sleep(seconds)

    buffer.closed, buffer.changed = True, lambda: None  # nobody waits for it any more
    with contextlib.suppress(wire.Abandoned):
        _Line(http, sleep=sleep, idle=lambda: not buffer.empty).run(core.deliver(buffer))
    buffer.give_up()


class Client(Verbs[Command, Command | None, list[Result], Preview, list[Preview], Wallet, str]):
    """Safe to share between threads. Close it, or use it as a context manager: that sends what `fire` has not yet sent.

    `timeout_s`: to connect, and without a byte of an answer. Proxies and certificates of the environment count for
    nothing: `proxy` and `verify` say them.
    """

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
        self._http = httpx2.Client(**wire.options(url, api_key, verify, proxy))
        self._core = Core(timeout_s=timeout_s, retries=retries or Retries())
        self._buffer = Buffer(firing or Firing())
        self._sender = BackgroundSender(self._http, self._core, self._buffer)

    def _run(self, flow: Flow[Any]) -> Any:
        return _Line(self._http).run(flow)

    def outcomes(
        self, cursor: str | None = None, *, idle_s: float | None = None, **wanted: Unpack[Filters]
    ) -> Outcomes:
        """What became of all that this client sent, from behind the cursor on; without one, from now on.

        It never ends by itself, unless no outcome came for `idle_s`. Raises CursorExpired where the cursor is too old.
        """
        return Outcomes(self._http, self._core, cursor, wanted, idle_s)

    def fire(self, order: Order) -> str:
        """Put it into the buffer, to be sent in the background; its idempotency key. See Firing for a full buffer."""
        return self._sender.fire(order)

    @property
    def fired(self) -> Fired:
        return self._buffer.fired

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until all that was fired has its answer; False: not within this time."""
        return self._sender.flush(timeout_s)

    def close(self) -> None:
        """Sends what was fired (Firing.exit_s), then closes the connections. Again is nothing."""
        self._sender.close()
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._url!r})"
