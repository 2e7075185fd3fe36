"""The README: its straight line is the code's, its proofs exist, its lines are those that `make run` prints."""

import ast
import re
import shlex
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from api.routes import commands
from bursar.local.home import Home
from bursar.local.screen import Screen
from bursar.local.stack import Stack
from tests.docs.pages import NAMED_TEST, README, ROOT, fences, rows, section

STEP = re.compile(r"^(\d+)\. \[`(?P<file>[\w/]+\.py)`\]\((?P=file)\) `(?P<name>[\w.]+)`: \S")


def steps() -> Iterator[tuple[str, str, str]]:
    """(heading, file, function) of each step. A line that begins with a number and is no step is a mistake."""
    heading = ""
    for line in section(README, "The straight line of one spend").splitlines():
        if line.startswith("In "):
            heading = line
        elif re.match(r"\d+\.", line):
            found = STEP.match(line)
            assert found, line
            yield heading, found["file"], found["name"]


def definition(file: str, name: str) -> ast.AST:
    """The function or method of that name which this very file defines."""
    found: ast.AST = ast.parse((ROOT / file).read_text())
    for part in name.split("."):
        inside: list[ast.stmt] = getattr(found, "body", [])
        found = next((node for node in inside if getattr(node, "name", None) == part), ast.Pass())
        assert not isinstance(found, ast.Pass), f"{file} does not define {name}"
    assert isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef), f"{name} in {file} is no function"
    return found


def used(node: ast.AST) -> set[str]:
    names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    return names | {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}


def reach(file: str, name: str) -> set[str]:
    """The names that a step uses, itself or in what its file has for it: its class, and the functions it calls."""
    module = ast.parse((ROOT / file).read_text())
    own = {node.name: node for node in module.body if hasattr(node, "name")}  # pyright: ignore[reportAttributeAccessIssue]
    names, open_ = set[str](), [name.split(".")[0]]
    while open_:
        more = used(own[open_.pop()]) - names
        names |= more
        open_ += [other for other in more if other in own]
    return names


def test_the_steps_are_numbered_in_order() -> None:
    text = section(README, "The straight line of one spend")
    numbers = [int(number) for number in re.findall(r"^(\d+)\.", text, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 15


@pytest.mark.parametrize(("heading", "file", "name"), list(steps()))
def test_each_step_is_a_function_of_that_file(heading: str, file: str, name: str) -> None:
    assert heading
    assert definition(file, name)


def test_each_step_is_called_by_one_before_it_in_its_process() -> None:
    """The first of a part is entered from outside: over HTTP or Redis. The edge is given its endpoints."""
    assert commands.hot["/v1/commands"] is commands.post_command
    before: dict[str, set[str]] = {}
    entered = set[str]()
    for heading, file, name in steps():
        process = heading.removesuffix(":").removesuffix(" again")
        called = name.split(".")[-1]
        if heading in entered and called != "post_command":
            assert called in before[process], f"{file} {name} is called by none of the steps before it"
        entered.add(heading)
        before.setdefault(process, set()).update(reach(file, name))


def test_whatever_calls_two_steps_calls_them_in_this_order() -> None:
    """The list may put no step before another that the code takes first."""
    files = {file for _, file, _ in steps()}
    bodies = [node for file in sorted(files) for node in ast.walk(ast.parse((ROOT / file).read_text()))]
    pairs = 0
    for heading, group in groupby(steps(), key=lambda step: step[0]):
        called = [name.split(".")[-1] for _, _, name in group]
        for body in bodies:
            if isinstance(body, ast.FunctionDef | ast.AsyncFunctionDef):
                places = [place for name in called if (place := first_use(body, name))]
                assert places == sorted(places), f"{heading} {body.name} calls them in another order"
                pairs += max(0, len(places) - 1)
    assert pairs >= 4


def first_use(body: ast.AST, name: str) -> int | None:
    """The line of the first call of this name within a function."""
    calls = [node.func for node in ast.walk(body) if isinstance(node, ast.Call)]
    lines = [call.lineno for call in calls if name in (getattr(call, "id", None), getattr(call, "attr", None))]
    return min(lines, default=None)


def test_every_guarantee_names_its_proof() -> None:
    guarantees = rows(section(README, "Guarantees"))
    assert len(guarantees) >= 15
    assert not [promise for promise, *_, proof in guarantees if not NAMED_TEST.search(proof)]


class Paper(Screen):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def line(self, text: str = "") -> None:
        self.lines.append(text)


def test_the_three_lines_are_those_that_make_run_prints(tmp_path: Path) -> None:
    paper = Paper()
    stack = Stack(Home(tmp_path), paper, port=8000, host="127.0.0.1", database_url="", redis_url="")
    stack._key = "THE-KEY"
    stack._greet()
    printed = [line for line in paper.lines if line.startswith("curl")]
    stands = [line for block in fences(README, "bash") for line in block.splitlines() if line.startswith("curl")]
    filled = [
        line.replace("$BURSAR_URL", stack.url).replace("$BURSAR_API_KEY", "THE-KEY") for line in stands
    ]  # fmt: skip
    assert list(map(shlex.split, filled)) == list(map(shlex.split, printed))
    assert len(printed) == 3
