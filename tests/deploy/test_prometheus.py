"""deploy/prometheus and deploy/grafana: well-formed, complete, and each alert fires when it should and not before."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.deploy.places import REPOSITORY, system_program
from tests.deploy.promql import parse

RULES = REPOSITORY / "deploy/prometheus/bursar.rules.yml"
EXAMPLE = REPOSITORY / "deploy/prometheus/prometheus.yml"
DASHBOARD = REPOSITORY / "deploy/grafana/bursar.json"
GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule
}


class Case(NamedTuple):
    """Series as promtool writes them, a value a minute: with the first ones the alert fires within 30 minutes, with
    the others it never does."""

    fires: dict[str, str]
    quiet: dict[str, str]


def requests(errors: int, status: str = "500") -> dict[str, str]:
    return {
        f'bursar_http_requests_total{{status="{status}"}}': f"0+{errors}x40",
        'bursar_http_requests_total{status="200"}': "0+1000x40",
    }


def drains(lookout: int, doorbell: int) -> dict[str, str]:
    return {
        'bursar_drain_commands_count{by="lookout"}': f"0+{lookout}x40",
        'bursar_drain_commands_count{by="doorbell"}': f"0+{doorbell}x40",
    }


CASES = {
    "BursarNoApi": Case({}, {'bursar_build_info{process="api"}': "1x40"}),
    "BursarPostgresqlGone": Case(
        {'bursar_database_up{instance="a"}': "1x40", 'bursar_database_up{instance="b"}': "0x40"},
        {"bursar_database_up": "1x40"},
    ),
    "BursarNoWorker": Case(
        {'bursar_database_sessions{application="bursar-worker"}': "0x40"},
        {
            'bursar_database_sessions{application="bursar-worker"}': "1x40",
            'bursar_database_sessions{application="bursar-courier"}': "0x40",
        },
    ),
    "BursarOldestPending": Case(
        {"bursar_oldest_pending_seconds": "0+60x40"}, {"bursar_oldest_pending_seconds": "NaN 1 2 9 9 9 9 2 1 0x30"}
    ),
    "BursarCommandQuarantined": Case(
        {"bursar_quarantined_commands_total": "0x10 1x30"}, {"bursar_quarantined_commands_total": "3x40"}
    ),
    "BursarAuditFailed": Case({"bursar_audit_passed": "1x10 0x30"}, {"bursar_audit_passed": "1x40"}),
    "BursarAuditTooOld": Case(
        {"bursar_audit_timestamp_seconds": f"{-26 * 3600}x40"},  # promtool's clock begins at 0
        {"bursar_audit_timestamp_seconds": f"{-26 * 3600}x5 300x35"},
    ),
    "BursarApiErrors": Case(requests(20), requests(5)),
    "BursarBacklogged": Case(requests(1, "429"), requests(1, "422")),
    "BursarDrainFaults": Case(
        {'bursar_drain_failures_total{reason="fault"}': "0+30x40"},
        {'bursar_drain_failures_total{reason="fault"}': "0x10 1x30"},
    ),
    "BursarLookoutDoesTheDoorbellsWork": Case(
        drains(lookout=60, doorbell=1) | {'bursar_drain_commands_count{by="due"}': "0+500x40"},
        drains(lookout=60, doorbell=60),
    ),
    "BursarRedisGone": Case({"bursar_redis_up": "0x40"}, {"bursar_redis_up": "1 0 1 1 0 1x30"}),
    "BursarConnectionsNearlyAll": Case(
        {"bursar_database_connections": "95x40", "bursar_database_connections_max": "100x40"},
        {"bursar_database_connections": "80x40", "bursar_database_connections_max": "100x40"},
    ),
    "BursarWebhooksOverdue": Case(
        {"bursar_webhook_oldest_due_seconds": "0+60x40"}, {"bursar_webhook_oldest_due_seconds": "15x40"}
    ),
    "BursarWebhookEndpointFailing": Case(
        {'bursar_webhook_endpoints{state="failing"}': "1x40"},
        {'bursar_webhook_endpoints{state="failing"}': "1x5 0x35", 'bursar_webhook_endpoints{state="enabled"}': "9x40"},
    ),
    "BursarWebhookEndpointDisabled": Case(
        {'bursar_webhook_endpoints_disabled_total{reason="gone"}': "0x10 1x30"},
        {'bursar_webhook_endpoints_disabled_total{reason="gone"}': "5x40"},
    ),
    "BursarCourierFaults": Case({"bursar_courier_faults_total": "0+30x40"}, {"bursar_courier_faults_total": "7x40"}),
}


def test_every_alert_has_its_case() -> None:
    assert set(CASES) == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_is_wrong_how_bad_and_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert re.fullmatch(r"Bursar([A-Z][a-z0-9]+)+", name)
    assert alert["labels"]["severity"] in ("page", "ticket")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"deploy/runbook.md#{name.lower()}"


def test_nobody_looks_at_up() -> None:
    """Not every port of a range is taken by a process."""
    names = {selector.name for group in GROUPS for rule in group["rules"] for selector in parse(rule["expr"]).selectors}
    assert "up" not in names
    recorded = {rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule}
    assert {name for name in names if ":" in name} <= recorded


def test_promtool_takes_the_rules_and_the_example() -> None:
    promtool = system_program("promtool", package="prometheus")
    for what, file in (("rules", RULES), ("config", EXAMPLE)):
        done = subprocess.run([promtool, "check", what, str(file)], capture_output=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr


def unit_test(name: str, series: dict[str, str], *, firing: bool) -> dict[str, Any]:
    labels = f'alertname="{name}", alertstate="firing"'
    severity = ALERTS[name]["labels"]["severity"]
    expected = [{"labels": f'ALERTS{{{labels}, severity="{severity}"}}', "value": 1}]
    if name == "BursarNoApi":
        expected[0]["labels"] = f'ALERTS{{{labels}, process="api", severity="{severity}"}}'
    return {
        "interval": "1m",
        "input_series": [{"series": each, "values": values} for each, values in series.items()],
        "promql_expr_test": [
            {"expr": f"ALERTS{{{labels}}}", "eval_time": "30m", "exp_samples": expected if firing else []}
        ],
    }


def test_each_alert_fires_when_it_should_and_not_before(tmp_path: Path) -> None:
    promtool = system_program("promtool", package="prometheus")
    tests = [
        unit_test(name, series, firing=firing)
        for name, case in CASES.items()
        for series, firing in ((case.fires, True), (case.quiet, False))
    ]
    file = tmp_path / "alerts.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run([promtool, "test", "rules", str(file)], capture_output=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_one() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert dashboard["templating"]["list"][0]["name"] == "datasource"
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or all(target["expr"] for target in panel["targets"])
