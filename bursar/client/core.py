"""The client without its sockets: what to send, what an answer means, whether and when to try again.

Every operation is a *flow*: a generator that yields steps (send this, sleep so long) and is given what came of each.
The two shells (bursar.client.sync, bursar.client.aio) perform steps and decide nothing, so that both do the same.
"""

import json
import logging
import random
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

from bursar.client.answers import Command, Preview, Wallet, command_from, preview_from, wallet_from
from bursar.client.buffer import Buffer
from bursar.client.events import EventReader
from bursar.client.orders import Order, check_key, json_bytes
from bursar.client.problems import BursarError, NotFound, Problem, Unknown, Unreachable, problem_from

log = logging.getLogger("bursar.client")

T = TypeVar("T")

BATCH_MAX = 1_000  # commands of one request: the service's own limit
BATCH_MAX_BYTES = 1_000_000  # of one request's body, below the service's 1 MiB
WAIT_MAX_S = 30  # the service waits no longer
QUIET_MAX_S = 40.0  # the feed says something every 15 s; a connection silent for so long is dead
_STREAM = "text/event-stream"
_AGAIN = (408, 425, 429)
# The same request would have been told the same at first: an attempt before that was lost has stored nothing.
_OF_THE_REQUEST_ITSELF = (400, 413, 415, 422, 431)


@dataclass(frozen=True, slots=True)
class Retries:
    """How often, how long and how patiently to try again. Pauses are random, up to a bound that doubles each time.

    `within_s`: seconds from the first attempt after which none begins (`wait_s` comes on top). A `Retry-After` is
    waited for up to `retry_after_max_s`. `Retries(attempts=1)` tries once.
    """

    attempts: int = 8
    within_s: float = 30.0
    first_s: float = 0.1
    cap_s: float = 5.0
    retry_after_max_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Request:
    """`keys`: the idempotency keys of what it may change."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    params: Mapping[str, str] = field(default_factory=dict[str, str])
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers` by lower-case name."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer. `sent`: the request may have arrived all the same."""

    reason: str
    sent: bool


# --- steps ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Comes to an Answer or a Lost. `timeout_s`: to connect, and without a byte of the answer."""

    request: Request
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Sleep:
    """Comes to nothing."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Open:
    """As Send, of an answer that streams: a 200 comes without its content, which is for Read. Closes the one before.

    `quiet_s`: what it may take until anything comes, at first and ever after.
    """

    request: Request
    timeout_s: float
    quiet_s: float


@dataclass(frozen=True, slots=True)
class Read:
    """Comes to some bytes of the open answer, b"" at its end, or a Lost."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Until the buffer has something. Comes to False where it never will again."""


@dataclass(frozen=True, slots=True)
class Told:
    """For whoever iterates: a command, or None where only the cursor has moved. Comes to nothing."""

    command: Command | None
    cursor: str


Step: TypeAlias = Send | Sleep | Open | Read | Idle | Told
Flow: TypeAlias = Generator[Step, Any, T]
Result: TypeAlias = Command | Problem


