"""What workers count: drains by what woke them, outcomes by what they are, and nothing that was rolled back."""

import socket
from urllib.request import urlopen

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from ledger import drain
from runtime.metrics import show
from tests.books import Bank
from tests.worker.conftest import Workshop, terminate
from worker.drain import Drainer
from worker.metrics import DrainMetrics


def figure(registry: CollectorRegistry, name: str, **labels: str) -> float:
    return registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def metrics() -> DrainMetrics:
    return DrainMetrics()


@pytest.fixture
def drainer(bank: Bank, workshop: Workshop, metrics: DrainMetrics) -> Drainer:
    return workshop.drainer(bank, metrics=metrics)


def test_a_drain_is_counted_with_its_size_and_its_outcomes(bank: Bank, drainer: Drainer, metrics: DrainMetrics) -> None:
    for wallet in ("alice", "bob"):
        bank.order("top_up", wallet, 5)
        bank.order("spend", wallet, 2)
    bank.order("spend", "carol", 1)
    drainer.run(task_id=None, by="lookout")
    registry = metrics.registry
    assert figure(registry, "bursar_drain_commands_sum", by="lookout") == 5
    assert figure(registry, "bursar_drain_commands_count", by="lookout") == 1
    assert figure(registry, "bursar_drain_commands_count", by="doorbell") == 0
    assert 0 < figure(registry, "bursar_drain_seconds_sum", by="lookout") < 60
    for type_, status, code, number in (
        ("top_up", "applied", "applied", 2),
        ("spend", "applied", "applied", 2),
        ("spend", "rejected", "wallet_not_found", 1),
    ):
        assert figure(registry, "bursar_outcomes_total", type=type_, status=status, code=code) == number


def test_looks_that_find_nothing_are_no_drains(drainer: Drainer, metrics: DrainMetrics) -> None:
    drainer.run(task_id=None)
    assert figure(metrics.registry, "bursar_drain_commands_count", by="doorbell") == 0


def test_what_is_rolled_back_is_not_counted(
    bank: Bank, drainer: Drainer, metrics: DrainMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit itself fails: what the drain wrote never was."""
    write = drain.apply

    def broken(connection: psycopg.Connection, *arguments: object, **named: object) -> object:
        written = write(connection, *arguments, **named)  # pyright: ignore[reportArgumentType]
        terminate(bank, connection)
        return written

    bank.order("top_up", "alice", 5)
    with monkeypatch.context() as patch:
        patch.setattr(drain, "apply", broken)
        drainer.run(task_id=None)
    registry = metrics.registry
    assert figure(registry, "bursar_drain_failures_total", reason="fault") == 1
    assert figure(registry, "bursar_outcomes_total", type="top_up", status="applied", code="applied") == 0
    drainer.run(task_id=None)
    assert figure(registry, "bursar_outcomes_total", type="top_up", status="applied", code="applied") == 1


def test_each_process_takes_the_first_free_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        first = taken.getsockname()[1]
        port = show(DrainMetrics().registry, host="127.0.0.1", ports=f"{first}-{min(first + 50, 65535)}")
        assert port is not None
        assert port > first
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            assert b'bursar_build_info{process="worker"' in answer.read()
        assert show(DrainMetrics().registry, host="127.0.0.1", ports=str(first)) is None
