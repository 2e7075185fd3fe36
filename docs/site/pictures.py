"""The pictures of docs/concepts.md, drawn from the code: `python -m docs.site.pictures` draws them anew.

SVG without scripts, so that they show wherever the repository is read. A test holds them to what this file draws.
"""

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import CheckConstraint, Column, Table
from sqlalchemy.dialects import postgresql

from ledger import commands, tables

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs/pictures"

INK, MUTED, LINE, PAPER = "#1c2430", "#68737f", "#b8c1ca", "#ffffff"
BLUE, GREEN, ORANGE, VIOLET = "#2f6fde", "#1e8e5a", "#c9730f", "#7a5bd0"


def main() -> None:
    for name, svg in pictures().items():
        (FOLDER / name).write_text(svg)


def pictures() -> dict[str, str]:
    """File name → SVG."""
    return {"flow.svg": flow(), "life.svg": life(), "money.svg": money(), "tables.svg": schema()}


# --- what becomes of one spend -------------------------------------------------------------------------------------


class Step(NamedTuple):
    part: str
    number: int
    file: str
    function: str


# From step to step, between processes: what carries it.
CARRIED = (
    ("Doorbell.ring_all", "drain", "Redis: a hint"),
    ("Announcer.announce", "Waiting.announced", "Redis: a hint"),
    ("owe", "Courier.run", "a row, and a hint"),
)
LANES = {"In the api:": 0, "In a worker:": 1, "In the api again:": 0, "In a courier:": 2}
COMMITS = {"accept": "COMMIT, then 202", "owe": "COMMIT"}


def steps() -> Iterator[Step]:
    """The straight line of one spend, as the README has it; its own tests hold it to the code."""
    part = ""
    for line in (ROOT / "README.md").read_text().splitlines():
        if line.startswith("In ") and line.endswith(":"):
            part = line
        elif found := re.match(r"(\d+)\. \[`([\w/.]+)`\]\(\S+\) `([\w.]+)`", line):
            yield Step(part, int(found[1]), found[2], found[3])


