"""Every page: its links lead somewhere, its commands exist, and it speaks of nobody's machine."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer.main

from api import feed, intake
from api.app import create_app
from api.edge import BODY_MAX_BYTES
from api.problems import KINDS
from api.routes import outcomes
from api.routes.commands import WAIT_MAX_S
from bursar.cli import app
from bursar.client import Retries
from bursar.client.webhooks import TOLERANCE_S
from ledger.errors import Code
from ledger.keys import SCOPES
from ledger.limits import WINDOW_MAX_S
from ledger.lots import LOTS_MAX, PRIORITY_DEFAULT, PRIORITY_MAX
from ledger.money import BALANCE_MAX
from runtime.celery_app import TASK_TIME_LIMIT_S
from tests.docs.pages import FAILURES, NAMED_TEST, ROOT, RUN_BY, fences, pages, rows, section
from worker import sending
from worker.drain import DRAIN_MAX

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# What a page may tell people to type beside ours.
OTHERS = {
    ".", "cp", "curl", "docker", "env", "export", "install", "kubectl", "ls", "nginx", "pg_basebackup", "pg_dump",
    "pg_verifybackup", "pgbouncer", "pip", "psql", "python", "set", "sudo", "tail", "touch",
}  # fmt: skip


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_there_are_pages() -> None:
    assert {"README.md", "CHANGELOG.md", "docs/glossary.md", "docs/settings.md"} <= set(map(name, pages()))


@pytest.mark.parametrize("page", pages(), ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in LINK.findall(prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        led = (page.parent / path).resolve() if path else page
        assert led.exists(), target
        assert led.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(led), target


@pytest.mark.parametrize("page", pages(), ids=name)
def test_commands_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    ours = getattr(typer.main.get_command(app), "commands", {})
    blocks = [block.replace("\\\n", " ") for block in fences(page, "console", "bash", "sh")]
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    for command in [part for line in lines for part in line.split(" && ")]:
        words = shlex.split(command.removeprefix("$ "), comments=True)
        if not words:
            continue
        match words[0].rpartition("/")[2], words[1:]:
            case "make", [target, *_]:
                assert target in targets, command
            case "bursar", [subcommand, *_] if not subcommand.startswith("-"):
                assert subcommand in ours, command
            case "bursar", _:
                pass
            case program, _:
                assert program in OTHERS or (ROOT / words[0]).is_file(), command


def test_what_a_page_tells_to_type_is_run() -> None:
    """Blocks of `bash`, `python` and `sql` are run, by the test that stands here; `console` and `sh` cannot be."""
    assert {name(page) for page in pages() if fences(page, "bash", "python", "sql")} == set(RUN_BY)
    for page, test in RUN_BY.items():
        assert Path(page).stem in (ROOT / test).read_text(), f"{test} does not run {page}"


def named_tests() -> list[tuple[str, str]]:
    """(file, test) of every test that a page names."""
    return sorted({found for page in pages() for found in NAMED_TEST.findall(page.read_text())})


@pytest.mark.parametrize(("file", "test"), named_tests())
def test_every_named_test_exists(file: str, test: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_row_of_the_failure_matrix_names_the_test_that_makes_it_happen() -> None:
    failures = rows(FAILURES.read_text())
    assert len(failures) >= 30
    assert not [fails for fails, *_, test in failures if not NAMED_TEST.search(test)]


def numbers() -> dict[str, tuple[str, ...]]:
    """Page → what it says of limits and times, with the figures of the code."""
    tried = Retries()
    return {
        "docs/commands.md": (
            f"`priority` (0 to {PRIORITY_MAX}; {PRIORITY_DEFAULT} unless said;",
            f"at most {LOTS_MAX} lots",
            f"`window_s` (at most {WINDOW_MAX_S // 86_400} days)",
            f"a balance beyond {BALANCE_MAX // 10**18} \N{MULTIPLICATION SIGN} 10^18",
        ),
        "docs/outcomes.md": (
            f"{outcomes.WAIT_MAX_S} at the most",
            f"looks at {feed.READ_MAX * feed.WALK_MAX:,} outcomes at the most",
            f"A comment comes every {outcomes.KEEP_ALIVE_S:.0f} seconds",
            f"{feed.WAITERS_MAX:,} may wait on one api process",
        ),
        "docs/client.md": (
            f"eight attempts within {tried.within_s:.0f} s",
            f"doubles to {tried.cap_s:.0f} s",
            "more than five minutes away is refused",
        ),
        "docs/game-server.md": (f"eight attempts within {tried.within_s:.0f} s",),
        "docs/operating.md": (
            f"{feed.WAITERS_MAX:,} requests wait for the feed",
            f"holds {intake.WAITING_MAX:,} commands",
            f"is killed after {TASK_TIME_LIMIT_S} s",
        ),
        "docs/concepts.md": (f"up to {DRAIN_MAX} commands in one transaction",),
        "docs/receiving-webhooks.md": (f"after {sending.DEADLINE_S:.0f} s the attempt has failed",),
    }


@pytest.mark.parametrize(("page", "said"), [(page, said) for page, all_ in numbers().items() for said in all_])
def test_a_number_is_the_codes(page: str, said: str) -> None:
    assert said in re.sub(r"\s+", " ", (ROOT / page).read_text())
    assert (Retries().attempts, TOLERANCE_S, outcomes.STREAM_MAX_S) == (8, 5 * 60, 3_600), "written as words"


def test_what_the_api_page_says_for_every_request_is_the_codes() -> None:
    api = ROOT / "docs/api.md"
    assert {row[0].strip("`"): row[1] for row in rows(section(api, "Requests"))} == {
        str(scope): opens for scope, opens in SCOPES.items()
    }
    text = api.read_text()
    assert f"at most {BODY_MAX_BYTES // 2**20} MiB" in text
    assert f"{WAIT_MAX_S} seconds at most" in text
    told = section(api, "What to do with an answer to a command")
    assert {kind.status for kind in KINDS.values() if kind.retryable} - {409} <= {*map(int, re.findall(r"\d{3}", told))}


def test_the_rule_book_has_every_command_with_its_own_members() -> None:
    schemas = create_app().openapi()["components"]["schemas"]
    members = {
        schema["properties"]["type"]["enum"][0]: {*schema["properties"]} - {"type"}
        for name, schema in schemas.items()
        if name.endswith("Request") and "type" in schema.get("properties", {})
    }
    for_all = set.intersection(*members.values())
    text = section(ROOT / "docs/commands.md", "The commands")
    assert f"All may carry {', '.join(f'`{name}`' for name in ('reference', 'metadata', 'expires_at'))}" in text
    assert for_all == {"reference", "metadata", "expires_at", "precondition"}
    for kind, _, said in rows(text):
        own = members.pop(kind.strip("`")) - for_all - {"wallet", "asset", "amount"}
        named = own if said == "the same" else {*re.findall(r"`(\w+)`", said)} - {"amount", "true", "admin"}
        assert named == own, kind
    assert not members


def test_the_rule_book_has_every_code() -> None:
    text = (ROOT / "docs/commands.md").read_text()
    assert [code for code in Code if f"`{code}`" not in text] == []


def test_the_feeds_parameters_are_those_of_the_request() -> None:
    parameters = create_app().openapi()["paths"]["/v1/outcomes"]["get"]["parameters"]
    stated = [
        name
        for row in rows(section(ROOT / "docs/outcomes.md", "Asking again and again"))
        for name in re.findall(r"`(\w+)`", row[0])
    ]
    assert stated == [parameter["name"] for parameter in parameters]


def test_every_decision_is_listed_and_has_its_parts() -> None:
    folder = ROOT / "docs/decisions"
    records = sorted(folder.glob("[0-9]*.md"))
    numbers = [record.name[:4] for record in records]
    assert numbers == [f"{number:04}" for number in range(1, len(records) + 1)]
    index = (folder / "README.md").read_text()
    for record in records:
        text = record.read_text()
        assert text.startswith(f"# {record.name[:4]}: "), record.name
        assert f"({record.name})" in index
        parts = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert parts == ["Context", "Decision", "Cost", "Alternatives", "Figures"], record.name
        assert re.search(r"^\d{4}-\d{2}\. (Accepted|Superseded)", text, re.MULTILINE), record.name
        assert text.count("\n") <= 80, f"{record.name} is longer than a page"
