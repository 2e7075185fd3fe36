"""The works about being told: how long an outcome takes to whoever wants to know of it, and what it costs to owe it.

A delay is from the time that stands in an outcome, which its drain took before it decided, to its arrival. So a drain
of many commands, as the first one after a start, delays all of them: each work begins with a load that does not count.
"""

import contextlib
import socket
import statistics
import time
from collections.abc import Generator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from bursar.bench import figures
from bursar.bench.figures import Spread
from bursar.bench.receiver import Arrival, Follower, Receiver
from bursar.bench.report import Telling, WorkFigures
from bursar.bench.stack import StackError

if TYPE_CHECKING:
    from bursar.bench.works import Bench

ENDPOINTS = 20  # of the work `deliveries`
HEALTHY = 98  # of the work `broken`, beside one that is dead and one that hangs
BROKEN_RATE = 10.0  # commands per second of it, each delivered HEALTHY times: a third of what a courier can
ARRIVED_S = 120.0  # limit for what a load owes
WARM = 20  # commands before the first window at least: statements are prepared, connections open
COURIER_S = 3.0  # of load after the first webhook: the courier delivers before Celery has started around it


class _Outcome(msgspec.Struct):
    at: datetime


class _Command(msgspec.Struct):
    outcome: _Outcome


class _Webhook(msgspec.Struct):
    timestamp: datetime


_webhook = msgspec.json.Decoder(_Webhook)
_command = msgspec.json.Decoder(_Command)


def feed(bench: "Bench") -> WorkFigures:
    """The delay to one event stream."""
    rate, seconds = bench.options.rate, bench.options.seconds
    follower = Follower(bench.target)
    try:
        warm = _post(bench, "feed", rate, max(bench.options.warmup_s, WARM / rate))
        before = len(follower.wait(warm, within_s=ARRIVED_S))
        posted = _post(bench, "feed", rate, seconds)
        came = follower.wait(before + posted, within_s=ARRIVED_S)[before:]
    finally:
        follower.stop()
    delay = figures.spread([(at - _command.decode(body).outcome.at.timestamp()) * 1_000 for at, body in came])
    return WorkFigures(
        name="feed",
        title=f"{rate:g} posts/s, one event stream",
        seconds=seconds,
        told=[Telling("to the event stream", delay_ms=delay)],
        problems=[*bench.settle("feed"), *_missing(posted, came)],
    )


def webhooks(bench: "Bench") -> WorkFigures:
    """The delay to one endpoint that answers at once."""
    rate, seconds = bench.options.rate, bench.options.seconds
    with _courier(bench), _receiving(bench, ["one"]) as receiver:
        warm = _post(bench, "webhooks", rate, max(bench.options.warmup_s, WARM / rate))
        receiver.wait(warm, within_s=ARRIVED_S)
        receiver.wait(_post(bench, "webhooks", rate, COURIER_S), within_s=ARRIVED_S)
        posted = _post(bench, "webhooks", rate, seconds)
        came = receiver.wait(posted, within_s=ARRIVED_S)
    return WorkFigures(
        name="webhooks",
        title=f"{rate:g} posts/s, one endpoint",
        seconds=seconds,
        told=[Telling("to the endpoint", delay_ms=_delays(came))],
        problems=[*bench.settle("webhooks"), *_missing(posted, came)],
    )


def deliveries(bench: "Bench") -> WorkFigures:
    """How many a courier delivers out of a backlog."""
    commands = bench.options.backlog
    with _receiving(bench, [f"{n}" for n in range(ENDPOINTS)]) as receiver:
        bench.fill("deliveries", commands)
        problems = bench.settle("deliveries")
        bench.progress("deliveries", 0.0)
        with _courier(bench):
            came = receiver.wait(commands * ENDPOINTS, within_s=ARRIVED_S)
    seconds = came[-1][0] - came[0][0] if len(came) > 1 else 0.0
    return WorkFigures(
        name="deliveries",
        title=f"a backlog of {commands:,} outcomes, owed to {ENDPOINTS} endpoints each",
        seconds=seconds,
        told=[Telling(f"to {ENDPOINTS} endpoints", per_s=len(came) / seconds if seconds else 0.0)],
        problems=[*problems, *_missing(commands * ENDPOINTS, came)],
    )


