"""The api's figures for Prometheus: this process's own, and those of the whole service (ledger.overview)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.routing import BaseRoute, Route
from starlette.types import Scope

from ledger.operators import Audit
from ledger.overview import Database, Partition, Webhooks
from ledger.reads import Backlog
from runtime.metrics import Outcomes, Rings, new_registry

# Seconds. The targets of an unloaded service lie at 3 and 15 ms; seconds mean that PostgreSQL is away.
_LATENCY_S = (0.001, 0.002, 0.003, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_REQUEST_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)  # the longest wait is 30
_GROUP = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_ELSEWHERE = "unmatched"  # the route of a path that is none of ours

_APPLICATIONS = ("bursar-intake", "bursar-worker", "bursar-courier")  # that tell of an api, a worker, a courier


class Service(NamedTuple):
    """The whole service at the moment of a scrape."""

    backlog: Backlog
    partitions: Sequence[Partition]
    webhooks: Webhooks
    database: Database
    audit: Audit | None  # the last one; None: there was none


class Metrics:
    def __init__(self) -> None:
        self.registry = registry = new_registry("api")
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
        cancels = Counter("bursar_cancels", "Cancels asked for, by what became of them.", ["result"], registry=registry)
        self.cancelled = cancels.labels("cancelled")
        self.cancelled_before = cancels.labels("repeated")  # by another cancel
        self.cancelled_late = cancels.labels("too_late")  # it had another outcome
        self.outcomes = Outcomes(registry)
        self.rings = Rings(registry)
        self.requests = Requests(registry)
        self._waiting = Gauge("bursar_waiting_commands", "Commands that requests wait for.", registry=registry)
        self._feed = Gauge("bursar_feed_waiting_requests", "Requests that wait for outcomes.", registry=registry)
        self._pace = Gauge(
            "bursar_intake_pace_seconds", "How much longer answers take, for the drains to keep up.", registry=registry
        )
        self._redis_up = Gauge("bursar_redis_up", "1: Redis answered in time.", registry=registry)
        self._whole = _WholeService()
        registry.register(self._whole)

    def watch(self, *, waiting: Callable[[], int], feed: Callable[[], int], pace_s: Callable[[], float]) -> None:
        """Ask these at each scrape."""
        self._waiting.set_function(waiting)
        self._feed.set_function(feed)
        self._pace.set_function(pace_s)

    def render(self, service: Service | None, *, redis_up: bool) -> bytes:
        """The exposition. `service` None: the database did not say, and what it would have said is no number."""
        self._redis_up.set(redis_up)
        self._whole.service = service
        return generate_latest(self.registry)


class Requests:
    """Counts requests by route. A route is its template, so there are as many series as routes."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["method", "route"]
        self._answered = Counter(
            "bursar_http_requests",
            "Requests by route and status; 499: the client left before its answer.",
            [*labels, "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "bursar_http_request_seconds",
            "From a request to the end of its answer, what it was asked to wait for included.",
            labels,
            buckets=_REQUEST_S,
            registry=registry,
        )
        self._routes: dict[object, str] = {}
        self._seen: dict[tuple[str, str, int], tuple[Callable[[], None], Callable[[float], None]]] = {}

    def know(self, routes: Iterable[BaseRoute]) -> None:
        """By what each endpoint's requests are counted."""
        self._routes = {route.endpoint: route.path for route in routes if isinstance(route, Route)}

    def route(self, scope: Scope) -> str:
        """The template of the route that the request took."""
        return self._routes.get(scope.get("endpoint"), _ELSEWHERE)

    def answered(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        key = method, self.route(scope), status
        seen = self._seen.get(key)
        if seen is None:
            counted = self._answered.labels(*key[:2], str(status)).inc
            seen = self._seen[key] = counted, self._seconds.labels(*key[:2]).observe
        count, observe = seen
        count()
        observe(seconds)


class _WholeService(Collector):
    """The whole service's figures as of this scrape. Every api process tells the same: their maximum, not their sum."""

    def __init__(self) -> None:
        self.service: Service | None = None

    def collect(self) -> Iterator[Metric]:
        service = self.service
        unknown = float("nan")
        yield _gauge("bursar_database_up", "1: PostgreSQL answered in time.", service is not None)
        yield _gauge(
            "bursar_pending_commands",
            "Commands without an outcome; a group counts once.",
            unknown if service is None else service.backlog.pending,
        )
        yield _gauge(
            "bursar_oldest_pending_seconds",
            "Age of the oldest command without an outcome.",
            unknown if service is None else service.backlog.oldest_s,
        )
        if service is None:
            return
        partitions, webhooks, database = service.partitions, service.webhooks, service.database
        yield _labelled(
            "bursar_partition_pending_commands",
            "Commands without an outcome, by partition; counted up to some 100,000 of each.",
            "partition",
            {str(each.partition): each.pending for each in partitions},
        )
        yield _labelled(
            "bursar_partition_oldest_pending_seconds",
            "Age of the oldest command without an outcome, by partition.",
            "partition",
            {str(each.partition): each.oldest_s for each in partitions},
        )
        states = {"enabled": webhooks.enabled, "failing": webhooks.failing, "disabled": webhooks.disabled}
        yield _labelled(
            "bursar_webhook_endpoints", "Webhook endpoints by state; failing ones are enabled.", "state", states
        )
        deliveries = {"due": webhooks.due, "waiting": webhooks.waiting, "exhausted": webhooks.exhausted}
        yield _labelled(
            "bursar_webhook_deliveries",
            "Deliveries that are due, wait for another attempt, or were given up; up to 10,000 of each endpoint.",
            "state",
            deliveries,
        )
        yield _gauge(
            "bursar_webhook_oldest_due_seconds",
            "For how long a delivery has been due at an endpoint that is well.",
            webhooks.overdue_s,
        )
        yield _labelled(
            "bursar_database_sessions",
            "Sessions of a kind of process in PostgreSQL; a worker process has one or two.",
            "application",
            {name: database.count(name) for name in _APPLICATIONS},
        )
        audit = service.audit
        yield _gauge(
            "bursar_audit_passed",
            "1: the last audit found every invariant to hold; NaN: there was none.",
            unknown if audit is None else not any(finding.breaches for finding in audit.findings),
        )
        yield _gauge(
            "bursar_audit_timestamp_seconds",
            "When the last audit began; 0: there was none.",
            0 if audit is None else audit.at.timestamp(),
        )
        yield _gauge("bursar_database_connections", "Connections to PostgreSQL, whose ever.", database.connections)
        yield _gauge("bursar_database_connections_max", "As many as it takes.", database.connections_max)


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)


def _labelled(name: str, help_text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family
