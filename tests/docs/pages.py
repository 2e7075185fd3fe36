"""The pages that are held to the code, and how to read them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
SETTINGS = ROOT / "docs/settings.md"
OPERATING = ROOT / "docs/operating.md"
FAILURES = ROOT / "docs/failures.md"
NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
# Which test runs what a page tells to type.
RUN_BY = {
    "README.md": "tests/local/test_run.py",
    "docs/api.md": "tests/docs/test_walks.py",
    "docs/client.md": "tests/client/test_page.py",
    "docs/game-server.md": "tests/docs/test_walks.py",
    "docs/operating.md": "tests/docs/test_operating.py",
    "docs/outcomes.md": "tests/docs/test_walks.py",
    "docs/production.md": "tests/docs/test_walks.py",
    "docs/quick-start.md": "tests/local/test_run.py",
    "docs/receipts.md": "tests/docs/test_receipts.py",
    "docs/receiving-webhooks.md": "tests/docs/test_walks.py",
    "docs/reconciling.md": "tests/docs/test_walks.py",
    "docs/webhooks.md": "tests/docs/test_webhooks.py",
}
PACKAGES = ("api", "bursar", "ledger", "migrations", "runtime", "worker")


def pages() -> list[Path]:
    """Every page of ours; what others wrote (the virtual environment, the parts of /docs) is theirs."""
    kept = [ROOT, *(ROOT / folder for folder in ("benchmarks", "deploy", "docs", *PACKAGES))]
    found = {page for folder in kept for page in (folder.glob("*.md") if folder == ROOT else folder.rglob("*.md"))}
    return sorted(page for page in found if "static" not in page.parts)


def sources() -> list[Path]:
    """Every Python file of the service itself."""
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def section(page: Path, title: str) -> str:
    """The text below a heading, up to the next one of its level or above."""
    text = page.read_text()
    found = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert found, f"{page.name} has no section {title!r}"
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def rows(text: str) -> list[list[str]]:
    """The cells of the table rows in a text, headings and rules left out."""
    lines = [line.strip().strip("|") for line in text.splitlines() if line.startswith("|")]
    tables = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    rules = [number for number, line in enumerate(lines) if set(line) <= set("-|: ")]
    return [row for number, row in enumerate(tables) if number not in rules and number + 1 not in rules]


def fences(page: Path, *languages: str) -> list[str]:
    """The code blocks of a page in these languages."""
    return [
        block for language, block in re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        if language in languages
    ]  # fmt: skip