def owing(bench: "Bench") -> WorkFigures:
    """A drain with nobody listening, and one that owes a delivery for each outcome, by turns."""
    began_s, count = time.monotonic(), bench.options.owing
    rates: dict[bool, list[float]] = {False: [], True: []}
    problems: list[str] = []
    for listening in (False, True) * bench.options.rounds:
        with _receiving(bench, ["one"] if listening else []):
            flows, found = bench.drain_once("owing", count)
        problems += found
        rates[listening].append(figures.drain_rate(flows)[0] if not found else 0.0)
    return WorkFigures(
        name="owing",
        title=f"drain alone, {count:,} pending, with and without an endpoint, {bench.options.rounds} rounds by turns",
        seconds=time.monotonic() - began_s,
        told=[
            Telling("no endpoint", per_s=statistics.median(rates[False])),
            Telling("a delivery each", per_s=statistics.median(rates[True])),
        ],
        problems=problems,
    )


def broken(bench: "Bench") -> WorkFigures:
    """The delay to healthy endpoints, beside a dead and a hanging one and without them, by turns."""
    seconds = max(1.0, bench.options.seconds / 4)
    delays: dict[bool, list[float]] = {False: [], True: []}
    problems: list[str] = []
    # The receiver goes before the courier, which would wait for what hangs.
    with _courier(bench), _receiving(bench, [f"{n}" for n in range(HEALTHY)]) as receiver, _dead_port() as dead:
        for warm_s in (WARM / BROKEN_RATE, COURIER_S):
            receiver.wait(HEALTHY * _post(bench, "broken", BROKEN_RATE, warm_s), within_s=ARRIVED_S)
        for beside in (False, True) * bench.options.rounds:
            bad = [f"http://127.0.0.1:{dead}/dead", receiver.url("hang")] if beside else []
            with _listening(bench, bad):
                posted = _post(bench, "broken", BROKEN_RATE, seconds)
                came = receiver.wait(HEALTHY * posted, within_s=ARRIVED_S)
            problems += _missing(HEALTHY * posted, came)
            delays[beside] += _delays_of(came)
    return WorkFigures(
        name="broken",
        title=f"{BROKEN_RATE:g} posts/s, {HEALTHY} endpoints, with and without a dead and a hanging one by turns",
        seconds=2 * bench.options.rounds * seconds,
        told=[
            Telling(f"to {HEALTHY} healthy", delay_ms=figures.spread(delays[False])),
            Telling(f"to {HEALTHY} beside a dead and a hanging one", delay_ms=figures.spread(delays[True])),
        ],
        problems=[*problems, *bench.settle("broken")],
    )


# --- parts -----------------------------------------------------------------------------------------------------------


def _post(bench: "Bench", what: str, rate: float, seconds: float) -> int:
    """Single commands at this rate; how many were accepted. Raises StackError where one was not."""
    running = bench.start(bench.plan(rate=rate, duration_s=seconds))
    bench.wait(what, seconds)
    result = running.result()
    if result.errors:
        raise StackError(f"{what}: {result.errors}")
    return result.commands


@contextlib.contextmanager
def _receiving(bench: "Bench", paths: Sequence[str]) -> Generator[Receiver]:
    """A receiver, with an endpoint for each path that wants every outcome."""
    receiver = Receiver()
    try:
        with _listening(bench, [receiver.url(path) for path in paths]):
            yield receiver
    finally:
        receiver.stop()


@contextlib.contextmanager
def _listening(bench: "Bench", urls: Sequence[str]) -> Generator[None]:
    """Endpoints, deleted in the end."""
    made: list[str] = []
    try:
        for url in urls:
            status, answer = bench.target.request("POST", "/v1/webhook_endpoints", {"url": url})
            if status != 201:
                raise StackError(f"an endpoint could not be registered: {status} {answer}")
            made.append(answer["id"])
        yield
    finally:
        for id_ in made:
            bench.target.request("DELETE", f"/v1/webhook_endpoints/{id_}")


@contextlib.contextmanager
def _courier(bench: "Bench") -> Generator[None]:
    stack = bench.own_stack()
    stack.start_courier()
    try:
        yield
    finally:
        stack.stop_courier()


@contextlib.contextmanager
def _dead_port() -> Generator[int]:
    """A port that refuses: it is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def _delays(came: Sequence[Arrival]) -> Spread | None:
    return figures.spread(_delays_of(came))


def _delays_of(came: Sequence[Arrival]) -> list[float]:
    return [(at - _webhook.decode(body).timestamp.timestamp()) * 1_000 for at, body in came]


def _missing(expected: int, came: Sequence[Arrival]) -> list[str]:
    return [] if len(came) == expected else [f"{expected} were owed, {len(came)} came"]
