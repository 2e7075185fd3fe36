"""`make run` from the outside: real processes, real signals, and nothing left behind."""

import base64
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest

from bursar.local.postgres import Postgres
from bursar.local.processes import wait_until
from bursar.local.valkey import Valkey
from tests import servers
from tests.docs.pages import ROOT, fences
from tests.docs.walking import Shell, environment, shown, walk
from tests.local.running import Run, run

pytestmark = pytest.mark.timeout(180)  # a start imports everything five times over, on a machine that may be busy


@pytest.fixture(scope="module")
def folder() -> Generator[Path]:
    with servers.temporary_folder() as path:
        yield path


@pytest.fixture(scope="module")
def running(folder: Path) -> Generator[Run]:
    """One stack for the tests that leave it as they found it.

    Its home bears the scars of a first start that was killed with -9: half a data folder, files that lie.
    """
    unfinished = folder / "home" / "postgres" / "cluster" / "data.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    (folder / "home" / "lock").write_text("1\n")
    (folder / "home" / "local.env").write_text("BURSAR_URL=http://127.0.0.1:1\n")
    with run(folder / "home") as stack:
        assert wait_until(lambda: not stack.is_ready(), timeout_s=20)
        stack.wait_until_ready()
        yield stack


def get(url: str, key: str) -> dict[str, object]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def gold_of(stack: Run, wallet: str) -> str:
    told = stack.told
    accounts = get(f"{told['BURSAR_URL']}/v1/wallets/{wallet}", told["BURSAR_API_KEY"])["accounts"]
    assert isinstance(accounts, list)
    return next(account["posted"] for account in accounts if account["asset"] == "gold_coins")


def test_local_env_names_everything_and_only_we_may_read_it(running: Run) -> None:
    told = running.told
    service = {"BURSAR_URL", "BURSAR_API_KEY", "BURSAR_DATABASE_URL", "BURSAR_REDIS_URL"}
    assert set(told) == service | {"BURSAR_OPERATOR", "BURSAR_OPERATOR_PASSWORD", "FLOWER_URL"}
    assert told["BURSAR_URL"] == f"http://127.0.0.1:{running.port}"
    for secret in ("local.env", "api-key", "flower-password", "operator-password", "receipt-key"):
        assert (running.home / secret).stat().st_mode & 0o777 == 0o600
    shell = subprocess.run(
        ["sh", "-c", '. "$1" && echo "$FLOWER_URL"', "sh", str(running.home / "local.env")],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    assert shell.stdout.strip() == told["FLOWER_URL"]


def test_the_demo_data_are_there_and_the_printed_lines_work_when_pasted(running: Run) -> None:
    """They are those of the README: tests/docs/test_readme.py."""
    assert gold_of(running, "bob") == "100"
    lines = [line for line in running.text.splitlines() if line.startswith("curl ")]
    assert len(lines) == 3
    before = int(gold_of(running, "alice"))
    answers = [
        json.loads(subprocess.run(line, shell=True, capture_output=True, timeout=20, check=True).stdout)
        for line in lines
    ]
    assert answers[0]["type"] == "top_up"
    assert (answers[1]["status"], answers[1]["outcome"]["code"]) == ("applied", "applied")
    assert answers[2]["id"] == "alice"
    [shows] = [shown(block) for block in fences(ROOT / "README.md", "json")]
    assert answers[1].keys() >= shows.keys()
    assert answers[1]["outcome"].keys() >= shows["outcome"].keys()
    assert answers[1]["outcome"]["accounts"][0].keys() == shows["outcome"]["accounts"][0].keys()
    assert int(gold_of(running, "alice")) == before + 50 - 30


def test_the_quick_start_does_what_it_says(running: Run, folder: Path) -> None:
    desk = folder / "desk"
    desk.mkdir()
    (desk / ".bursar").symlink_to(running.home)
    walk(ROOT / "docs/quick-start.md", Shell(desk, **environment(running.told)))


def test_flower_answers_to_its_password_alone_and_changes_nothing(running: Run) -> None:
    place = running.told["FLOWER_URL"].split("@")[1]
    assert flower_status(f"http://{place}/workers", running) == 200
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"http://{place}/workers", timeout=10)
    workers: list[str] = []
    deadline = time.monotonic() + 30  # Flower asks with a second's patience; a worker that is just starting is late
    while len(workers) < 3 and time.monotonic() < deadline:
        workers = list(json.loads(flower_answer(f"http://{place}/api/workers?refresh=1", running)))
    assert {name.partition("@")[2] for name in workers} == {"worker-1", "worker-2", "webhooks"}
    for worker in workers:
        with pytest.raises(urllib.error.HTTPError, match=r"40[35]"):
            flower_answer(f"http://{place}/api/worker/shutdown/{worker}", running, method="POST")


def flower_status(url: str, stack: Run) -> int:
    with urllib.request.urlopen(flower_request(url, stack), timeout=10) as response:
        return response.status


def flower_answer(url: str, stack: Run, *, method: str = "GET") -> bytes:
    with urllib.request.urlopen(flower_request(url, stack, method=method), timeout=10) as response:
        return response.read()