class Core:
    """Makes flows. `clock` in seconds; `jitter` gives a number from 0 to 1."""

    def __init__(
        self,
        *,
        timeout_s: float,
        retries: Retries,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._timeout_s = timeout_s
        self._retries = retries
        self._clock = clock
        self._jitter = jitter

    # --- commands ---------------------------------------------------------------------------------------------------

    def submit(self, order: Order, wait_s: int | None) -> Flow[Command]:
        headers = {"Idempotency-Key": order.idempotency_key, **_prefer(wait_s)}
        request = Request("POST", "/v1/commands", order.encoded, headers, keys=(order.idempotency_key,))
        return self._call(request, _read_command, wait_s=wait_s)

    def submit_many(self, orders: Sequence[Order], *, atomic: bool, wait_s: int | None) -> Flow[list[Result]]:
        results: list[Result] = []
        for batch in [orders] if atomic else batches(orders):
            results += yield from self._submit_batch(batch, atomic=atomic, wait_s=wait_s, retries=self._retries)
        return results

    def _submit_batch(
        self, orders: Sequence[Order], *, atomic: bool, wait_s: int | None, retries: Retries
    ) -> Flow[list[Result]]:
        body = _batch(orders, atomic=atomic)
        keys = tuple(order.idempotency_key for order in orders)
        request = Request("POST", "/v1/commands/batch", body, _prefer(wait_s), keys=keys)

        def read(answer: Answer) -> list[Result]:
            results = [_result(each) for each in json.loads(answer.content)["results"]]
            if len(results) != len(orders):
                raise ValueError(f"{len(results)} results of {len(orders)} commands")
            return results

        return self._call(request, read, wait_s=wait_s, retries=retries)

    def get(self, id: str, wait_s: int | None) -> Flow[Command]:
        request = Request("GET", f"/v1/commands/{quote(id, safe='')}", params=_wait(wait_s))
        return self._call(request, _read_command, wait_s=wait_s)

    def find(self, key: str, wait_s: int | None) -> Flow[Command | None]:
        params = {"idempotency_key": check_key(key), **_wait(wait_s)}
        try:
            return (yield from self._call(Request("GET", "/v1/commands", params=params), _read_command, wait_s=wait_s))
        except NotFound as problem:
            if problem.code != "command_not_found":
                raise
            return None

    def cancel(self, id: str) -> Flow[Command]:
        return self._cancel(Request("POST", f"/v1/commands/{quote(id, safe='')}/cancel"))

    def cancel_key(self, key: str) -> Flow[Command]:
        body = json_bytes({"idempotency_key": check_key(key)})
        return self._cancel(Request("POST", "/v1/commands/cancel", body, keys=(key,)))

    def _cancel(self, request: Request) -> Flow[Command]:
        """That it came too late is an answer, too: the command with its outcome."""
        try:
            return (yield from self._call(request, _read_command))
        except Problem as problem:
            if problem.code != "already_decided":
                raise
            return command_from(problem.members["command"])

    # --- reading ----------------------------------------------------------------------------------------------------

    def preview(self, order: Order) -> Flow[Preview]:
        request = Request("POST", "/v1/commands/preview", order.encoded)
        return self._call(request, lambda answer: preview_from(json.loads(answer.content)))

    def preview_many(self, orders: Sequence[Order]) -> Flow[list[Preview]]:
        request = Request("POST", "/v1/commands/batch/preview", _batch(orders, atomic=True))
        return self._call(
            request, lambda answer: [preview_from(each) for each in json.loads(answer.content)["results"]]
        )

    def wallet(self, id: str, after: str | None, wait_s: int | None) -> Flow[Wallet]:
        params = {} if after is None else {"after": after, **_wait(wait_s)}
        request = Request("GET", f"/v1/wallets/{quote(id, safe='')}", params=params)
        return self._call(request, lambda answer: wallet_from(json.loads(answer.content)), wait_s=wait_s)

    def newest_cursor(self) -> Flow[str]:
        return self._call(Request("GET", "/v1/outcomes"), lambda answer: str(json.loads(answer.content)["next_cursor"]))

    # --- one request, until it has its answer -----------------------------------------------------------------------

    def _call(
        self,
        request: Request,
        read: Callable[[Answer], T],
        *,
        wait_s: int | None = None,
        retries: Retries | None = None,
    ) -> Flow[T]:
        """What `read` makes of the answer. Raises Problem, Unreachable or Unknown."""
        retries = retries or self._retries
        wait_s = wait_s or 0
        ends_at = self._clock() + retries.within_s + wait_s
        unclear = False
        for attempt in count(1):
            left_s = max(0.05, ends_at - self._clock())
            got: Answer | Lost = yield Send(request, min(self._timeout_s + wait_s, left_s))
            fault: Problem | Unreachable
            if isinstance(got, Answer) and 200 <= got.status < 300:
                try:
                    return read(got)
                except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
                    fault = Unreachable(f"{request.method} {request.path}: the answer cannot be read: {error!r}")
            else:
                fault = _fault(request, got)
            unclear = unclear or _may_have_been_taken(got)
            pause_s = self._pause_s(retries, attempt, fault)
            if not _repeatable(fault) or attempt >= retries.attempts or self._clock() + pause_s >= ends_at:
                if unclear and request.keys and _status(fault) not in _OF_THE_REQUEST_ITSELF:
                    raise Unknown(request.keys) from fault
                raise fault
            log.info("%s %s: %s; again in %.2f s", request.method, request.path, fault, pause_s)
            yield Sleep(pause_s)
        raise AssertionError("count has no end")

    def _pause_s(self, retries: Retries, attempt: int, fault: BursarError) -> float:
        """Full jitter: who failed together does not come back together. Never before Retry-After, up to its bound."""
        random_s = self._jitter() * min(retries.cap_s, retries.first_s * 2.0 ** min(attempt - 1, 32))
        asked_s = fault.retry_after_s if isinstance(fault, Problem) else None
        return random_s if asked_s is None else min(asked_s, retries.retry_after_max_s) + random_s

    # --- the feed ---------------------------------------------------------------------------------------------------

    def follow(self, cursor: str | None, filters: Mapping[str, str], idle_s: float | None) -> Flow[None]:
        """Tells outcomes for ever, or until none came for `idle_s`; whatever breaks, it goes on behind the last one.

        Raises Problem where asking again would not help.
        """
        quiet_max_s = QUIET_MAX_S if idle_s is None else min(QUIET_MAX_S, idle_s)
        attempt, heard_at = 0, self._clock()
        while True:
            params = {**filters, **({} if cursor is None else {"after": cursor})}
            request = Request("GET", "/v1/outcomes", headers={"Accept": _STREAM}, params=params)
            opened_at = self._clock()
            got: Answer | Lost = yield Open(request, self._timeout_s, quiet_max_s)
            fault: BursarError
            if isinstance(got, Answer) and got.status == 200:
                events = EventReader()
                fault = Unreachable("the stream ended")
                while part := (yield Read()):
                    if isinstance(part, Lost):
                        fault = Unreachable(part.reason)
                        break
                    try:
                        for event in events.feed(part):
                            told = _told(event.name, event.data, event.id)
                            cursor = event.id or cursor
                            if told is not None:
                                attempt, heard_at = 0, self._clock()
                            if cursor is not None:
                                yield Told(told, cursor)
                    except Problem as problem:
                        fault = problem
                        break
                    except (ValueError, TypeError, LookupError, RecursionError) as error:
                        fault = Unreachable(f"an event cannot be read: {error!r}")
                        break
                    if idle_s is not None and self._clock() - heard_at >= idle_s:
                        return
            else:
                fault = _fault(request, got)
            if not _repeatable(fault):
                raise fault
            if idle_s is not None and self._clock() - heard_at >= idle_s:
                return
            if self._clock() - opened_at >= self._retries.cap_s:
                attempt = 0
            attempt += 1
            pause_s = self._pause_s(self._retries, attempt, fault)
            log.info("the feed of outcomes: %s; again in %.2f s", fault, pause_s)
            yield Sleep(pause_s)

    # --- fire and forget --------------------------------------------------------------------------------------------

    def deliver(self, buffer: Buffer) -> Flow[None]:
        """Sends what is in the buffer, batch after batch in its order, each until it has an answer; ends with it."""
        patient = replace(self._retries, attempts=sys.maxsize, within_s=float("inf"))
        while (yield Idle()):
            orders = next(batches(buffer.oldest(BATCH_MAX)))
            try:
                results: Sequence[Command | BursarError] = yield from self._submit_batch(
                    orders, atomic=False, wait_s=None, retries=patient
                )
            except BursarError as fault:
                results = [fault] * len(orders)
            buffer.settle(orders, results)


def batches(orders: Iterable[Order]) -> Generator[list[Order]]:
    """In their order, each of as many as one request may carry."""
    batch: list[Order] = []
    size = 0
    for order in orders:
        more = len(order.item) + 1
        if batch and (len(batch) == BATCH_MAX or size + more > BATCH_MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(order)
        size += more
    if batch:
        yield batch


# --- requests ------------------------------------------------------------------------------------------------------


def _batch(orders: Sequence[Order], *, atomic: bool) -> bytes:
    items = b",".join(order.item for order in orders)
    return b'{"commands":[%b],"atomic":%b}' % (items, b"true" if atomic else b"false")


def _prefer(wait_s: int | None) -> dict[str, str]:
    return {"Prefer": f"wait={wait_s}"} if wait_s else {}


def _wait(wait_s: int | None) -> dict[str, str]:
    return {"wait": str(wait_s)} if wait_s else {}


# --- answers -------------------------------------------------------------------------------------------------------


def _read_command(answer: Answer) -> Command:
    return command_from(json.loads(answer.content), replayed=answer.headers.get("idempotent-replayed") == "true")


def _result(shown: Mapping[str, Any]) -> Result:
    if "command" in shown:
        return command_from(shown["command"], replayed=shown.get("idempotent_replayed") is True)
    return problem_from(shown["status"], shown["problem"])


def _told(name: str, data: str, id: str | None) -> Command | None:
    """The command of an event; None of one that only moves the cursor. Raises Problem where that is the event."""
    if name == "problem":
        problem = json.loads(data)
        raise problem_from(problem["status"], problem)
    return command_from(json.loads(data), cursor=id) if name.startswith("command.") else None


def _fault(request: Request, got: Answer | Lost) -> Problem | Unreachable:
    if isinstance(got, Lost):
        return Unreachable(f"{request.method} {request.path}: {got.reason}")
    try:
        members = json.loads(got.content)
    except (ValueError, RecursionError):
        members = None
    return problem_from(got.status, members, retry_after_s=_retry_after_s(got.headers.get("retry-after")))


def _retry_after_s(value: str | None) -> float | None:
    """Seconds, or a date (RFC 9110, 10.2.3); None where there is none that can be read."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (at.astimezone(UTC) - datetime.now(UTC)).total_seconds())


def _status(fault: BursarError) -> int | None:
    return fault.status if isinstance(fault, Problem) else None


def _repeatable(fault: BursarError) -> bool:
    """The very same request may fare better later. A 409 only where the service says so: it is in flight."""
    if not isinstance(fault, Problem):
        return True
    return fault.status >= 500 or fault.status in _AGAIN or (fault.status == 409 and fault.retryable)


def _may_have_been_taken(got: Answer | Lost) -> bool:
    if isinstance(got, Lost):
        return got.sent
    return got.status >= 500 or got.status < 300 or got.status == 408
