"""Removes guards, locks and key checks one at a time, and shows which test notices.

    python -m tests.mutations [--only ledger/inbox.py] [--number 17] [--wide]

It works on a copy of the project, in one process, with one PostgreSQL and one Valkey for all. Each removal
(tests.mutations.removals) runs the tests of its file, the nearest first, until one fails. The answer is a line each:
killed and by which test, or SURVIVED. `--wide`: past those of its file, the tests of all that talks to PostgreSQL.
"""

import argparse
import contextlib
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from bursar.local.postgres import Postgres
from bursar.local.valkey import Valkey
from tests import servers
from tests.mutations.removals import REMOVALS, TESTS, WIDE, Removal

WALL_LIMIT_S = 240.0  # for one removal, with all the tests of its file
TEST_LIMIT_S = 20  # for one test, of which none takes so long
# What the tests import and nobody mutates: loaded once, before the forks.
LIBRARIES = ("alembic", "celery", "fastapi", "httpx2", "hypothesis", "psycopg", "redis", "schemathesis", "sqlalchemy")
_times = count(int(time.time()))


class Shared(Postgres):
    """The runner's server, as a forked child sees it: running, and not its own to start or to end."""

    @property
    def running(self) -> bool:
        return True


class Reuse:
    """A pytest plugin: servers from outside instead of one's own, and the first failure kept."""

    def __init__(self, values: dict[str, object], first: str | None) -> None:
        self._values = values
        self._first = first
        self.failed: str | None = None

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Those of the audit name the invariant that they are about: such first."""
        if self._first is not None:
            items.sort(key=lambda item: not item.name.startswith(f"test_{self._first}_"))

    @pytest.hookimpl(tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> object:
        value = self._values.get(fixturedef.argname)
        if value is not None:
            fixturedef.cached_result = (value, fixturedef.cache_key(request), None)  # pyright: ignore
        return value

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and self.failed is None:
            self.failed = report.nodeid if report.when == "call" else f"{report.when} of {report.nodeid}"

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and self.failed is None:
            self.failed = f"collecting {report.nodeid}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="FILE", nargs="+", help="removals from these files")
    parser.add_argument("--number", type=int, nargs="+", help="removals of these numbers")
    parser.add_argument("--wide", action="store_true", help="past the tests of its file, those of all of the ledger")
    parser.add_argument("--limit", type=float, default=WALL_LIMIT_S, help="seconds for one removal")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # this is the copy
    asked = parser.parse_args()
    if not asked.here:
        return _in_a_copy(sys.argv[1:])
    chosen = [
        (number, removal)
        for number, removal in enumerate(REMOVALS, 1)
        if (not asked.only or removal.file in asked.only) and (not asked.number or number in asked.number)
    ]
    if asked.number:
        chosen.sort(key=lambda numbered: asked.number.index(numbered[0]))
    for library in LIBRARIES:
        importlib.import_module(library)
    with _fast_postgres() as postgres, servers.running_valkey() as valkey:
        _in_a_child(lambda _: _make_template(postgres), WALL_LIMIT_S)
        answers = [
            _try(number, removal, postgres, valkey, wide=asked.wide, limit_s=asked.limit) for number, removal in chosen
        ]
    print(f"{len(answers)} removals, {answers.count(False)} of them to look at", flush=True)
    return 0 if all(answers) else 1


def _make_template(postgres: Postgres) -> None:
    """In a child: the migrations are among what is mutated, and must not be loaded before."""
    servers.make_template(postgres)


@contextlib.contextmanager
def _fast_postgres() -> Generator[Postgres]:
    """Which forgets, if the machine crashes: no removal here is about that."""
    with servers.temporary_folder() as folder:
        settings = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        server = Postgres(folder / "postgres", settings=settings)
        try:
            server.start()
            yield server
        finally:
            server.delete()


def _in_a_copy(arguments: Sequence[str]) -> int:
    with servers.temporary_folder() as folder:
        copy = folder / "project"
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=servers.ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in listed.stdout.splitlines():
            if (servers.ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(servers.ROOT / name, copy / name)
        command = [sys.executable, "-m", "tests.mutations", "--here", *arguments]
        return subprocess.run(command, cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, check=False).returncode


def _try(number: int, removal: Removal, postgres: Postgres, valkey: Valkey, *, wide: bool, limit_s: float) -> bool:
    """One removal; whether it went as the list says."""
    path = servers.ROOT / removal.file
    text = path.read_text()
    if text.count(removal.old) != 1:
        return _say(number, removal, f"STALE: its text occurs {text.count(removal.old)} times", 0)
    tests = list(dict.fromkeys([*TESTS[removal.file], *(WIDE if wide else ())]))
    started = time.monotonic()
    _write(path, text.replace(removal.old, removal.new))
    try:
        answer = _in_a_child(lambda to: _run(number, removal, tests, postgres, valkey, to), limit_s)
    finally:
        _write(path, text)
    took_s = time.monotonic() - started
    if answer is None and took_s < limit_s:
        return _say(number, removal, "BROKEN: its process died", took_s)
    if answer is None:
        return _say(number, removal, "UNDECIDED: nothing had failed by then", took_s)
    if answer["failed"]:
        return _say(number, removal, f"killed: {answer['failed']}", took_s)
    if answer["code"] != 0:
        return _say(number, removal, f"BROKEN: pytest ended with {answer['code']}", took_s)
    return _say(number, removal, f"survived: {removal.why}" if removal.why else "SURVIVED", took_s)


def _say(number: int, removal: Removal, answer: str, took_s: float) -> bool:
    print(f"{number:3} {removal.file}: {removal.what}: {answer} ({took_s:.0f} s)", flush=True)
    return answer.startswith(("killed", "survived"))


def _run(
    number: int, removal: Removal, tests: Sequence[str], postgres: Postgres, valkey: Valkey, answer_to: int
) -> None:
    shared = Shared.__new__(Shared)
    vars(shared).update(vars(postgres))
    values: dict[str, object] = {"postgres": shared, "valkey": valkey, "template": servers.TEMPLATE}
    if removal.file.startswith("migrations/"):
        del values["template"]
    servers._numbers = count(os.getpid() * 1000)  # names of databases that no other child used
    invariant = re.match(r"(\d+):", removal.what)
    plugin = Reuse(values, invariant[1] if invariant else None)
    options = ["-x", "-q", "-p", "no:cacheprovider", "-o", f"timeout={TEST_LIMIT_S}"]
    code = 0
    for position, path in enumerate(tests):  # one by one: most are not even imported
        servers.TEMPLATE = f"migrated_{os.getpid()}_{position}"
        code = int(pytest.main([*options, path], plugins=[plugin]))
        if code != 0:
            break
    os.write(answer_to, json.dumps({"code": code, "failed": plugin.failed}).encode())


def _in_a_child(work: Callable[[int], None], limit_s: float) -> Any:
    """What `work` wrote to its pipe, as JSON, in a process of its own; None: nothing within the limit."""
    read, write = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setsid()
        log = os.open(os.devnull, os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        with contextlib.suppress(BaseException):
            work(write)
        os._exit(0)
    os.close(write)
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and not os.waitpid(child, os.WNOHANG)[0]:
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read()
    return json.loads(answer) if answer else None


def _write(path: Path, text: str) -> None:
    """With a time that no compiled file of it has, of whatever second."""
    path.write_text(text)
    written_at = next(_times)
    os.utime(path, (written_at, written_at))


if __name__ == "__main__":
    sys.exit(main())
