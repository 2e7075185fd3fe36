"""docs/settings.md: every variable, its default, and the limits, as they stand in the code."""

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from bursar.cli import app
from runtime.settings import Settings, settings
from tests.docs.pages import ROOT, SETTINGS, rows, section, sources

VARIABLE = re.compile(r"BURSAR_[A-Z][A-Z_]*[A-Z]")


def documented(title: str) -> dict[str, str]:
    """Variable → default, without the backquotes."""
    return {row[0].strip("`"): row[1].strip("`") for row in rows(section(SETTINGS, title))}


def test_the_services_settings_and_their_defaults() -> None:
    expected = {
        f"BURSAR_{name.upper()}": "required"
        if field.is_required()
        else "unset"
        if field.default is None
        else str(field.default)
        for name, field in Settings.model_fields.items()
    }
    assert documented("The service") == expected


def test_the_single_commands_variables_and_their_defaults() -> None:
    commands: dict[str, Any] = getattr(typer.main.get_command(app), "commands", {})
    found: dict[str, str] = {}
    for command in commands.values():
        for parameter in command.params:
            if isinstance(parameter.envvar, str):
                found.setdefault(parameter.envvar, "required" if parameter.required else str(parameter.default))
    of_the_service = documented("The service")
    expected = {name: default for name, default in found.items() if name not in of_the_service}
    assert documented("Single commands") == expected


def test_no_variable_is_read_in_secret() -> None:
    page = set(VARIABLE.findall(SETTINGS.read_text()))
    assert {name for source in sources() for name in VARIABLE.findall(source.read_text())} - page == set()


def value(text: str) -> float:
    """A number, or a product and powers of numbers, as written for people."""
    tree = ast.parse(text.replace("^", "**"), mode="eval")
    assert all(
        isinstance(node, ast.Expression | ast.BinOp | ast.Constant | ast.Mult | ast.Pow) for node in ast.walk(tree)
    )
    return eval(compile(tree, "a limit", "eval"))


@pytest.mark.parametrize("row", rows(section(SETTINGS, "Limits that are no settings")), ids=lambda row: row[0])
def test_a_limit_is_what_the_code_says(row: list[str]) -> None:
    name, stated, _, where = row
    link = re.search(r"\[(\S+\.py)\]\(\.\./(\S+)\)", where)
    assert link
    assert link[1] == link[2]
    assert Path(ROOT / link[2]).exists()
    module = importlib.import_module(link[2].removesuffix(".py").replace("/", "."))
    assert getattr(module, name.strip("`")) == value(stated)


def test_settings_that_are_missing_or_wrong_are_told_in_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BURSAR_DATABASE_URL", raising=False)
    monkeypatch.setenv("BURSAR_REDIS_URL", "redis://:hush@127.0.0.1/0")
    monkeypatch.setenv("BURSAR_PORT", "70000")
    monkeypatch.setenv("BURSAR_RECEIPT_KEY", "c2VjcmV0")
    settings.cache_clear()
    result = CliRunner().invoke(app, ["audit"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        "BURSAR_DATABASE_URL: is not set",
        "BURSAR_PORT: Input should be less than or equal to 65535",
        "BURSAR_RECEIPT_KEY: is 6 bytes in base64, a key has 32; `bursar receipts new-key` makes a pair",
        "Settings are environment variables; docs/settings.md lists them.",
    ]
