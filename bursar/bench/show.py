"""The figures as tables for people."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bursar.bench.figures import Spread
from bursar.bench.report import Report, WorkFigures

QUIET_CORES = 0.3  # the kernel's own threads, flushing what we write, take up to about as much
ROLES = ("api", "worker", "postgres", "valkey", "load")


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
    console.print("\n".join(f"{work.name}: {work.title}" for work in report.works), style="dim", highlight=False)
    console.print(_speed(report.works))
    console.print(_latencies(report.works))
    if any(work.told for work in report.works):
        console.print(_told(report.works))
    if any(work.cpu for work in report.works):
        console.print(_cpu(report.works))
    for work in report.works:
        if work.memory:
            console.print(_memory(work))
    console.print(_goals(report))
    for work in report.works:
        for problem in work.problems:
            console.print(f"[bold red]{work.name}: {problem}[/]")
    others = max((work.cpu.others_cores_busy for work in report.works if work.cpu), default=0.0)
    if others > QUIET_CORES:
        console.print(
            f"[yellow]Others kept up to {others:.2f} cores busy: for figures to keep, run it on a quiet machine.[/]"
        )
    console.print(f"Audit: {report.audit}")
    if not report.valid:
        console.print("[bold red]These figures do not count: see the problems and the audit above.[/]")


def _table(title: str, *columns: str, caption: str = "") -> Table:
    table = Table(title=title, caption=caption, box=SIMPLE_HEAD, title_justify="left", caption_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _speed(works: list[WorkFigures]) -> Table:
    table = _table(
        "Speed: commands per second, and commands per transaction on average",
        *("work", "accepted/s", "applied/s", "left", "through/s", "intake", "drain"),
        caption=(
            "left: pending when the window closed. through: from the load's first acceptance to its last outcome. "
            "intake, drain: commands per accepting and per draining transaction."
        ),
    )
    for work in works:
        if work.name == "memory" or work.told:
            continue
        window, drain = work.window, work.drain
        table.add_row(
            work.name,
            f"{window.accepted_per_s:,.0f}" if window else "—",
            f"{window.applied_per_s:,.0f}" if window else f"{drain.per_s:,.0f}" if drain else "—",
            f"{window.backlog_end:,}" if window else "—",
            f"{window.through_per_s:,.0f}" if window and window.through_per_s else "—",
            _mean(window.intake_batch if window else None),
            _mean(window.drain_batch if window else drain.drain_batch if drain else None),
        )
    return table


def _latencies(works: list[WorkFigures]) -> Table:
    table = _table(
        "Latency: p50 / p95 / p99 in ms",
        *("work", "accept", "outcome", "outcome as awaited"),
        caption="outcome: accepted to applied, in the database. as awaited: by a client with Prefer: wait.",
    )
    for work in works:
        load, window = work.load, work.window
        awaited = work.sample.outcome_ms if work.sample else load.outcome_ms if load else None
        if load is not None:
            table.add_row(
                work.name, _latency(load.accept_ms), _latency(window.outcome_ms if window else None), _latency(awaited)
            )
    return table


def _told(works: list[WorkFigures]) -> Table:
    table = _table(
        "Told: p50 / p95 / p99 in ms from the time that stands in an outcome, and per second",
        *("work", "", "delay", "per second"),
    )
    table.columns[1].justify = "left"
    for work in works:
        for each in work.told:
            per_s = "—" if each.per_s is None else f"{each.per_s:,.0f}"
            table.add_row(work.name, each.what, _latency(each.delay_ms), per_s)
    return table


def _latency(spread: Spread | None) -> str:
    return "—" if spread is None else f"{spread.p50:.1f} / {spread.p95:.1f} / {spread.p99:.1f}"


def _mean(spread: Spread | None) -> str:
    return "—" if spread is None else f"{spread.mean:,.1f}"


def _cpu(works: list[WorkFigures]) -> Table:
    table = _table(
        "CPU per applied command in µs (and cores busy)",
        *("work", *ROLES, "others"),
        caption="load: the generators and the bench itself. others: not ours, and the kernel's own threads.",
    )
    for work in works:
        if work.cpu is None:
            continue
        each, busy = work.cpu.us_per_command, work.cpu.cores_busy
        cells = [f"{each.get(role, 0):,.0f} ({busy.get(role, 0):.2f})" for role in ROLES[:-1]]
        load, load_busy = (sum(figures.get(role, 0) for role in ("load", "bench")) for figures in (each, busy))
        table.add_row(work.name, *cells, f"{load:,.0f} ({load_busy:.2f})", f"({work.cpu.others_cores_busy:.2f})")
    return table


def _memory(work: WorkFigures) -> Table:
    table = _table(
        f"{work.title}, MiB",
        *("process", "start", "end", "peak", "drift"),
        caption="drift: from a tenth of the way to the end. postgres: all its processes, without shared buffers.",
    )
    for process in work.memory:
        drift = "too short to say" if process.drift is None else f"{process.drift:+.1f}"
        table.add_row(process.name, f"{process.start:.1f}", f"{process.end:.1f}", f"{process.peak:.1f}", drift)
    return table


def _goals(report: Report) -> Table:
    table = _table("To reach, and reached", "work", "what", "to reach", "reached", "")
    table.columns[1].justify = "left"
    for goal in report.goals:
        if goal.met is not None:
            verdict = "[green]yes[/]" if goal.met else "[red]no[/]"
            table.add_row(goal.work, goal.what, goal.goal, goal.reached, verdict)
    return table
