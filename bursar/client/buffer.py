"""What was fired and has not arrived yet: bounded, in order, with a stated policy for when it is full."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from bursar.client.answers import Command
from bursar.client.orders import Order
from bursar.client.problems import BufferFull, BursarError, Closed, Unknown

log = logging.getLogger("bursar.client")

WhenFull = Literal["block", "drop_newest", "raise"]
Tell = Callable[[Order, BursarError], None]


@dataclass(frozen=True, slots=True)
class Firing:
    """How `fire` behaves.

    `buffer`: orders that may wait to be sent. `when_full`: `raise` BufferFull; `block` until there is a place; or
    `drop_newest`, the one that was to be fired. `exit_s`: seconds that closing, or the end of the process, waits for
    the buffer to empty.

    `on_refused` hears of each order that the service did not take, and why (never of a refusal by the books: that is an
    outcome, in the feed). `on_dropped` hears of each that was given up: with BufferFull for want of a place; with
    Unknown where the client was closed first. Both are called from the thread or task that found out.
    """

    buffer: int = 10_000
    when_full: WhenFull = "raise"
    on_refused: Tell | None = None
    on_dropped: Tell | None = None
    exit_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Fired:
    """Counts so far. `waiting`: in the buffer now."""

    waiting: int
    accepted: int
    refused: int
    dropped: int


class Buffer:
    """Safe to use from several threads. `changed` is called, with the lock held, when there is less in it."""

    def __init__(self, firing: Firing) -> None:
        if firing.buffer < 1 or firing.when_full not in ("block", "drop_newest", "raise"):
            raise ValueError(f"no such way of firing: {firing}")
        self.firing = firing
        self.lock = threading.RLock()
        self.closed = False
        self.changed: Callable[[], None] = lambda: None
        self._orders: deque[Order] = deque()
        self._accepted = self._refused = self._dropped = 0

    @property
    def fired(self) -> Fired:
        with self.lock:
            return Fired(len(self._orders), self._accepted, self._refused, self._dropped)

    @property
    def empty(self) -> bool:
        return not self._orders

    def put(self, order: Order) -> bool:
        """False: there is no place, and whoever fires waits for one. Raises BufferFull, Closed."""
        with self.lock:
            if self.closed:
                raise Closed("the client was closed; nothing was taken")
            if len(self._orders) < self.firing.buffer:
                self._orders.append(order)
                return True
            if self.firing.when_full == "block":
                return False
        full = BufferFull(f"{self.firing.buffer} orders wait to be sent")
        if self.firing.when_full == "raise":
            raise full
        self._drop(order, full)
        return True

    def oldest(self, most: int) -> list[Order]:
        """They stay in the buffer until `settle`."""
        with self.lock:
            return list(islice(self._orders, most))

    def settle(self, orders: Sequence[Order], results: Sequence[Command | BursarError]) -> None:
        """The oldest ones have their answer."""
        refused = [
            (order, result) for order, result in zip(orders, results, strict=True) if isinstance(result, Exception)
        ]
        with self.lock:
            if self.empty:  # given up meanwhile
                return
            for _ in orders:
                self._orders.popleft()
            self._accepted += len(orders) - len(refused)
            self._refused += len(refused)
            self.changed()
        for order, problem in refused:
            log.warning("a fired %s was not taken: %s", order.body["type"], problem)
            _tell(self.firing.on_refused, order, problem)

    def give_up(self) -> None:
        """All that is left. Some of it may have arrived: nobody knows."""
        with self.lock:
            left = list(self._orders)
            self._orders.clear()
            self.changed()
        for order in left:
            self._drop(order, Unknown([order.idempotency_key]))

    def _drop(self, order: Order, why: BursarError) -> None:
        with self.lock:
            self._dropped += 1
        log.warning("a fired %s was given up: %s", order.body["type"], why)
        _tell(self.firing.on_dropped, order, why)


def _tell(listener: Tell | None, order: Order, why: BursarError) -> None:
    if listener is None:
        return
    try:
        listener(order, why)
    except Exception:
        log.exception("whom a fired order's fate was told failed")
