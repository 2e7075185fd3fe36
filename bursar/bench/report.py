"""The figures of a run as data: what `--json` prints and what the table and the picture are drawn from."""

import math
from collections.abc import Mapping, Sequence

import msgspec

from bursar.bench.figures import Spread, Window
from bursar.bench.floor import Floor
from bursar.bench.machine import CpuUse, Machine
from bursar.bench.plan import LoadResult

NO_LATER = 1.25  # of a p99 of a few hundred commands: what one run differs from the next
MEMORY_DRIFT_MIB = 20  # what a process may gain over the memory work and still count as flat


class Cpu(msgspec.Struct, frozen=True):
    """What a window cost, by role: api, worker, postgres, valkey, load, bench."""

    us_per_command: dict[str, float]  # microseconds of CPU for each applied command
    cores_busy: dict[str, float]  # 1.0: one core all the time
    others_cores_busy: float  # not ours: other users of the machine, and the kernel's own threads


class DrainFigures(msgspec.Struct, frozen=True):
    commands: int
    per_s: float
    seconds: float
    drain_batch: Spread | None


class ProcessMemory(msgspec.Struct, frozen=True):
    """Resident memory of one process over the memory work, in MiB."""

    name: str
    start: float
    end: float
    peak: float
    drift: float | None  # from a tenth of the way to the end; None: too few samples to say


class Telling(msgspec.Struct, frozen=True):
    """Outcomes as they reached whoever wants to know of them, or a drain that owed it to somebody."""

    what: str
    delay_ms: Spread | None = None  # from the time that stands in an outcome to its arrival
    per_s: float | None = None


class WorkFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One work. What could not be seen is None (an api elsewhere shows no processes, perhaps no database)."""

    name: str
    title: str
    seconds: float
    load: LoadResult | None = None
    sample: LoadResult | None = None  # a few posts a second with `Prefer: wait`, beside the load
    window: Window | None = None
    cpu: Cpu | None = None
    drain: DrainFigures | None = None
    memory: list[ProcessMemory] = []
    told: list[Telling] = []
    problems: list[str] = []  # each makes the whole run invalid


class Goal(msgspec.Struct, frozen=True):
    """One line of what is to be reached, and what was."""

    work: str
    what: str
    goal: str
    reached: str
    met: bool | None  # None: not measured in this run


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. `valid` is false when a command was lost or refused or the audit found fault: no figure counts."""

    version: str
    command: str
    started_at: str
    machine: Machine
    postgres: dict[str, str]
    latency_source: str  # how accept-to-outcome times were taken: commit times or columns
    workers: int
    floor: Floor | None
    works: list[WorkFigures]
    goals: list[Goal]
    audit: str  # "clean", "not run", or what it found
    valid: bool


def as_json(report: Report) -> str:
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"


def cpu_between(before: CpuUse, after: CpuUse, *, commands: int) -> Cpu:
    """The cost of a window from two looks at the CPU. Without commands there is no cost per command."""
    wall_s = after.at_s - before.at_s
    used_s = {role: used - before.by_role.get(role, 0.0) for role, used in after.by_role.items()}
    others_s = after.machine_busy_s - before.machine_busy_s - sum(used_s.values())
    return Cpu(
        us_per_command={role: used / commands * 1e6 for role, used in used_s.items()} if commands else {},
        cores_busy={role: used / wall_s for role, used in used_s.items()},
        others_cores_busy=max(0.0, others_s / wall_s),  # the clocks tick at 10 ms: a quiet machine can show -0.0
    )


def goals(works: Sequence[WorkFigures], floor: Floor | None) -> list[Goal]:
    """What the project set out to reach, against what this run did."""
    by_name = {work.name: work for work in works}
    singles, batch, hot = (_applied(by_name, name) for name in ("singles", "batch", "hot"))
    spends, lots, mixed = (_applied(by_name, name) for name in ("spends", "lots", "mixed"))
    spread_floor = floor.spread_per_s if floor else None
    hot_floor = floor.hot_per_s if floor else None
    drain = by_name["drain"].drain if "drain" in by_name else None
    return [
        _ratio("singles", "applied/s against floor (a)", singles, spread_floor, 2),
        _at_least("singles", "applied/s, aim", singles, 5_000),
        _ratio("batch", "applied/s against floor (a)", batch, spread_floor, 6),
        _at_least("batch", "applied/s, aim", batch, 12_000),
        _ratio("hot", "applied/s against batch", hot, batch, 0.8),
        _ratio("hot", "applied/s against floor (b)", hot, hot_floor, 5),
        _ratio("mixed", "applied/s against spends alone", mixed, spends, 0.7),
        _ratio("lots", "spends with lots about against spends alone", lots, spends, 0.8),
        *_offered(by_name.get("offered")),
        _at_most("singles", "outcome p99 at full load, accepted to applied", *_p99_outcome(by_name), 300),
        _at_least("drain", "one worker, commands/s", drain.per_s if drain else None, 15_000),
        _memory(by_name.get("memory")),
        *_told({name: work.told for name, work in by_name.items()}),
    ]


