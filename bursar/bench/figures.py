"""The arithmetic of the bench: percentiles and windows. Pure: no clock, no database, no process."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec


class Spread(msgspec.Struct, frozen=True):
    """How a quantity was spread, by nearest rank: p99 is a value that was seen, never one between two."""

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    max: float


def spread(values: Sequence[float]) -> Spread | None:
    """The spread of `values`; None of nothing, so that "no samples" never reads as "0 ms"."""
    return weighted_spread((value, 1) for value in values)


def weighted_spread(weighted: Iterable[tuple[float, int]]) -> Spread | None:
    """As `spread`, of (value, how many times it was seen)."""
    ordered = sorted((value, weight) for value, weight in weighted if weight > 0)
    count = sum(weight for _, weight in ordered)
    if count == 0:
        return None
    return Spread(
        count=count,
        mean=sum(value * weight for value, weight in ordered) / count,
        p50=_rank(ordered, count, 50),
        p95=_rank(ordered, count, 95),
        p99=_rank(ordered, count, 99),
        max=ordered[-1][0],
    )


def _rank(ordered: Sequence[tuple[float, int]], count: int, percent: int) -> float:
    """The smallest value that at least `percent` of all values do not exceed."""
    needed = -(-count * percent // 100)
    seen = 0
    for value, weight in ordered:
        seen += weight
        if seen >= needed:
            return value
    raise AssertionError("unreachable: the weights sum to count")


class Flow(NamedTuple):
    """Commands that shared their fate: accepted in one transaction and, unless pending, drained in one.

    Times are the database's own, in seconds since the epoch.
    """

    intake: int  # the transaction that accepted them
    accepted_s: float
    drain: int | None  # the transaction that wrote their outcomes; None: pending
    outcome_s: float | None
    status: str | None
    commands: int


class Window(msgspec.Struct, frozen=True):
    """What passed between two moments. Rates are per second of the window, both over the same one."""

    seconds: float
    accepted: int
    applied: int
    refused: int  # outcomes other than applied: none of them counts as speed
    accepted_per_s: float
    applied_per_s: float
    through_per_s: float | None  # from the load's first acceptance to its last outcome, commands over time
    backlog_start: int
    backlog_end: int  # accepted by then and without an outcome: what accepted/s above applied/s leaves behind
    outcome_ms: Spread | None  # accepted to outcome, of the commands whose outcome fell into the window
    intake_batch: Spread | None  # commands per accepting transaction
    drain_batch: Spread | None  # commands per drain


def window(flows: Iterable[Flow], *, start_s: float, end_s: float) -> Window:
    """What happened in [start_s, end_s). Raises ValueError when that is no window at all."""
    seconds = end_s - start_s
    if seconds <= 0:
        raise ValueError(f"a window must have a length, not {seconds} s")
    accepted = applied = refused = backlog_start = backlog_end = 0
    latencies: list[tuple[float, int]] = []
    total, first_s, last_s = 0, float("inf"), 0.0
    intakes: Counter[int] = Counter()
    drains: Counter[int] = Counter()
    for flow in flows:
        if start_s <= flow.accepted_s < end_s:
            accepted += flow.commands
            intakes[flow.intake] += flow.commands
        outcome_s = float("inf") if flow.outcome_s is None else flow.outcome_s
        total, first_s, last_s = total + flow.commands, min(first_s, flow.accepted_s), max(last_s, outcome_s)
        backlog_start += flow.commands if flow.accepted_s < start_s <= outcome_s else 0
        backlog_end += flow.commands if flow.accepted_s < end_s <= outcome_s else 0
        if flow.drain is None or not start_s <= outcome_s < end_s:
            continue
        latencies.append(((outcome_s - flow.accepted_s) * 1000, flow.commands))
        drains[flow.drain] += flow.commands
        if flow.status == "applied":
            applied += flow.commands
        else:
            refused += flow.commands
    return Window(
        seconds=seconds,
        accepted=accepted,
        applied=applied,
        refused=refused,
        accepted_per_s=accepted / seconds,
        applied_per_s=applied / seconds,
        through_per_s=total / (last_s - first_s) if first_s < last_s < float("inf") else None,
        backlog_start=backlog_start,
        backlog_end=backlog_end,
        outcome_ms=weighted_spread(latencies),
        intake_batch=spread(list(intakes.values())),
        drain_batch=spread(list(drains.values())),
    )


def drain_rate(flows: Iterable[Flow]) -> tuple[float, float]:
    """Commands a second of a drain from a standing start, and the seconds that it took.

    Counted from the first drain's commit to the last one's, without the first drain's own commands: how long
    the worker took to start is not in it. Raises ValueError with fewer than two drains to count between.
    """
    drains: Counter[float] = Counter()
    for flow in flows:
        if flow.outcome_s is not None and flow.status == "applied":
            drains[flow.outcome_s] += flow.commands
    if len(drains) < 2:
        raise ValueError("too few drains to tell a rate: put in more commands")
    first, last = min(drains), max(drains)
    return (sum(drains.values()) - drains[first]) / (last - first), last - first


def drift_mib(samples: Sequence[tuple[int, float]], *, warm_after: int) -> float | None:
    """How much memory a process gained after warming up. `samples`: (commands so far, MiB) in time order.

    From the median of the first five samples past `warm_after` commands to that of the last five, so that
    one odd sample decides nothing. None: too few samples to say.
    """
    warm = [mib for applied, mib in samples if applied >= warm_after]
    if len(warm) < 10:
        return None
    return sorted(warm[-5:])[2] - sorted(warm[:5])[2]
