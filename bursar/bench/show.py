"""The figures as tables for people."""

from rich.console import Console
from rich.table import Table

from bursar.bench.figures import Spread
from bursar.bench.report import Report, WorkFigures

ROLES = ("api", "worker", "postgres", "valkey", "load", "bench")


def show(report: Report, console: Console) -> None:
    """Print everything that a person wants to know; what was not measured is a dash or left out."""
    machine = report.machine
    console.print(
        f"\n[bold]Bursar {report.version}[/] on {machine.cpu}, {machine.cores} cores, "
        f"{machine.memory_gib:g} GiB, {machine.system}, Python {machine.python}, "
        f"PostgreSQL {report.postgres.get('server_version', 'unknown')} on {machine.filesystem}, "
        f"{report.workers} worker process(es)"
    )
    if report.floor is not None:
        floor = report.floor
        each = ", ".join(f"{one.spread_per_s:,.0f}/{one.hot_per_s:,.0f}" for one in floor.rounds)
        console.print(
            f"Floor of this PostgreSQL (pgbench, {floor.clients} clients): (a) one treasury row "
            f"{floor.spread_per_s:,.0f}/s, (b) one hot pair {floor.hot_per_s:,.0f}/s  [dim]rounds a/b: {each}[/]"
        )
    console.print(_speed(report.works))
    if any(work.cpu for work in report.works):
        console.print(_cpu(report.works))
    for work in report.works:
        if work.memory:
            console.print(_memory(work))
    console.print(_goals(report))
    for work in report.works:
        for problem in work.problems:
            console.print(f"[bold red]{work.name}: {problem}[/]")
    console.print(f"Audit: {report.audit}")
    if not report.valid:
        console.print("[bold red]These figures do not count: see the problems and the audit above.[/]")


def _speed(works: list[WorkFigures]) -> Table:
    table = Table(title="Speed (latencies in ms: p50 / p95 / p99)")
    for column in ("work", "accepted/s", "applied/s", "left", "accept", "outcome", "as awaited", "intake", "drain"):
        table.add_column(column, justify="left" if column == "work" else "right")
    for work in works:
        window, load = work.window, work.load
        awaited = work.sample.outcome_ms if work.sample else load.outcome_ms if load else None
        applied = f"{window.applied_per_s:,.0f}" if window else "—"
        batch = window.drain_batch if window else None
        if work.drain is not None:
            applied, batch = f"{work.drain.per_s:,.0f}", work.drain.drain_batch
        table.add_row(
            work.title,
            f"{window.accepted_per_s:,.0f}" if window else "—",
            applied,
            f"{window.backlog_end:,}" if window else "—",
            _latency(load.accept_ms if load else None),
            _latency(window.outcome_ms if window else None),
            _latency(awaited),
            _mean(window.intake_batch if window else None),
            _mean(batch),
        )
    table.caption = (
        "left: pending when the window closed. outcome: accepted to applied, in the database. as awaited: by a "
        "client with Prefer: wait. intake, drain: commands per accepting and per draining transaction, on average."
    )
    return table


def _latency(spread: Spread | None) -> str:
    return "—" if spread is None else f"{spread.p50:.1f} / {spread.p95:.1f} / {spread.p99:.1f}"


def _mean(spread: Spread | None) -> str:
    return "—" if spread is None else f"{spread.mean:,.1f}"


def _cpu(works: list[WorkFigures]) -> Table:
    table = Table(title="CPU per applied command, µs (and cores busy)")
    table.add_column("work")
    for role in (*ROLES, "others"):
        table.add_column(role, justify="right")
    for work in works:
        if work.cpu is None:
            continue
        cpu = work.cpu
        cells = [f"{cpu.us_per_command.get(role, 0):,.0f} ({cpu.cores_busy.get(role, 0):.2f})" for role in ROLES]
        table.add_row(work.name, *cells, f"({cpu.others_cores_busy:.2f})")
    table.caption = "load: the generators. bench: this process, looking on. others: not ours, and the kernel."
    return table


def _memory(work: WorkFigures) -> Table:
    table = Table(title=f"{work.title}, MiB")
    for column in ("process", "start", "end", "peak", "drift"):
        table.add_column(column, justify="left" if column == "process" else "right")
    for process in work.memory:
        drift = "too short to say" if process.drift is None else f"{process.drift:+.1f}"
        table.add_row(process.name, f"{process.start:.1f}", f"{process.end:.1f}", f"{process.peak:.1f}", drift)
    table.caption = "drift: from a tenth of the way to the end. postgres: all of its processes, without shared buffers."
    return table


def _goals(report: Report) -> Table:
    table = Table(title="To reach, and reached")
    for column in ("work", "what", "to reach", "reached", ""):
        table.add_column(column)
    for goal in report.goals:
        if goal.met is not None:
            verdict = "[green]yes[/]" if goal.met else "[red]no[/]"
            table.add_row(goal.work, goal.what, goal.goal, goal.reached, verdict)
    return table
