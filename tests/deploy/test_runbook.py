"""deploy/runbook.md: every alert has its section, and every section says what to do."""

import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from bursar.cli import app
from tests.deploy.places import REPOSITORY

RUNBOOK = REPOSITORY / "deploy/runbook.md"
PARTS = ("Means", "Look", "Do", "Wake")


def alerts() -> dict[str, dict[str, Any]]:
    """By name, of every file of rules."""
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(Path(REPOSITORY / "deploy/prometheus").glob("*.y*ml")):
        for group in (yaml.safe_load(file.read_text()) or {}).get("groups", []):
            found |= {rule["alert"]: rule for rule in group["rules"] if "alert" in rule}
    return found


def sections() -> dict[str, str]:
    """By heading, of both levels."""
    parts = re.split(r"(?m)^#{2,3} (.+)$", RUNBOOK.read_text())
    return dict(zip(parts[1::2], parts[2::2], strict=True))


ALERTS = alerts()
SECTIONS = sections()


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    assert ALERTS
    assert [name for name in ALERTS if name not in SECTIONS] == []
    assert [name for name in SECTIONS if name.startswith("Bursar") and name not in ALERTS] == []


def test_every_alert_leads_to_its_section() -> None:
    for name, alert in ALERTS.items():
        assert alert["annotations"]["runbook_url"].endswith(f"deploy/runbook.md#{name.lower()}")


@pytest.mark.parametrize("name", [name for name in SECTIONS if name.startswith("Bursar")])
def test_a_section_says_what_it_means_where_to_look_what_to_do_and_whom_to_wake(name: str) -> None:
    assert re.findall(r"(?m)^- \*\*(\w+)\*\*: ", SECTIONS[name]) == list(PARTS)


def test_who_is_woken_by_an_alert_is_woken_at_once() -> None:
    for name, alert in ALERTS.items():
        [wake] = re.findall(r"(?m)^- \*\*Wake\*\*: (.+)$", SECTIONS[name])
        assert wake.startswith("at once") == (alert["labels"]["severity"] == "page"), name


def test_its_commands_exist() -> None:
    """Those of `bursar`, and those that follow a command that has commands of its own."""
    found = re.findall(r"`bursar ([a-z][a-z -]*)`", RUNBOOK.read_text())
    assert found
    for words in (text.split() for text in found):
        known: Any = typer.main.get_command(app)
        while words and hasattr(known, "commands"):
            assert words[0] in known.commands, f"bursar {' '.join(words)}"
            known = known.commands[words.pop(0)]
