"""The site of docs/: it builds strictly, has every page, shows it as it is elsewhere, and loads nothing from afar."""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt

from api.app import create_app
from api.problems import KINDS
from docs.site import hooks, links, pictures, reference
from ledger import commands, tables
from tests.docs.pages import ROOT

ELEMENTS = ("h1", "h2", "h3", "h4", "p", "li", "ul", "ol", "table", "tr", "td", "pre", "a", "img", "strong", "em")
# What a browser fetches by itself: scripts, styles, pictures, fonts, frames.
FETCHED = re.compile(r'<(?:script|img|iframe|source|embed)[^>]*\ssrc="([^"]+)"|<link[^>]*\shref="([^"]+)"')


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def own_pages() -> list[Path]:
    return sorted((ROOT / "docs").rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=55, check=False)
    assert built.returncode == 0, built.stderr
    return folder


def named(nav: object) -> Iterator[str]:
    """The pages of a navigation."""
    match nav:
        case str():
            yield nav
        case list():
            for entry in nav:
                yield from named(entry)
        case dict():
            yield from named(list(nav.values()))
        case _:
            raise AssertionError(nav)


def test_every_page_is_in_the_navigation_once() -> None:
    text = re.sub(r"!!python/\S+ \{.*?\}\}", "null", (ROOT / "mkdocs.yml").read_text())
    pages = list(named(hooks.complete(yaml.safe_load(text)["nav"])))
    missing = {name(page).removeprefix("docs/") for page in own_pages()} - set(pages)
    assert not missing, f"name these pages under `nav` in mkdocs.yml, where a reader looks for them: {sorted(missing)}"
    assert [page for page, times in Counter(pages).items() if times > 1] == []


def built(site: Path, page: Path) -> str:
    """The site's HTML of a page, without what stands around it."""
    place = re.sub(r"README\.md$", "index.md", links.place(name(page)))
    [article] = re.findall(r"<article.*?</article>", (site / place).with_suffix(".html").read_text(), re.DOTALL)
    return re.sub(r'<a class="headerlink".*?</a>', "", article)


def elements(html: str) -> dict[str, int]:
    return {element: len(re.findall(rf"<{element}[\s>]", html)) for element in ELEMENTS}


def test_a_page_has_the_same_parts_as_where_the_repository_is_read(site: Path) -> None:
    """CommonMark with tables, which code hosts speak, against the Markdown of the site."""
    common = MarkdownIt("commonmark").enable("table")
    for page in [*own_pages(), ROOT / "README.md", ROOT / "CHANGELOG.md"]:
        assert elements(built(site, page)) == elements(common.render(page.read_text())), name(page)


def test_links_to_code_show_the_code(site: Path) -> None:
    glossary = built(site, ROOT / "docs/glossary.md")
    assert 'href="repository/ledger/keys.py.html"' in glossary
    shown = (site / "repository/ledger/keys.py.html").read_text()
    assert "revoked_at" in shown


def test_nothing_is_loaded_from_afar(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(own_pages())
    for page in pages:
        fetched = ["".join(found) for found in FETCHED.findall(page.read_text())]
        assert fetched, page
        assert not [url for url in fetched if re.match(r"[a-z]+:|//", url)], page
        assert not [url for url in fetched if not (page.parent / url).exists() and page.name != "404.html"], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"@import|url\([\"']?(?:https?:)?//", sheet.read_text()), sheet


def test_the_reference_has_every_request_and_every_problem(site: Path) -> None:
    document = create_app().openapi()
    shown = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    for path, methods in document["paths"].items():
        for method in methods:
            assert re.search(rf"<h2[^>]*>{method.upper()} {re.escape(path)}<", shown), f"{method} {path}"
    for schema in document["components"]["schemas"]:
        assert re.search(rf"<h2[^>]*>{schema}<", shown), schema
    for code in KINDS:
        assert f"<td><code>{code}</code></td>" in shown


def test_the_reference_has_bodies_members_and_answers() -> None:
    pages = reference.pages()
    assert "**Body**: [CommandRequest](schemas.md#commandrequest)" in pages["api/commands.md"]
    assert '"type": "top_up"' in pages["api/commands.md"]
    assert "| `Idempotency-Key` | header | string | required |" in pages["api/commands.md"]
    assert re.search(r"\| `202` \| \[PendingCommand\]\(\S+\) \| `Retry-After`", pages["api/commands.md"])
    assert re.search(r"## Supply\n.*\| `in_circulation` \| string \| required \|", pages["api/schemas.md"], re.DOTALL)


@pytest.mark.parametrize("name", pictures.pictures())
def test_a_picture_is_what_the_code_is(name: str) -> None:
    drawn = pictures.pictures()[name]
    assert (ROOT / "docs/pictures" / name).read_text() == drawn, "draw them anew: python -m docs.site.pictures"
    assert not re.search(r"<script|href|url\((?!#)", drawn)


def test_the_pictures_leave_nothing_out() -> None:
    drawn = pictures.pictures()
    for table in tables.metadata.tables.values():
        assert drawn["tables.svg"].count(f">{table.name}</text>") >= 1
    for wallet in commands.SYSTEM_WALLETS:
        assert f">{wallet}</text>" in drawn["money.svg"]
    assert {"top_up", "bonus", "spend", "transfer", "exchange", "adjust", "capture"} <= {
        move for move, _, _ in pictures.moves()
    }
    assert pictures.statuses() == ["applied", "rejected", "cancelled", "failed"]
    assert [step.number for step in pictures.steps()] == list(range(1, drawn["flow.svg"].count("rx=") + 1))


def test_links_are_those_outside_of_code() -> None:
    text = "[a](b.md) [c](../d.py#e)\n```text\n[no](link.md)\n```\n[f](https://example.com) [g](#h)\n"
    assert list(links.links(text)) == ["b.md", "../d.py"]
    with pytest.raises(FileNotFoundError):
        links.target("docs/glossary.md", "../nowhere.py")


def test_a_link_leads_to_the_same_in_the_site() -> None:
    for page, link, leads in (
        ("docs/settings.md", "../worker/drain.py", "repository/worker/drain.py.md"),
        ("docs/settings.md", "../deploy/README.md#the-trial", "repository/deploy/README.md#the-trial"),
        ("docs/decisions/0021-the-feed-has-a-place-in-every-partition.md", "../settings.md", "../settings.md"),
        ("README.md", "docs/commands.md", "../commands.md"),
        ("README.md", "api/edge.py", "api/edge.py.md"),
        ("benchmarks/README.md", "../README.md", "../README.md"),
    ):
        assert links.for_the_site(f"see [it]({link}).", page) == f"see [it]({leads})."
        assert links.repository_path(links.place(page)) == page
