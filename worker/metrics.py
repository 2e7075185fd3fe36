"""The workers' figures for Prometheus, and what each of their processes shows (runtime.metrics)."""

from collections import Counter as Tally
from collections.abc import Callable
from typing import Literal

from prometheus_client import Counter, Gauge, Histogram

from ledger.commands import Command
from runtime.metrics import Outcomes, Rings, new_registry
from worker.sending import Answer, Failure

WokenBy = Literal["doorbell", "lookout", "due"]  # due: the look-out, for what is past its time; no doorbell was missed

_BATCH = (1, 3, 10, 30, 100, 200, 300, 400, 499, 500, 1_500)  # of 500 and more: a full one, perhaps with a group
# Seconds. A batch of 500 commits in 30 ms; seconds mean that somebody holds its locks.
_DRAIN_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_ATTEMPT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15)


class DrainMetrics:
    """One per worker process; its doorbells' thread and its look-out share it."""

    def __init__(self) -> None:
        self.registry = registry = new_registry("worker")
        self.outcomes = Outcomes(registry)
        self.rings = Rings(registry)
        self._commands = Histogram(
            "bursar_drain_commands",
            "Commands of one drain, by what woke it.",
            ["by"],
            buckets=_BATCH,
            registry=registry,
        )
        self._seconds = Histogram(
            "bursar_drain_seconds",
            "From the claim of one drain to its commit, by what woke it.",
            ["by"],
            buckets=_DRAIN_S,
            registry=registry,
        )
        self._failed = Counter(
            "bursar_drain_failures",
            "Drains rolled back: fault, of the surroundings; broken, by a command.",
            ["reason"],
            registry=registry,
        )
        self.quarantined = Counter(
            "bursar_quarantined_commands", "Commands that broke every drain and were given up.", registry=registry
        )
        for reason in ("fault", "broken"):
            self._failed.labels(reason)
        for by in ("doorbell", "lookout", "due"):  # an alert compares them: each must be there from the start
            self._commands.labels(by)
            self._seconds.labels(by)

    def drained(self, by: WokenBy, seconds: float, tally: Tally[tuple[type[Command], str, str]]) -> None:
        self._commands.labels(by).observe(tally.total())
        self._seconds.labels(by).observe(seconds)
        self.outcomes.count(tally)

    def failed(self, reason: Literal["fault", "broken"]) -> None:
        self._failed.labels(reason).inc()


class CourierMetrics:
    """One per courier."""

    def __init__(self) -> None:
        self.registry = registry = new_registry("courier")
        self.rings = Rings(registry)
        attempts = Counter(
            "bursar_webhook_attempts", "Attempts to deliver, by what came of them.", ["result"], registry=registry
        )
        self._attempts = {failure: attempts.labels(failure or "delivered") for failure in (None, *Failure)}
        self._seconds = Histogram(
            "bursar_webhook_attempt_seconds", "Length of one attempt.", buckets=_ATTEMPT_S, registry=registry
        )
        self.exhausted = Counter(
            "bursar_webhook_exhausted_deliveries", "Deliveries given up after their last retry.", registry=registry
        )
        disabled = Counter(
            "bursar_webhook_endpoints_disabled", "Endpoints disabled by the courier.", ["reason"], registry=registry
        )
        self.gone, self.failing = disabled.labels("gone"), disabled.labels("failing")
        self.faults = Counter("bursar_courier_faults", "Times that the courier lost PostgreSQL.", registry=registry)
        self._in_flight = Gauge("bursar_webhook_requests_in_flight", "Requests under way.", registry=registry)

    def watch(self, in_flight: Callable[[], int]) -> None:
        """Ask this for the requests under way at each scrape."""
        self._in_flight.set_function(in_flight)

    def attempted(self, answer: Answer) -> None:
        self._attempts[answer.failure].inc()
        self._seconds.observe(answer.took_s)
