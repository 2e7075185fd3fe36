"""docs/metrics.md tells of every metric, and their names keep to Prometheus' conventions."""

import re
import shutil
import subprocess
from dataclasses import dataclass

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

from api.metrics import Metrics, Service
from ledger.overview import Database, Partition, Webhooks
from ledger.reads import Backlog
from tests.docs.pages import OPERATING, ROOT, rows
from worker.metrics import CourierMetrics, DrainMetrics

PAGE = ROOT / "docs/metrics.md"
SERVICE = Service(
    Backlog(1, 2.0),
    [Partition(0, 1, False, 2.0, 0, None, None, None, None)],
    Webhooks(1, 0, 0, 0, 0, 0, 0.0),
    Database("18", "0016", "0016", 1, 100, []),
    None,
)
SUFFIXES = {"counter": "_total", "gauge": "", "histogram": ""}
# Units that are not base units, types in names, and what the formats of Prometheus add by themselves.
FORBIDDEN = re.compile(
    r"_(ms|millis\w*|micros\w*|minutes?|hours?|days?|kb|mb|kilobytes|percent|counter|gauge|histogram|bucket|count|sum|info_\w+)(_|$)"
)


@dataclass(frozen=True)
class Shown:
    type: str
    labels: frozenset[str]


def registries() -> list[CollectorRegistry]:
    api = Metrics()
    api.render(SERVICE, redis_up=True)
    return [api.registry, DrainMetrics().registry, CourierMetrics().registry]


def families() -> list[Metric]:
    """Every metric of ours, by family; those of several processes several times."""
    return [family for registry in registries() for family in registry.collect() if family.name.startswith("bursar_")]


def label_names() -> dict[str, frozenset[str]]:
    """Also of those that have no series yet."""
    found: dict[str, frozenset[str]] = {}
    for registry in registries():
        for name, collector in registry._names_to_collectors.items():
            if isinstance(collector, MetricWrapperBase):
                found[name] = frozenset(collector._labelnames)
    return found


def shown() -> dict[str, Shown]:
    declared = label_names()
    return {
        family.name + SUFFIXES[family.type]: Shown(
            family.type,
            declared.get(family.name)
            or frozenset(label for sample in family.samples for label in sample.labels) - {"le"},
        )
        for family in families()
    }


def documented() -> dict[str, Shown]:
    return {
        row[0].strip("` "): Shown(row[1], frozenset(re.findall(r"`(\w+)`", row[2]))) for row in rows(PAGE.read_text())
    }


def test_the_page_tells_of_every_metric_with_its_type_and_labels() -> None:
    assert documented() == shown()


def test_a_metric_stands_once_in_the_page() -> None:
    named = [row[0] for row in rows(PAGE.read_text())]
    assert len(named) == len(set(named))


@pytest.mark.parametrize("name", sorted(shown()))
def test_names_keep_to_the_conventions(name: str) -> None:
    assert re.fullmatch(r"bursar(_[a-z]+)+", name)
    assert not FORBIDDEN.search(name)
    assert name.endswith("_total") == (shown()[name].type == "counter")
    for label in shown()[name].labels:
        assert re.fullmatch(r"[a-z]+", label)


@pytest.mark.parametrize("family", families(), ids=lambda family: family.name)
def test_help_is_a_sentence(family: Metric) -> None:
    assert re.fullmatch(r"[A-Z0-9].*[.]", family.documentation)


def test_metrics_that_other_pages_name_exist() -> None:
    pages = [OPERATING, *(ROOT / "deploy").rglob("*.md")]
    roles = {"bursar_owner", "bursar_work", "bursar_read"}
    named = {name for page in pages for name in re.findall(r"\bbursar_[a-z]+_[a-z_]+[a-z]\b", page.read_text())}
    assert named - roles <= set(shown())


def test_promtool_has_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool (Debian's package prometheus) is not installed")
    for registry in registries():
        done = subprocess.run(
            [promtool, "check", "metrics"],
            input=generate_latest(registry),
            capture_output=True,
            timeout=20,
            check=False,
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, b"")
