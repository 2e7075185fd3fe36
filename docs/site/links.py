"""Where a link of a page leads, in the repository and in the site.

Pages link to each other, and to code, as files of the repository, so that every link works where the repository is
read. The site has all of them: a page of docs/ at its own place, whatever else a page links to below `repository/`.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs/"
OUTSIDE = "repository/"
PICTURES = (".svg", ".png")

_FENCE = re.compile(r"^(`{3,}).*?^\1`*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]+)?(?=\))")


def links(text: str) -> Iterator[str]:
    """The relative links of a page, as they stand there, without their anchors."""
    for found in _LINK.finditer(_FENCE.sub("", text)):
        yield found[1]


def target(page: str, link: str) -> str:
    """What file a link of `page` leads to. Both are paths in the repository.

    Raises FileNotFoundError: it leads to no file of the repository.
    """
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
    if path.startswith("..") or not (ROOT / path).is_file():
        raise FileNotFoundError(f"{page} links to {link}, which is no file")
    return path


def place(path: str) -> str:
    """Where a file of the repository stands among the site's sources."""
    if path.startswith(DOCS):
        return path.removeprefix(DOCS)
    return OUTSIDE + (path if path.endswith((".md", *PICTURES)) else f"{path}.md")


def repository_path(place: str) -> str:
    """The file of the repository that a page of the site was made of: the opposite of `place`."""
    if place.startswith(OUTSIDE):
        path = place.removeprefix(OUTSIDE)
        return path if (ROOT / path).is_file() else path.removesuffix(".md")
    return DOCS + place


def linked() -> dict[str, str]:
    """Place → path of every file outside docs/ that a page leads to, or a page which such a page leads to."""
    open_ = [str(page.relative_to(ROOT)) for page in sorted((ROOT / DOCS).rglob("*.md"))]
    found: dict[str, str] = {}
    while open_:
        page = open_.pop()
        for link in links((ROOT / page).read_text()):
            path = target(page, link)
            if not path.startswith(DOCS) and place(path) not in found:
                found[place(path)] = path
                if path.endswith(".md"):
                    open_.append(path)
    return found


def for_the_site(text: str, page: str) -> str:
    """The text of `page`, a path in the repository, with links that lead to the same in the site."""
    here = posixpath.dirname(place(page))

    def moved(found: re.Match[str]) -> str:
        return posixpath.relpath(place(target(page, found[1])), here or ".") + (found[2] or "")

    pieces: list[str] = []
    end = 0
    for fence in _FENCE.finditer(text):
        pieces += [_LINK.sub(moved, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*pieces, _LINK.sub(moved, text[end:])])


def as_page(path: str) -> str:
    """A page that shows a file which is no page. Searches pass over it."""
    language = {".py": "python", ".sql": "sql", ".sh": "sh", ".yml": "yaml", ".toml": "toml"}.get(Path(path).suffix, "")
    content = (ROOT / path).read_text().rstrip("\n")
    return f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n````{language}\n{content}\n````\n"
