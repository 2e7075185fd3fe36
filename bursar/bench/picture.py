"""The figures as a picture: one SVG, written by hand, that any browser and any README shows."""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from bursar.bench.report import Report

WIDTH = 960
LEFT = 290  # where bars begin: the longest label fits before
RIGHT = 90  # room for the figure after the longest bar
ROW = 26
BAR = 16
INK, MUTED, GRID = "#1c2430", "#68737f", "#e4e8ec"
OURS, FLOOR = "#2f6fde", "#9aa5b1"
COLOURS = {
    "api": "#2f6fde",
    "worker": "#22a06b",
    "postgres": "#7a5bd0",
    "valkey": "#d9467a",
    "load": "#e08c1a",
    "bench": "#9aa5b1",
}


class Bar(NamedTuple):
    label: str
    parts: Sequence[tuple[float, str]]  # (length in the panel's unit, colour), one after the other
    text: str


def svg(report: Report) -> str:
    """The picture of a run: speed beside the floor, latencies, CPU per command. Panels without figures are left out."""
    panels = [
        ("Applied commands per second, beside PostgreSQL's own floor", _speed(report)),
        ("Accepted to applied, p99 in milliseconds", _latency(report)),
        ("Decided to received, p99 in milliseconds", _told(report)),
        ("CPU per applied command in microseconds", _cpu(report)),
    ]
    drawn: list[str] = []
    y = 84
    for title, bars in panels:
        if bars:
            drawn.append(_panel(title, bars, y))
            y += 34 + ROW * len(bars) + 22
    if panels[-1][1]:
        drawn.append(_legend(y))
        y += 40
    height = y
    machine = report.machine
    caption = (
        f"{machine.cpu}, {machine.cores} cores holding everything including the load, {machine.system}, "
        f"Python {machine.python}, PostgreSQL {report.postgres.get('server_version', '')}, fsync on"
    )
    verdict = "" if report.valid else _text(WIDTH - 24, 34, "INVALID: see the report", 15, "#c62828", "end")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="system-ui, sans-serif">'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>'
        + _text(24, 34, f"Bursar {report.version}: bursar bench", 20, INK, weight="600")
        + _text(24, 56, caption, 12, MUTED)
        + verdict
        + "".join(drawn)
        + "</svg>\n"
    )


def _speed(report: Report) -> list[Bar]:
    bars: list[Bar] = []
    if report.floor is not None:
        for label, rate in (
            ("floor (a): one treasury row", report.floor.spread_per_s),
            ("floor (b): one hot pair", report.floor.hot_per_s),
        ):
            bars.append(Bar(label, [(rate, FLOOR)], f"{rate:,.0f}"))
    for work in report.works:
        rate = work.drain.per_s if work.drain else work.window.applied_per_s if work.window else None
        if rate is not None and work.name != "offered":
            bars.append(Bar(work.title, [(rate, OURS)], f"{rate:,.0f}"))
    return bars


def _latency(report: Report) -> list[Bar]:
    return [
        Bar(work.title, [(window.outcome_ms.p99, OURS)], f"{window.outcome_ms.p99:,.0f}")
        for work in report.works
        if (window := work.window) is not None and window.outcome_ms is not None
    ]


def _told(report: Report) -> list[Bar]:
    return [
        Bar(f"{work.name}: {each.what}", [(each.delay_ms.p99, OURS)], f"{each.delay_ms.p99:,.1f}")
        for work in report.works
        for each in work.told
        if each.delay_ms is not None
    ]


def _cpu(report: Report) -> list[Bar]:
    bars: list[Bar] = []
    for work in report.works:
        if work.cpu is not None and work.cpu.us_per_command and work.name != "offered":
            parts = [(work.cpu.us_per_command.get(role, 0.0), colour) for role, colour in COLOURS.items()]
            bars.append(Bar(work.title, parts, f"{sum(length for length, _ in parts):,.0f}"))
    return bars


def _panel(title: str, bars: Sequence[Bar], y: int) -> str:
    longest = max(sum(length for length, _ in bar.parts) for bar in bars) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / longest
    drawn = [_text(24, y, title, 14, INK, weight="600")]
    drawn.append(f'<path d="M{LEFT} {y + 12}v{ROW * len(bars) + 4}" stroke="{GRID}"/>')
    for row, bar in enumerate(bars):
        top = y + 18 + row * ROW
        drawn.append(_text(LEFT - 10, top + 12, bar.label, 12, INK, "end"))
        x = float(LEFT)
        for length, colour in bar.parts:
            drawn.append(f'<rect x="{x:.1f}" y="{top}" width="{length * scale:.1f}" height="{BAR}" fill="{colour}"/>')
            x += length * scale
        drawn.append(_text(x + 8, top + 12, bar.text, 12, INK))
    return "".join(drawn)


def _legend(y: int) -> str:
    drawn: list[str] = []
    for number, (role, colour) in enumerate(COLOURS.items()):
        x = LEFT + number * 100
        drawn.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
        drawn.append(_text(x + 18, y, role, 12, MUTED))
    return _text(24, y, "CPU by process:", 12, MUTED) + "".join(drawn)


def _text(x: float, y: float, text: str, size: int, colour: str, anchor: str = "start", weight: str = "400") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )
