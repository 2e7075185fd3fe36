"""What the bench makes of its figures: goals, tables, a picture, JSON."""

import io
from xml.etree import ElementTree

import msgspec
import pytest
from rich.console import Console

from bursar.bench.figures import Flow, spread, window
from bursar.bench.floor import Floor, FloorError, Round, mean_of, read_rate
from bursar.bench.machine import CpuUse, Machine
from bursar.bench.picture import svg
from bursar.bench.plan import LoadResult
from bursar.bench.report import Cpu, DrainFigures, Goal, ProcessMemory, Report, Telling, WorkFigures, cpu_between, goals
from bursar.bench.show import show
from bursar.bench.works import process_memory

LOAD = LoadResult(
    generator="wrk", posts=10, commands=10, errors={}, late=0,
    accept_ms=spread([2.0] * 98 + [16.0] * 2), outcome_ms=spread([10.0] * 98 + [40.0] * 2),
)  # fmt: skip


def work(name: str, applied_per_s: int, **more: object) -> WorkFigures:
    flows = [Flow(1, 0.0, 1, 0.2, "applied", applied_per_s)]
    seen = window(flows, start_s=0.0, end_s=1.0)
    fields: dict[str, object] = {"name": name, "title": f"{name} <work>", "seconds": 1.0, "load": LOAD}
    return WorkFigures(**{**fields, "window": seen, **more})  # pyright: ignore[reportArgumentType]


FLOOR = mean_of([Round(900.0, 800.0), Round(1100.0, 1200.0)], seconds=5)
WORKS = [
    work("singles", 5_000),
    work("batch", 5_999),
    work("hot", 4_800),
    work("spends", 6_000),
    work("lots", 5_000),
    work("mixed", 4_200),
    work("offered", 100, cpu=Cpu({"api": 70.0}, {"api": 0.5}, others_cores_busy=0.9)),
    work("drain", 0, window=None, load=None, drain=DrainFigures(10, 15_000.0, 1.0, None)),
    work(
        "memory", 0, window=None, memory=[ProcessMemory("api 1", 50, 61, 62, 11.0), ProcessMemory("w", 1, 1, 1, -25.0)]
    ),
    work("feed", 0, window=None, load=None, told=[Telling("stream", spread([6.0] * 98 + [51.0] * 2))]),
    work("webhooks", 0, window=None, load=None, told=[Telling("one", spread([12.0] * 98 + [300.0] * 2))]),
    work("deliveries", 0, window=None, load=None, told=[Telling("20 endpoints", per_s=801.0)]),
    work("owing", 0, window=None, load=None, told=[Telling("none", per_s=1_000.0), Telling("each", per_s=749.0)]),
    work(
        "broken",
        0,
        window=None,
        load=None,
        told=[Telling("98", spread([8.0])), Telling("98 beside two", spread([10.0]))],
    ),
    work("watched", 0, window=None, load=None, told=[Telling("no", per_s=1_000.0), Telling("yes", per_s=969.0)]),
]


def verdicts(works: list[WorkFigures], floor: Floor | None) -> dict[str, bool | None]:
    return {f"{goal.work}: {goal.what}": goal.met for goal in goals(works, floor)}


def report(*, valid: bool) -> Report:
    machine = Machine("A & B", 2, 4.0, "Linux", "3.11", None, "/x", "ext4", 0.0)
    return Report(
        version="0.1.0", command="bursar bench", started_at="2026-01-01T00:00:00+00:00", machine=machine, postgres={},
        latency_source="commit times", workers=1, floor=FLOOR, works=WORKS, goals=goals(WORKS, FLOOR), audit="clean",
        valid=valid,
    )  # fmt: skip


def test_goals_are_judged_against_the_floor_of_the_run() -> None:
    assert (FLOOR.spread_per_s, FLOOR.hot_per_s) == (1000.0, 1000.0)
    assert verdicts(WORKS, FLOOR) == {
        "singles: applied/s against floor (a)": True,
        "singles: applied/s, aim": True,
        "batch: applied/s against floor (a)": False,
        "batch: applied/s, aim": False,
        "hot: applied/s against batch": True,
        "hot: applied/s against floor (b)": False,
        "mixed: applied/s against spends alone": True,
        "lots: spends with lots about against spends alone": True,
        "offered: accept p50": True,
        "offered: accept p99": False,
        "offered: outcome p50, seen by a waiting client": True,
        "offered: outcome p99, seen by a waiting client": True,
        "singles: outcome p99 at full load, accepted to applied": True,
        "drain: one worker, commands/s": True,
        "memory: largest drift of a process": False,
        "feed: outcome decided to event received, p99": False,
        "webhooks: outcome decided to webhook received, p50": True,
        "webhooks: outcome decided to webhook received, p99": True,
        "deliveries: deliveries/s": True,
        "owing: a drain that owes one each against one that owes none": False,
        "broken: p99 to healthy endpoints, beside two that are not": True,
        "watched: spends looked at against spends alone": False,
    }


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert set(verdicts([], None).values()) == {None}
    assert verdicts(WORKS, None)["singles: applied/s against floor (a)"] is None


def test_a_report_survives_json_and_says_everything_in_tables_and_in_the_picture() -> None:
    said = io.StringIO()
    show(report(valid=True), Console(file=said, width=200))

    assert msgspec.json.decode(msgspec.json.encode(report(valid=True)), type=Report) == report(valid=True)
    for words in (
        "5,000",
        "To reach, and reached",
        "1,000/s",
        "-25.0",
        "6.0 / 6.0 / 51.0",
        "749",
        "200.0 / 200.0 / 200.0",
        "0.90 cores busy",
        "Audit: clean",
    ):
        assert words in said.getvalue()
    assert "do not count" not in said.getvalue()
    picture = "".join(ElementTree.fromstring(svg(report(valid=True))).itertext())
    assert "A & B" in picture
    assert "singles <work>" in picture
    assert "broken: 98 beside two" in picture
    assert "INVALID" not in picture


def test_figures_that_do_not_count_say_so_wherever_they_stand() -> None:
    said = io.StringIO()
    show(report(valid=False), Console(file=said, width=200))

    assert "do not count" in said.getvalue()
    assert "INVALID" in svg(report(valid=False))


def test_cpu_is_shared_out_over_commands_and_what_is_left_is_others() -> None:
    before = CpuUse({"api": 1.0, "bench": 0.5}, machine_busy_s=10.0, at_s=100.0)
    after = CpuUse({"api": 2.0, "bench": 0.5, "load": 0.5}, machine_busy_s=13.0, at_s=102.0)

    cpu = cpu_between(before, after, commands=1000)

    assert cpu.us_per_command == {"api": 1000.0, "bench": 0.0, "load": 500.0}
    assert cpu.cores_busy == {"api": 0.5, "bench": 0.0, "load": 0.25}
    assert cpu.others_cores_busy == 0.75
    assert cpu_between(before, after, commands=0).us_per_command == {}


def test_memory_is_told_by_process_also_of_one_that_came_later() -> None:
    samples = [
        (number * 10, {"api 1": 50.0 + number} | ({"worker 1": 9.0} if number > 5 else {})) for number in range(20)
    ]

    api, worker = process_memory(samples, warm_after=0)

    assert api == ProcessMemory("api 1", 50.0, 69.0, 69.0, 67.0 - 52.0)
    assert worker == ProcessMemory("worker 1", 9.0, 9.0, 9.0, 0.0)


def test_pgbench_is_believed_only_when_no_client_gave_up() -> None:
    good = "number of failed transactions: 0 (0.000%)\ntps = 1640.5 (without initial connection time)\n"

    assert read_rate(good, "", 0) == 1640.5
    for output, code in ((good, 2), (good.replace(": 0 (", ": 3 ("), 0), ("", 0)):
        with pytest.raises(FloorError):
            read_rate(output, "client 3 aborted", code)


def test_a_goal_is_what_it_was() -> None:
    assert goals(WORKS, FLOOR)[0] == Goal(
        "singles", "applied/s against floor (a)", "≥ 2 times", "5.00 times (5,000/1,000)", True
    )