def flow() -> str:
    width, row, box_w, box_h = 900, 40, 250, 32
    lane_x = [20, 325, 630]
    drawn: list[str] = []
    at: dict[str, tuple[int, int]] = {}  # function → left and middle of its box
    y = 70
    part, below = "", y
    for step in steps():
        if step.part != part:
            part = step.part
            # A part begins where what wakes it stands, or below what its lane has already.
            y = {
                "In a worker:": below,
                "In the api again:": below,
                "In a courier:": at.get("owe", (0, below))[1] + 40,
            }.get(part, y)
        lane = lane_x[LANES[part]]
        at[step.function] = (lane, y + box_h // 2)
        drawn.append(_box(lane, y, box_w, box_h, BLUE if LANES[part] == 0 else GREEN if LANES[part] == 1 else VIOLET))
        drawn.append(_text(lane + 10, y + 14, f"{step.number}  {step.function}", 13, INK, weight="600"))
        drawn.append(_text(lane + 10, y + 27, step.file, 10, MUTED))
        if commit := COMMITS.get(step.function):
            drawn.append(_text(lane + box_w - 8, y + 14, commit, 11, ORANGE, "end", "600"))
        y += row
        below = max(below, y) if part != "In a courier:" else below
    bottom = max(middle for _, middle in at.values()) + 40
    for source, target, words in CARRIED:
        (x1, y1), (x2, y2) = at[source], at[target]
        start, end = (x1 + box_w, x2) if x2 > x1 else (x1, x2 + box_w)
        middle = (start + end) // 2
        drawn.append(_path(f"M{start} {y1}H{middle}V{y2}H{end}", ORANGE, arrow=True, dashed="hint" in words))
        drawn.append(_text(middle, y1 - 8, words, 11, ORANGE, "start" if x2 > x1 else "end"))
    heads = ("the api", "a worker", "a courier")
    titles = [_text(x, 52, title, 15, INK, weight="600") for x, title in zip(lane_x, heads, strict=True)]
    head = _text(20, 24, "One spend, from POST to webhook: each box is a function", 13, MUTED)
    return _svg(width, bottom, [head, *titles, *drawn])


# --- a command's life ----------------------------------------------------------------------------------------------

SAYS = {
    "applied": "it moved credits",
    "rejected": "the books said no, with a code",
    "cancelled": "somebody took it back in time",
    "failed": "a defect of ours; nothing moved",
}


def statuses() -> list[str]:
    """What an outcome's status may be, as the table has it."""
    [check] = [
        str(constraint.sqltext)
        for constraint in tables.outcomes.constraints
        if isinstance(constraint, CheckConstraint) and str(constraint.sqltext).startswith("status IN")
    ]
    return re.findall(r"'(\w+)'", check)


def life() -> str:
    ends = statuses()
    height = 56 * len(ends) + 30
    middle = height // 2
    drawn = [
        _box(20, middle - 24, 150, 48, BLUE),
        _text(95, middle - 3, "accepted", 14, INK, "middle", "600"),
        _text(95, middle + 14, "committed; 202", 11, MUTED, "middle"),
        _path(f"M170 {middle}H260", INK, arrow=True),
        _box(260, middle - 24, 170, 48, ORANGE),
        _text(345, middle - 3, "pending", 14, INK, "middle", "600"),
        _text(345, middle + 14, "a row in the queue", 11, MUTED, "middle"),
    ]
    for number, status in enumerate(ends):
        y = 20 + 56 * number
        drawn.append(_path(f"M430 {middle}C480 {middle} 480 {y + 22} 540 {y + 22}", INK, arrow=True))
        drawn.append(_box(540, y, 340, 44, GREEN if status == "applied" else LINE))
        drawn.append(_text(556, y + 19, status, 14, INK, weight="600"))
        drawn.append(_text(556, y + 35, SAYS[status], 11, MUTED))
    return _svg(900, height, drawn)


# --- where credits come from, and go to ----------------------------------------------------------------------------

PLACES = {
    commands.TREASURY: (20, 30),
    commands.BONUS: (20, 110),
    commands.EXCHANGE: (20, 190),
    "wallet": (370, 110),
    commands.REVENUE: (720, 30),
    commands.EXPIRED: (720, 110),
    commands.ADJUSTMENT: (720, 190),
}


def moves() -> list[tuple[str, str, str]]:
    """(command, from, to) of each command that names its two sides in its own description."""
    found: list[tuple[str, str, str]] = []
    for kind in commands.Order.__subclasses__():
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()
        says = kind.__doc__ or ""
        if sides := re.search(r"(`@\w+`|wallet) → (`@\w+`|wallet|`to_wallet`)", says):
            found.append((name, sides[1].strip("`"), sides[2].strip("`").removeprefix("to_")))
        elif through := re.search(r"through `(@\w+)`", says):
            found.append((name, "wallet", through[1]))
    return found


def money() -> str:
    drawn: list[str] = []
    for place, (x, y) in PLACES.items():
        own = place == "wallet"
        drawn.append(_box(x, y, 160, 54, BLUE if own else GREEN))
        drawn.append(_text(x + 80, y + 24, "a wallet" if own else place, 15, INK, "middle", "600"))
        drawn.append(_text(x + 80, y + 42, "a player's" if own else "ours", 11, MUTED, "middle"))
    labels: dict[tuple[str, str], list[str]] = {}
    for name, source, target in moves():
        labels.setdefault((source, target), []).append(name)
    for (source, target), names in labels.items():
        (x1, y1), (x2, y2) = PLACES[source], PLACES[target]
        words = ", ".join(names)
        if source == target:
            drawn.append(
                _path(f"M{x1 + 50} {y1}C{x1 + 30} {y1 - 60} {x1 + 130} {y1 - 60} {x1 + 110} {y1}", INK, arrow=True)
            )
            drawn.append(_text(x1 + 80, y1 - 50, words, 12, INK, "middle"))
            continue
        right = x2 > x1
        start, end = (x1 + 160, x2) if right else (x1, x2 + 160)
        y1, y2 = y1 + 27 + (y2 - y1) // 6, y2 + 27 + (y1 - y2) // 6
        both = commands.ADJUSTMENT in (source, target) or commands.EXCHANGE in (source, target)
        drawn.append(_path(f"M{start} {y1}L{end} {y2}", INK, arrow=True, back=both))
        drawn.append(_text((start + end) / 2, (y1 + y2) / 2 + 4, words, 12, INK, "middle"))
    return _svg(900, 270, drawn)


# --- the tables ----------------------------------------------------------------------------------------------------

COLUMNS = (
    ("tenants", "clients", "api_keys", "assets", "wallets", "partitions", "supply_shares", "chain_heads"),
    ("accounts", "holds", "lots", "reversals", "changes"),
    ("commands", "pending", "outcomes", "transfers"),
    ("entries", "lot_entries", "webhook_endpoints", "deliveries", "attempts", "events"),
)
# What a row belongs to where no foreign key says so: records have none (decision 0006). Tenants and clients left out.
BELONGS = {
    ("pending", "seq"): "commands",
    ("outcomes", "seq"): "commands",
    ("transfers", "seq"): "commands",
    ("entries", "seq"): "transfers",
    ("entries", "account_id"): "accounts",
    ("lot_entries", "lot_seq"): "lots",
    ("holds", "seq"): "commands",
    ("lots", "seq"): "commands",
    ("reversals", "seq"): "commands",
    ("changes", "seq"): "commands",
    ("deliveries", "seq"): "outcomes",
    ("deliveries", "endpoint_id"): "webhook_endpoints",
    ("attempts", "seq"): "deliveries",
}
LEFT, ROW, HEAD, BOX, GAP = 30, 16, 24, 190, 46


def colour(table: Table) -> str:
    """Records are green, the queue orange, what tells others violet, registers blue."""
    if table in tables.RECORDS:
        return GREEN
    if table.name == "pending":
        return ORANGE
    return VIOLET if table.name in ("webhook_endpoints", "deliveries", "attempts", "events") else BLUE


def schema() -> str:
    boxes: list[str] = []
    where: dict[str, tuple[int, int]] = {}
    bottom = 0
    placed = {name for names in COLUMNS for name in names}
    new = [
        name for name in tables.metadata.tables if name not in placed
    ]  # where there is most room, until one moves it
    for number, names in enumerate(COLUMNS):
        names = [*names, *new] if number == 2 else names
        x, y = LEFT + number * (BOX + GAP), 44
        for name in names:
            table = tables.metadata.tables[name]
            height = HEAD + ROW * len(table.columns) + 6
            where[name] = (x, y)
            boxes.append(_table(table, x, y, height))
            y += height + 18
        bottom = max(bottom, y)
    legend = (
        ("registers: the present", BLUE),
        ("records: never change", GREEN),
        ("the queue", ORANGE),
        ("who is told", VIOLET),
    )
    drawn = [_legend(LEFT + n * 200, words, fill) for n, (words, fill) in enumerate(legend)]
    for table in tables.metadata.tables.values():
        drawn += [
            _tie(where, table, key.parent, key.column.table.name, dashed=False)
            for key in sorted(table.foreign_keys, key=lambda key: key.parent.name)
            if key.column.table.name != "tenants"
        ]
    for (name, column), other in BELONGS.items():
        table = tables.metadata.tables[name]
        drawn.append(_tie(where, table, table.columns[column], other, dashed=True))
    return _svg(LEFT + 4 * (BOX + GAP) - 20, bottom, [*drawn, *boxes])


def _legend(x: int, words: str, fill: str) -> str:
    return f'<rect x="{x}" y="16" width="12" height="12" fill="{fill}"/>' + _text(x + 18, 26, words, 12, MUTED)


def _table(table: Table, x: int, y: int, height: int) -> str:
    fill = colour(table)
    drawn = [
        f'<rect x="{x}" y="{y}" width="{BOX}" height="{height}" rx="4" fill="{PAPER}" stroke="{fill}"/>',
        f'<path d="M{x} {y + HEAD}v-{HEAD - 4}a4 4 0 0 1 4 -4h{BOX - 8}a4 4 0 0 1 4 4v{HEAD - 4}z" fill="{fill}"/>',
        _text(x + 8, y + 16, table.name, 13, PAPER, weight="600"),
    ]
    for number, column in enumerate(table.columns):
        line = y + HEAD + 14 + ROW * number
        drawn.append(
            _text(
                x + 8,
                line,
                column.name,
                12,
                MUTED if column.nullable else INK,
                weight="600" if column.primary_key else "400",
            )
        )
        drawn.append(_text(x + BOX - 8, line, _kind(column), 10, MUTED, "end"))
    return "".join(drawn)


def _kind(column: Column[object]) -> str:
    return column.type.compile(postgresql.dialect()).lower().replace("timestamp with time zone", "timestamptz")


def _tie(where: dict[str, tuple[int, int]], table: Table, column: Column[object], other: str, *, dashed: bool) -> str:
    """From a column to the head of the table that it names, out of the sides that face each other."""
    (x1, y1), (x2, y2) = where[table.name], where[other]
    y1 += HEAD + 10 + ROW * list(table.columns).index(column)
    y2 += HEAD // 2
    if x1 == x2:  # within a column: around its left side
        curve = f"M{x1} {y1}C{x1 - 28} {y1} {x1 - 28} {y2} {x2} {y2}"
    elif x1 > x2:
        curve = f"M{x1} {y1}C{x1 - GAP} {y1} {x2 + BOX + GAP} {y2} {x2 + BOX} {y2}"
    else:
        curve = f"M{x1 + BOX} {y1}C{x1 + BOX + GAP} {y1} {x2 - GAP} {y2} {x2} {y2}"
    return _path(curve, MUTED, arrow=True, dashed=dashed)


# --- shapes --------------------------------------------------------------------------------------------------------


def _svg(width: int, height: int, drawn: list[str]) -> str:
    arrow = (
        '<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="{INK}"/></marker></defs>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif">\n<rect width="{width}" height="{height}" fill="{PAPER}"/>\n{arrow}\n'
        + "\n".join(drawn)
        + "\n</svg>\n"
    )


def _box(x: int, y: int, width: int, height: int, edge: str) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="5" fill="{PAPER}" stroke="{edge}" '
        'stroke-width="1.5"/>'
    )


def _path(d: str, stroke: str, *, arrow: bool = False, back: bool = False, dashed: bool = False) -> str:
    more = (' marker-end="url(#a)"' if arrow else "") + (' marker-start="url(#a)"' if back else "")
    more += ' stroke-dasharray="4 3"' if dashed else ""
    return f'<path d="{d}" fill="none" stroke="{stroke}"{more}/>'


def _text(x: float, y: float, words: str, size: int, fill: str, anchor: str = "start", weight: str = "400") -> str:
    halo = "" if fill == PAPER else f' paint-order="stroke" stroke="{PAPER}" stroke-width="4"'
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}" text-anchor="{anchor}" '
        f'font-weight="{weight}"{halo}>{escape(words)}</text>'
    )


if __name__ == "__main__":
    main()
