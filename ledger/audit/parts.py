"""The audit in parts, for a ledger that is too large for one snapshot: it can be stopped, and goes on where it was.

Each part is a statement or two of some 200,000 rows, on a snapshot of its own. Every transaction of the ledger leaves
every invariant whole, so each of them holds on any snapshot, whichever it is, and a part that looks at whole commands,
whole accounts, whole links of the chain is right about them, at its moment. What the parts cannot say is that all held
at one moment; what changes behind the last look is the next audit's. The registers of holds, lots, reversals and
webhooks have no index by which they could be cut: those are one statement each, as in the audit of one snapshot.

Parts find rows by indexes, and so trust them; `bursar audit` without parts does not.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, text

from ledger.audit import BREACHES_MAX, INVARIANTS, Finding, look
from ledger.audit.invariant import WHOLE, Along

STEP = 200_000  # rows of one part: about a second

_DATABASE = text("""
    SELECT format('%s of %s, since %s', current_database(), (SELECT max(version_num) FROM alembic_version),
                  (SELECT min(began_at) FROM chain_heads))
""")
_ENDS: dict[Along, str] = {  # where parts end, in order
    "seq": """
        SELECT generate_series(n.step, (SELECT COALESCE(max(seq), 0) FROM commands), n.step)
        FROM (SELECT CAST(:step AS bigint) AS step) n
    """,
    "account": """
        SELECT max(id) FROM (
            SELECT id, div(sum(version + 1) OVER (ORDER BY id) - 1, CAST(:step AS bigint)) AS part FROM accounts
        ) a GROUP BY part ORDER BY 1
    """,
    "position": """
        SELECT generate_series(n.step, (SELECT COALESCE(max(position), 0) FROM chain_heads), n.step)
        FROM (SELECT GREATEST(CAST(:step AS bigint) / count(*), 1) AS step FROM partitions) n
    """,
}


class Part(msgspec.Struct, frozen=True, array_like=True):
    """An invariant, by its number, within these bounds."""

    number: int
    low: int
    high: int


class Progress(msgspec.Struct):
    """What is to be checked, how much of it is done, and what was seen. What a checkpoint keeps."""

    database: str
    began_at: datetime
    parts: list[Part]
    done: int = 0
    checked: dict[int, int] = {}
    breaches: dict[int, list[dict[str, Any]]] = {}
    truncated: list[int] = []

    @property
    def findings(self) -> list[Finding]:
        """Of what is done by now."""
        names = {invariant.number: invariant.name for invariant in INVARIANTS}
        return [
            Finding(number, names[number], checked, self.breaches.get(number, []), number in self.truncated, None)
            for number, checked in sorted(self.checked.items())
        ]


class Another(Exception):
    """The checkpoint is of another database, or of another version's tables."""


def begin(engine: Engine, numbers: Sequence[int]) -> Progress:
    """All parts of these invariants, nothing checked yet."""
    with engine.connect() as connection:
        ends = {along: _ends(connection, along) for along in _ENDS}
        database = connection.execute(_DATABASE).scalar_one()
    parts: list[Part] = []
    for invariant in INVARIANTS:
        if invariant.number not in numbers:
            continue
        cuts = ends[invariant.along] if invariant.along is not None else []
        lows, highs = [WHOLE[0], *(end + 1 for end in cuts)], [*cuts, WHOLE[1]]
        parts += [Part(invariant.number, low, high) for low, high in zip(lows, highs, strict=True)]
    return Progress(database, datetime.now(UTC), parts)


def _ends(connection: Connection, along: Along) -> list[int]:
    """The last part has no end: what comes while the audit runs is in it."""
    return list(connection.execute(text(_ENDS[along]), {"step": STEP}).scalars())[:-1]


def go_on(engine: Engine, progress: Progress, *, done: Callable[[Progress], object]) -> None:
    """Check the parts that are left; `done` is told after each. Raises Another."""
    invariants = {invariant.number: invariant for invariant in INVARIANTS}
    with engine.connect() as connection:
        if connection.execute(_DATABASE).scalar_one() != progress.database:
            raise Another(progress.database)
    while progress.done < len(progress.parts):
        part = progress.parts[progress.done]
        invariant = invariants[part.number]
        with engine.connect() as connection:
            snapshot = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with snapshot.begin():
                snapshot.execute(text("SET LOCAL statement_timeout = 0"))
                statement = invariant.in_parts or invariant.breaches
                checked, rows = look(snapshot, invariant, statement, (part.low, part.high))
        progress.checked[part.number] = progress.checked.get(part.number, 0) + checked
        seen = progress.breaches.setdefault(part.number, [])
        seen += [{name: _plain(value) for name, value in row.items()} for row in rows]
        if len(seen) > BREACHES_MAX:
            del seen[BREACHES_MAX:]
            progress.truncated = sorted({*progress.truncated, part.number})
        progress.done += 1
        done(progress)


def _plain(value: object) -> object:
    """As a checkpoint can keep it."""
    return value if value is None or isinstance(value, int | str) else str(value)