def flower_request(url: str, stack: Run, *, method: str = "GET") -> urllib.request.Request:
    secret = stack.told["FLOWER_URL"].removeprefix("http://").split("@")[0]
    token = base64.b64encode(secret.encode()).decode()
    return urllib.request.Request(url, headers={"Authorization": f"Basic {token}"}, method=method)


@pytest.mark.parametrize("part", ["api", "worker-1", "webhooks", "postgresql", "valkey"])
def test_what_is_killed_is_started_again_with_a_line_and_spends_apply(running: Run, part: str) -> None:
    victims = {
        "api": lambda: running.children("bursar api"),
        "worker-1": lambda: running.children("worker-1"),
        "webhooks": lambda: running.children("--webhooks"),
        "postgresql": lambda: running.children("postgres -D"),
        "valkey": lambda: running.children("valkey-server"),
    }
    seen = running.text.count(f"{part} started again")
    (victim,) = victims[part]()
    victim.kill()
    assert wait_until(lambda: running.text.count(f"{part} started again") > seen, timeout_s=20), running.text
    assert f"{part} was killed by SIGKILL; starting it again" in running.text
    assert wait_until(lambda: spend_applies(running), timeout_s=30), running.text


def spend_applies(stack: Run) -> bool:
    told = stack.told
    request = urllib.request.Request(
        f"{told['BURSAR_URL']}/v1/commands",
        data=json.dumps({"type": "spend", "wallet": "charlie", "asset": "gold_coins", "amount": "1"}).encode(),
        headers={
            "Authorization": f"Bearer {told['BURSAR_API_KEY']}",
            "Content-Type": "application/json",
            "Idempotency-Key": os.urandom(8).hex(),
            "Prefer": "wait=5",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)["status"] == "applied"
    except OSError:
        return False


def test_a_second_one_on_the_same_home_is_refused_and_disturbs_nobody(running: Run) -> None:
    second = Run(running.home)
    assert second.wait() == 1
    assert "already runs on" in running.text
    assert running.is_ready()
    assert gold_of(running, "bob") == "100"


def test_a_busy_port_is_named_and_nothing_is_started(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with run(folder / "busy", port=port) as stack:
            assert stack.wait() == 1
            assert f"Port {port} is taken by process {os.getpid()}" in stack.text
            assert "PORT=" in stack.text
            assert stack.processes() == []


def test_neither_ctrl_c_nor_a_killed_supervisor_leaves_a_process_and_the_data_stay(folder: Path) -> None:
    home = folder / "twice"
    with run(home) as first:
        first.wait_until_ready()
        told = first.told
        assert spend_applies(first)
        assert first.signal(signal.SIGINT) == 0
        assert first.processes() == []
        assert not first.is_ready()
    with run(home, port=first.port) as second:
        second.wait_until_ready()
        assert second.told == told
        assert gold_of(second, "charlie") == "99"
        supervisor = psutil.Process(second.process.pid)
        family = supervisor.children(recursive=True)
        supervisor.kill()  # nobody is left to stop the others: the system tells them
        second.wait()
        assert psutil.wait_procs(family, timeout=20)[1] == []


def test_a_signal_at_any_moment_of_the_start_leaves_nothing(folder: Path) -> None:
    for moment in ("postgresql ", "migrations "):  # while a server starts, while four programs do
        with run(folder / "early") as stack:
            stack.wait_for_text(moment)
            assert stack.signal(signal.SIGTERM) == 0
            assert stack.processes() == []


def test_broken_data_stop_the_start_with_a_sentence(folder: Path) -> None:
    home = folder / "broken"
    data = home / "postgres" / "cluster" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("17\n")
    with run(home) as stack:
        assert stack.wait() == 1
        assert "holds data of PostgreSQL 17" in stack.text
        assert "Traceback" not in stack.text
        assert stack.processes() == []


def test_given_servers_are_used_and_none_started(
    folder: Path, postgres: Postgres, valkey: Valkey, empty_database_url: str, redis_url: str
) -> None:
    given = {"BURSAR_DATABASE_URL": empty_database_url, "BURSAR_REDIS_URL": redis_url}
    with run(folder / "given", environment=given) as stack:
        stack.wait_until_ready()
        assert {name: stack.told[name] for name in given} == given
        assert stack.children("postgres -D") == []
        assert stack.children("valkey-server") == []
        assert gold_of(stack, "bob") == "100"
        assert stack.signal(signal.SIGINT) == 0
    assert postgres.running
    assert valkey.running


@pytest.mark.parametrize(
    "url", ["postgresql:/bursar:secret@nowhere", "postgresql://bursar:secret@nowhere:port/bursar", "secret"]
)
def test_a_given_url_that_is_none_is_refused_without_repeating_its_password(folder: Path, url: str) -> None:
    with run(folder / "nowhere", environment={"BURSAR_DATABASE_URL": url}) as stack:
        assert stack.wait() == 1
        assert "BURSAR_DATABASE_URL is no usable URL" in stack.text
        assert "secret" not in stack.text
