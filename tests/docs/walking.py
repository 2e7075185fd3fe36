"""A page walked through as a reader would: what it says to type is run, and what it says comes must come.

Blocks are taken in order. `bash` is run, in one folder, and what a block exports the later ones have. `python` is run,
`sql` is asked of the database. A `text` block after one of them is all that it prints; a `json` block is what it
answers, but for what differs each time (ids, times, keys) and for members that the page leaves out. `console`, `sh` and
`shell` are for lines that cannot be run here. A comment of HTML before a block says more:

- `<!-- file: name -->`: it is saved, not run;
- `<!-- stays -->`: it goes on in the background, as in another terminal; it listens on $PORT;
- `<!-- soon -->`: what it prints is so a moment later, so it is run again until then.
"""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from bursar.local import processes
from tests.docs.pages import ROOT

PATIENCE_S = 60
SOON_S = 30
_BLOCK = re.compile(r"(?:^<!-- (?P<marker>[\w.: ]+) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```", re.M | re.S)
_ANEW = re.compile(
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # ids
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)"
    r"|bursar_[a-z]+_\w+|whsec_[\w+/=]+|\b[0-9a-f]{12}-[0-9a-f]+\b|\bevt_\w+"
)


class Block(NamedTuple):
    language: str
    text: str
    marker: str


def blocks(page: Path) -> list[Block]:
    return [
        Block(found["language"], found["text"], found["marker"] or "") for found in _BLOCK.finditer(page.read_text())
    ]


def answers(text: str) -> list[Any]:
    """JSON values one after the other, as several requests leave them on standard output."""
    found: list[Any] = []
    while text := text.strip():
        value, end = json.JSONDecoder().raw_decode(text)
        found.append(value)
        text = text[end:]
    return found


def shown(text: str) -> Any:
    """The value of a `json` block. `…` stands for what is left out."""
    return json.loads(re.sub(r",?\s*…", "", text))


def settled(value: Any) -> Any:
    """A value without what is another one each time."""
    match value:
        case str():
            return _ANEW.sub("*", value)
        case list():
            return [settled(inner) for inner in value]
        case dict():
            return {name: settled(inner) for name, inner in value.items()}
        case _:
            return value


def kept(answer: Any, example: Any) -> Any:
    """An answer without the members that an example leaves out."""
    match answer, example:
        case dict(), dict():
            return {name: kept(inner, example[name]) for name, inner in answer.items() if name in example}
        case list(), list() if len(answer) == len(example):
            return [kept(*both) for both in zip(answer, example, strict=True)]
        case _:
            return answer


class Shell:
    """A folder to work in, and the environment as it has become. `bursar` is the one under test."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        ours = folder / "bin"
        ours.mkdir(exist_ok=True)
        for name, arguments in (("bursar", "-m bursar"), ("python", "")):
            (ours / name).write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} {arguments} "$@"\n')
            (ours / name).chmod(0o755)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BURSAR_")}
        self.environment = inherited | environment | {"PATH": f"{ours}:{os.environ['PATH']}"}
        self._background: list[subprocess.Popen[str]] = []

    def attempt(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run it, whatever comes of it. What it exports stays."""
        kept = self.folder / "bin/environment"
        whole = f"set -euo pipefail\n{script}\nexport -p >{kept}\n"
        return self._do(["bash", "-c", f". {kept}\n{whole}" if kept.exists() else whole])

    def run(self, script: str) -> str:
        """What it prints."""
        return self._good(self.attempt(script))

    def python(self, code: str) -> str:
        """What it prints."""
        (self.folder / "bin/example.py").write_text(code)
        return self.run("python bin/example.py")

    def start(self, script: str) -> Path:
        """Run it in the background; the file with what it prints."""
        told = self.folder / f"{len(self._background)}.output"
        kept = self.folder / "bin/environment"
        whole = f"test ! -e {kept} || . {kept}\n{script}"
        with told.open("w") as output:
            process = subprocess.Popen(
                ["bash", "-c", whole], cwd=self.folder, env=self.environment, stdout=output, stderr=subprocess.STDOUT,
                text=True, start_new_session=True,
            )  # fmt: skip
        self._background.append(process)
        return told

    def ask(self, query: str) -> str:
        """The rows of the database's answer, as psql shows them without ornament."""
        with psycopg.connect(self.environment["BURSAR_DATABASE_URL"], autocommit=True) as connection:
            rows = connection.execute(query.replace("%", "%%").encode())
            return "".join(f"{' | '.join(map(str, row))}\n" for row in rows)

    def stop(self) -> None:
        for process in self._background:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE_S)

    def _do(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S,
            check=False,
        )  # fmt: skip

    @staticmethod
    def _good(done: subprocess.CompletedProcess[str]) -> str:
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout


def walk(page: Path, shell: Shell, *, instead: Mapping[str, str] | None = None) -> None:
    """Do all that the page says, with some words of it replaced by others."""
    again: Callable[[], str] | None = None
    told = ""
    for language, text, marker in blocks(page):
        for word, other in (instead or {}).items():
            text = text.replace(word, other)
        match language, marker.partition(": "):
            case "text" | "json", _:
                told = _soon(again, told, language, text) if again else told
                assert fits(told, language, text), f"{page.name} says\n{text}\nbut there comes\n{told}"
            case _, ("file", _, file):
                (shell.folder / file).write_text(text)
            case _, ("stays", _, _):
                shell.start(text)
                assert processes.wait_until(lambda: _listens(int(shell.environment["PORT"])), timeout_s=PATIENCE_S)
            case (("bash" | "python" | "sql"), _):
                does = {"bash": shell.run, "python": shell.python, "sql": shell.ask}[language]
                told = does(text)
                again = partial(does, text) if marker == "soon" else None
            case _:
                pass


def fits(told: str, language: str, said: str) -> bool:
    """Whether that is what the page says."""
    if language == "text":
        return settled(told) == settled(said)
    example = shown(said)
    return settled(kept(answers(told)[-1], example)) == settled(example)


def _soon(again: Callable[[], str], told: str, language: str, said: str) -> str:
    """What comes once it fits, or in the end."""
    seen = [told]
    processes.wait_until(lambda: fits(seen[-1], language, said) or bool(seen.append(again())), timeout_s=SOON_S)
    return seen[-1]


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def environment(told: Mapping[str, str]) -> dict[str, str]:
    """Of what a stack tells, what a page's reader has."""
    return {name: value for name, value in told.items() if name.startswith("BURSAR_")}
