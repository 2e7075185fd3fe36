"""docs/cli.md: each command is run as it stands there, and says what stands there, but for ids, times and numbers."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bursar.cli import app
from ledger import db
from ledger.keys import Scope, create_key
from ledger.tenants import create_tenant
from runtime.settings import settings
from tests.books import Bank
from tests.books import own_bank as own_bank
from tests.docs.pages import ROOT
from tests.ledger.listening import listen
from tests.ledger.test_requeuing import fail

PAGE = ROOT / "docs/cli.md"
EXAMPLE = re.compile(r"```console\n\$ ([^`]*?)\n```\n\n```text\n(.*?)```", re.DOTALL)


def scene(bank: Bank) -> None:
    """What the page's examples look at: a shop, a worker that is connected, and something of each kind."""
    bank.do("UPDATE tenants SET code = 'shop' WHERE id = %s", bank.tenant)
    bank.do("UPDATE clients SET name = 'game server' WHERE id = %s", bank.client)
    listen(bank)
    bank.top_up("alice", 100, key="order-1", reference="order-1")
    bank.spend("alice", 30, key="sword-7")
    bank.spend("alice", 9_999, key="castle-1")
    bank.order("spend", "alice", 5, key="shield-8")
    fail(bank)
    bank.order("spend", "alice", 1, key="potion-9")
    bank.do("UPDATE deliveries SET due_at = now() + interval '1 hour'")
    bank.do("SET application_name = 'bursar-worker'")
    engine = db.engine(bank.url, application="test-keys")
    create_tenant(engine, "shop-2")
    create_key(engine, env="test", client="game server", scopes=[Scope.ADMIN], tenant="shop-2")
    engine.dispose()


def run(line: str, folder: Path) -> str:
    """What it says, on both streams, as a shell in this folder would have it."""
    words = shlex.split(line)
    last = words.index("|") if "|" in words else len(words)
    into = words.index(">") if ">" in words else last
    arguments = [str(folder / word) if word.endswith(".jsonl") else word for word in words[1:into]]
    ended = CliRunner().invoke(app, arguments)
    out = ended.stdout
    if into < last:
        (folder / words[into + 1]).write_text(out)
        out = ""
    if last < len(words):
        assert words[last:] == ["|", "tail", "-1"]
        out = out.splitlines(keepends=True)[-1]
    return out + ended.stderr


def plain(said: str) -> list[str]:
    """Without what differs from time to time, and without the width of columns."""
    for pattern, name in (
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?", "TIME"),
        (r"\d[\d,.]*(?=[ /]?(?:s|min|h|d|ms)\b)", "AGE"),
        (r"\d[\d,.]*", "N"),
        (r"[━─┃│┏┓└┘┡┩┳┻┴┬┼╇╈]+", "|"),
    ):
        said = re.sub(pattern, name, said)
    return [" ".join(line.split()) for line in said.splitlines() if line.strip()]


@pytest.fixture
def folder(own_bank: Bank, redis_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setenv("BURSAR_DATABASE_URL", own_bank.url)
    monkeypatch.setenv("BURSAR_REDIS_URL", redis_url)
    settings.cache_clear()
    scene(own_bank)
    yield tmp_path
    settings.cache_clear()


def test_each_command_says_what_the_page_says(folder: Path) -> None:
    examples = EXAMPLE.findall(PAGE.read_text())
    assert len(examples) > 10
    for lines, told in examples:
        said = "".join(run(line, folder) for line in lines.split("\n$ "))
        assert plain(said) == plain(told), lines


def test_every_command_of_an_operator_stands_on_the_page() -> None:
    text = PAGE.read_text()
    for name in ("status", "partitions", "commands show", "commands list", "commands requeue", "commands cancel",
                 "wallets show", "wallets statement", "webhooks list", "webhooks resend", "webhooks recover", "audit",
                 "export", "import"):  # fmt: skip
        assert f"bursar {name}" in text, name
