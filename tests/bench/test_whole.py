"""`bursar bench` whole: real servers, every work, for about a second each. No figure is judged here."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psutil
import pytest

from bursar.bench import told
from bursar.bench.command import WORKS
from bursar.bench.machine import folder_on_disk
from bursar.bench.main import run_bench
from bursar.bench.plan import Work
from bursar.bench.works import Options
from bursar.local import processes

TOLD: tuple[Work, ...] = ("feed", "webhooks", "deliveries", "owing", "broken", "watched")
DRIVEN = tuple(work for work in WORKS if work not in TOLD)
SHORT = (
    "--quick",
    "--seconds",
    "1",
    "--warmup",
    "0",
    "--wallets",
    "50",
    "--drain",
    "2000",
    "--soak",
    "1000",
    "--batch",
    "20",
)


def command(folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "bursar", "bench", "--folder", str(folder), *SHORT, *more]


@pytest.fixture
def folder() -> Any:
    """Where the bench puts its data: a path that does not exist, on a disk."""
    parent = folder_on_disk()
    parent.chmod(0o711)
    yield parent / "data"
    assert not (parent / "data").exists(), "the bench left its data behind"
    parent.rmdir()


def processes_in(folder: Path) -> list[psutil.Process]:
    """All that the bench started: services and workers carry its mark, the others name or work in its folder."""
    found = processes.marked(folder)
    for process in psutil.process_iter():
        try:
            if str(folder) in " ".join([*process.cmdline(), process.cwd()]):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.timeout(180)
def test_every_work_runs_on_servers_of_its_own_and_the_report_is_json(folder: Path, tmp_path: Path) -> None:
    picture = tmp_path / "figures.svg"

    ran = subprocess.run(
        command(folder, "--only", ",".join(DRIVEN), "--json", "--no-floor", "--picture", str(picture)),
        capture_output=True,
        text=True,
        timeout=170,
    )

    assert ran.returncode == 0, ran.stderr[-3000:] + ran.stdout[-3000:]
    report = json.loads(ran.stdout)
    works = {work["name"]: work for work in report["works"]}
    assert tuple(works) == DRIVEN
    assert (report["audit"], report["valid"]) == ("clean", True)
    assert (report["postgres"]["fsync"], report["postgres"]["synchronous_commit"]) == ("on", "on")
    assert report["latency_source"] == "commit times"
    for name in ("singles", "batch", "hot", "spends", "lots", "mixed", "offered"):
        window = works[name]["window"]
        assert window["applied"] > 0, name
        assert window["backlog_start"] + window["accepted"] - window["applied"] == window["backlog_end"], name
        assert works[name]["cpu"]["us_per_command"]["api"] > 0, name
        assert works[name]["cpu"]["us_per_command"]["worker"] > 0, name
    assert works["singles"]["sample"]["outcome_ms"]["count"] > 0
    assert works["offered"]["load"]["outcome_ms"]["count"] > 0
    assert works["drain"]["drain"]["commands"] == 2000
    assert works["drain"]["drain"]["per_s"] > 0
    seen = {process["name"].split()[0] for process in works["memory"]["memory"]}
    assert seen == {"api", "worker", "postgres", "valkey"}
    assert "Bursar" in "".join(ElementTree.parse(picture).getroot().itertext())
    assert processes_in(folder) == []


@pytest.mark.timeout(180)
def test_who_is_told_and_when(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "COURIER_S", 0.1)
    monkeypatch.setattr(told, "HEALTHY", 5)
    options = Options(
        works=TOLD, seconds=0.5, warmup_s=0, connections=4, wallets=20, batch=10, rate=40, drain=1_000, soak=1_000,
        backlog=20, owing=2_000, rounds=1, generator="auto",
    )  # fmt: skip
    report = run_bench(options, floor_s=0, folder=folder)
    assert (report.valid, report.audit) == (True, "clean"), report.works
    works = {work.name: work.told for work in report.works}
    assert tuple(works) == TOLD
    counts = {name: [each.delay_ms.count for each in works[name] if each.delay_ms] for name in TOLD}
    assert counts == {"feed": [20], "webhooks": [20], "deliveries": [], "owing": [], "broken": [50, 50], "watched": []}
    assert [bool(each.per_s) for name in ("deliveries", "owing", "watched") for each in works[name]] == [True] * 5
    assert all(goal.met is not None for goal in report.goals if goal.work in TOLD)
    assert processes_in(folder) == []


@pytest.mark.timeout(120)
def test_stopped_in_the_middle_it_leaves_no_process_and_no_data(folder: Path) -> None:
    bench = subprocess.Popen(
        command(folder, "--no-floor", "--only", "singles", "--seconds", "60"),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert bench.stderr is not None
    try:
        for line in bench.stderr:
            if line.startswith("singles"):
                break
        time.sleep(processes.POLL_S)
        assert processes_in(folder) != []
        bench.send_signal(signal.SIGTERM)  # which ends it as Ctrl-C does
        assert bench.wait(60) == 130
    finally:
        bench.kill()
        bench.stderr.close()
    assert processes_in(folder) == []
