"""What mkdocs calls while it builds the site (mkdocs.yml, `hooks`)."""

import sys
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]  # mkdocs loads this file by its path

from mkdocs.config.defaults import MkDocsConfig  # noqa: E402
from mkdocs.structure.files import File, Files  # noqa: E402
from mkdocs.structure.pages import Page  # noqa: E402

from docs.site import links, reference  # noqa: E402


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    config.nav = complete(config.nav)
    return config


def complete(nav: Any) -> Any:
    """A navigation with the pages that a path ending with * stands for, in order of their names."""
    match nav:
        case str() if nav.endswith("*"):
            written = sorted(str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").glob(f"{nav}.md"))
            return [*written, *(page for page in reference.pages() if page.startswith(nav[:-1]))]
        case list():
            entries = [complete(entry) for entry in cast(list[Any], nav)]
            return [
                inner for entry in entries for inner in (cast(list[Any], entry) if isinstance(entry, list) else [entry])
            ]
        case dict():
            return {title: complete(entry) for title, entry in cast(dict[str, Any], nav).items()}
        case _:
            return nav


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    for place, path in links.linked().items():
        if path.endswith(".md"):
            files.append(File.generated(config, place, content=(ROOT / path).read_text()))
        elif path.endswith(links.PICTURES):
            files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
        else:
            files.append(File.generated(config, place, content=links.as_page(path)))
    for place, text in reference.pages().items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    path = links.repository_path(page.file.src_uri)
    return links.for_the_site(markdown, path) if (ROOT / path).is_file() and path.endswith(".md") else markdown
