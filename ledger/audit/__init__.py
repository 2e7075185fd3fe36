"""The audit: does what is stored keep the invariants of the books? It reads, reports and never repairs.

Every check sees one snapshot (REPEATABLE READ, read-only), so a live system neither disturbs it nor waits for it. The
snapshot holds back vacuum for as long as it runs: minutes, for a ledger of a hundred million entries.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, TextClause, text

from ledger.audit.chain import CHAIN
from ledger.audit.commands import COMMANDS
from ledger.audit.invariant import WHOLE, Invariant
from ledger.audit.journal import JOURNAL
from ledger.audit.registers import REGISTERS
from ledger.audit.webhooks import WEBHOOKS

BREACHES_MAX = 100  # rows reported per invariant: enough to see the pattern; the rest is counted in, not printed

INVARIANTS = tuple(sorted((*JOURNAL, *COMMANDS, *REGISTERS, *WEBHOOKS, *CHAIN), key=lambda invariant: invariant.number))


@dataclass(slots=True, frozen=True)
class Finding:
    """What one check saw. `truncated`: there are more breaches than BREACHES_MAX. `note`: what to know beside it."""

    number: int
    name: str
    checked: int
    breaches: list[dict[str, Any]]
    truncated: bool
    note: str | None

    @property
    def holds(self) -> bool:
        return not self.breaches


def audit(
    engine: Engine,
    invariants: Sequence[Invariant] = INVARIANTS,
    *,
    told: Callable[[Invariant], object] = lambda invariant: None,
) -> list[Finding]:
    """Check the invariants on one snapshot. No statement timeout: a large ledger takes its time. `told`: of each
    before it is checked."""
    with engine.connect() as connection:
        snapshot = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        findings: list[Finding] = []
        with snapshot.begin():
            snapshot.execute(text("SET LOCAL statement_timeout = 0"))
            for invariant in invariants:
                told(invariant)
                with snapshot.begin_nested() as settings:
                    for setting in filter(None, invariant.before.split(";")):
                        snapshot.execute(text(setting))
                    checked, rows = look(snapshot, invariant, invariant.breaches, WHOLE)
                    note = snapshot.scalar(text(invariant.note)) if invariant.note else None
                    settings.rollback()  # and the settings with it
                truncated = len(rows) > BREACHES_MAX
                findings.append(
                    Finding(invariant.number, invariant.name, checked, rows[:BREACHES_MAX], truncated, note)
                )
        return findings


def look(
    connection: Connection, invariant: Invariant, breaches: str, within: tuple[int, int]
) -> tuple[int, list[dict[str, Any]]]:
    """How many things were looked at within these bounds, and those that break it: BREACHES_MAX and one at most."""
    between = {"low": within[0], "high": within[1]}
    checked = connection.execute(_bound(invariant.checked), _of(invariant.checked, between)).scalar() or 0
    limited = f"SELECT * FROM ({breaches}) AS breach ORDER BY breach LIMIT {BREACHES_MAX + 1}"
    rows = connection.execute(_bound(limited), _of(limited, between)).mappings()
    return checked, [dict(row) for row in rows]


def _bound(statement: str) -> TextClause:
    typed = statement.replace(":low", "CAST(:low AS bigint)").replace(":high", "CAST(:high AS bigint)")
    return text(typed)


def _of(statement: str, between: dict[str, int]) -> dict[str, int]:
    return {name: value for name, value in between.items() if f":{name}" in statement}