def _applied(works: Mapping[str, WorkFigures], name: str) -> float | None:
    work = works.get(name)
    return work.window.applied_per_s if work and work.window else None


def _p99_outcome(works: Mapping[str, WorkFigures]) -> tuple[float | None]:
    window = works["singles"].window if "singles" in works else None
    return (window.outcome_ms.p99 if window and window.outcome_ms else None,)


def _ratio(work: str, what: str, value: float | None, base: float | None, least: float) -> Goal:
    goal = f"≥ {least:g} times"
    if value is None or not base:
        return Goal(work, what, goal, "—", None)
    times = math.floor(value / base * 100) / 100  # rounded down: what reads as the goal has reached it
    return Goal(work, what, goal, f"{times:.2f} times ({value:,.0f}/{base:,.0f})", times >= least)


def _at_least(work: str, what: str, value: float | None, least: float) -> Goal:
    reached = "—" if value is None else f"{value:,.0f}"
    return Goal(work, what, f"≥ {least:,.0f}", reached, None if value is None else value >= least)


def _at_most(work: str, what: str, value: float | None, most_ms: float) -> Goal:
    reached = "—" if value is None else f"{value:,.1f} ms"
    return Goal(work, what, f"≤ {most_ms:g} ms", reached, None if value is None else value <= most_ms)


def _offered(work: WorkFigures | None) -> list[Goal]:
    """Both from the client's side, from the moment a post was due: the stricter of the two views."""
    accept = work.load.accept_ms if work and work.load else None
    outcome = work.load.outcome_ms if work and work.load else None
    return [
        _at_most("offered", "accept p50", accept.p50 if accept else None, 3),
        _at_most("offered", "accept p99", accept.p99 if accept else None, 15),
        _at_most("offered", "outcome p50, seen by a waiting client", outcome.p50 if outcome else None, 12),
        _at_most("offered", "outcome p99, seen by a waiting client", outcome.p99 if outcome else None, 50),
    ]


def _memory(work: WorkFigures | None) -> Goal:
    drifts = [process.drift for process in work.memory if process.drift is not None] if work else []
    goal = f"± {MEMORY_DRIFT_MIB} MiB"
    if not drifts:
        return Goal("memory", "largest drift of a process", goal, "—", None)
    largest = max(drifts, key=abs)
    return Goal("memory", "largest drift of a process", goal, f"{largest:+.1f} MiB", abs(largest) <= MEMORY_DRIFT_MIB)


def _told(told: Mapping[str, Sequence[Telling]]) -> list[Goal]:
    feed, webhooks = (told[name][0].delay_ms if told.get(name) else None for name in ("feed", "webhooks"))
    without, owing = [each.per_s for each in told["owing"]] if told.get("owing") else (None, None)
    unseen, looked_at = [each.per_s for each in told["watched"]] if told.get("watched") else (None, None)
    alone, beside = [each.delay_ms for each in told["broken"]] if told.get("broken") else (None, None)
    return [
        _at_most("feed", "outcome decided to event received, p99", feed.p99 if feed else None, 50),
        _at_most("webhooks", "outcome decided to webhook received, p50", webhooks.p50 if webhooks else None, 60),
        _at_most("webhooks", "outcome decided to webhook received, p99", webhooks.p99 if webhooks else None, 300),
        _at_least("deliveries", "deliveries/s", told["deliveries"][0].per_s if told.get("deliveries") else None, 800),
        _ratio("owing", "a drain that owes one each against one that owes none", owing, without, 0.75),
        _no_later("broken", "p99 to healthy endpoints, beside two that are not", alone, beside),
        _ratio("watched", "spends looked at against spends alone", looked_at, unseen, 0.97),
    ]


def _no_later(work: str, what: str, alone: Spread | None, beside: Spread | None) -> Goal:
    goal = f"≤ {NO_LATER:g} times"
    if alone is None or beside is None:
        return Goal(work, what, goal, "—", None)
    times = math.ceil(beside.p99 / alone.p99 * 100) / 100
    return Goal(work, what, goal, f"{times:.2f} times ({beside.p99:,.1f}/{alone.p99:,.1f} ms)", times <= NO_LATER)
