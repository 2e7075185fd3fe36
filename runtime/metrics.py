"""Figures for Prometheus: what the api and the workers have in common.

Each process counts for itself and shows it at a port of its own; sums are PromQL's. A process that is killed takes its
series with it, and nothing that it left behind goes on being shown (docs/decisions/0025).
Label values are names of ours: never a wallet, a tenant, or anything else that a caller chooses.
"""

import platform
from collections.abc import Mapping
from importlib.metadata import version

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from ledger.commands import Command, type_of
from ledger.errors import Code
from runtime.settings import port_range

log = structlog.get_logger()

disable_created_metrics()  # a gauge beside each counter, for OpenMetrics readers that nobody here has


def new_registry(process: str) -> CollectorRegistry:
    """With what every process shows. One object per app: figures of two apps in one process do not mix."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    labels = ["process", "version", "python"]
    info = Gauge("bursar_build_info", "Always 1; the labels say what runs.", labels, registry=registry)
    info.labels(process, version("bursar"), platform.python_version()).set(1)
    return registry


class Outcomes:
    """Counted after the commit, a batch at a time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        help_text = "Commands that got their outcome; a cancelled group counts as of the type that was named."
        self._counter = Counter("bursar_outcomes", help_text, ["type", "status", "code"], registry=registry)

    def count(self, tally: Mapping[tuple[type[Command], str, str], int]) -> None:
        for (command, status, code), number in tally.items():
            self._counter.labels(type_of(command), status, code).inc(number)

    def cancelled(self, type_: str, number: int) -> None:
        self._counter.labels(type_, "cancelled", Code.CANCELLED).inc(number)


class Rings:
    """What became of this process's rings (runtime.doorbell)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        rings = Counter("bursar_doorbell_rings", "Rings, by whether Redis took them.", ["result"], registry=registry)
        self.sent, self.lost = rings.labels("sent").inc, rings.labels("lost").inc


def show(registry: CollectorRegistry, *, host: str, ports: str) -> int | None:
    """Serve /metrics from a thread, at the first of these ports that is free. None: none is, and the log has it."""
    for port in port_range(ports):
        try:
            start_http_server(port, addr=host, registry=registry)
        except OSError:
            continue
        return port
    log.error("metrics.no_port", ports=ports, hint="one for each worker process; this one goes on without")
    return None
