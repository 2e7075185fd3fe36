"""The api's figures for Prometheus. One object per app: figures of two apps in one process do not mix."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from ledger.reads import Backlog

disable_created_metrics()  # a gauge beside each counter, for OpenMetrics readers that nobody here has

# Seconds. The targets of an unloaded service lie at 3 and 15 ms; seconds mean that PostgreSQL is away.
_LATENCY_S = (0.001, 0.002, 0.003, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_GROUP = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)


class Metrics:
    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        commands = Counter("bursar_commands", "Commands posted, by what became of them.", ["result"], registry=registry)
        self.accepted = commands.labels("accepted")
        self.replayed = commands.labels("replayed")  # a key that was there, with the same request
        self.mismatched = commands.labels("mismatched")  # a key that was there, with another request
        self.group_size = Histogram(
            "bursar_intake_group_commands", "Commands of one group commit.", buckets=_GROUP, registry=registry
        )
        self.accept_seconds = Histogram(
            "bursar_accept_seconds", "From a command's request to its commit.", buckets=_LATENCY_S, registry=registry
        )
        self._waiting = Gauge("bursar_waiting_commands", "Commands that requests wait for.", registry=registry)
        self._feed = Gauge("bursar_feed_waiting_requests", "Requests that wait for outcomes.", registry=registry)
        self._pending = Gauge("bursar_pending_commands", "Commands without an outcome.", registry=registry)
        self._oldest_s = Gauge(
            "bursar_oldest_pending_seconds", "Age of the oldest command without an outcome.", registry=registry
        )
        self._database_up = Gauge("bursar_database_up", "1: PostgreSQL answered in time.", registry=registry)
        ProcessCollector(registry=registry)

    def watch_waiting(self, waiting: Callable[[], int]) -> None:
        """Ask this for the number of waiting requests at each scrape."""
        self._waiting.set_function(waiting)

    def watch_feed(self, waiting: Callable[[], int]) -> None:
        self._feed.set_function(waiting)

    def render(self, backlog: Backlog | None) -> bytes:
        """The exposition. `backlog` None: the database did not say, and its figures are not numbers."""
        self._database_up.set(backlog is not None)
        self._pending.set(backlog.pending if backlog else float("nan"))
        self._oldest_s.set(backlog.oldest_s if backlog else float("nan"))
        return generate_latest(self.registry)
