"""docs/client.md: every example is at most some ten lines and does what stands below it."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from bursar.client import Client
from tests.client.test_webhooks import BODY, SECRET, signature
from tests.contracts.caller import unique
from tests.contracts.service import Service
from tests.docs.pages import ROOT

PAGE = ROOT / "docs/client.md"
LINES_MAX = 10
EXAMPLE = re.compile(
    r"^## (?P<title>.+?)$(?:(?!^## ).)*?^```python\n(?P<code>.*?)^```(?:\n\n```text\n(?P<told>.*?)^```)?", re.M | re.S
)
EXAMPLES = {found["title"]: (found["code"], found["told"]) for found in EXAMPLE.finditer(PAGE.read_text())}


def test_every_section_with_code_is_an_example() -> None:
    assert len(EXAMPLES) == PAGE.read_text().count("```python") >= 10


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_has_ten_lines(title: str) -> None:
    lines = [line for line in EXAMPLES[title][0].splitlines() if line.strip() and not re.match("import|from", line)]
    assert len(lines) <= LINES_MAX


@pytest.fixture
def environment(service: Service, key: str, client: Client, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """The example's players, keys and secrets; the names in it are made this run's own."""
    monkeypatch.setenv("BURSAR_URL", service.url)
    monkeypatch.setenv("BURSAR_API_KEY", key)
    monkeypatch.setenv("BURSAR_WEBHOOK_SECRET", f"{SECRET},{SECRET}")
    run = unique("run")

    def own(text: str) -> str:
        return re.sub(r"\bplayer-|\b(match|shop)-(?=\d)", lambda found: f"{run}-{found[0]}", text)

    assert client.top_up(own("player-42"), "gold_coins", 100, wait_s=20).applied
    return own


@pytest.mark.parametrize("title", [title for title, (_, told) in EXAMPLES.items() if told])
def test_an_example_tells_what_the_page_says(
    title: str, environment: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, told = EXAMPLES[title]
    exec(compile(environment(code), f"{PAGE.name}: {title}", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out == environment(told or "")


def test_the_receiver_of_webhooks(environment: Callable[[str], str], capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = EXAMPLES["Webhooks"]
    scope: dict[str, Any] = {}
    exec(compile(code, PAGE.name, "exec"), scope)
    at = str(int(time.time()))
    headers = {"webhook-id": "evt-1", "webhook-timestamp": at, "webhook-signature": signature(at=at)}
    assert scope["receive"](headers, BODY) == 204
    assert capsys.readouterr().out == "evt-1 command.applied applied\n"
    assert scope["receive"](headers, BODY + b" ") == 400
