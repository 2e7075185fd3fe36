"""One drain's work on a claimed batch: lock, decide, write. The caller owns the transaction."""

from typing import Any
from uuid import UUID

import psycopg

from ledger import books
from ledger.decide import decide
from ledger.inbox import Claim
from ledger.journal import Journal


def apply(connection: psycopg.Connection[Any], claim: Claim, *, task_id: UUID | None) -> list[int]:
    """Decide the claimed commands in order and write what they come to; the seqs that now have an outcome."""
    locked = books.lock(connection, claim.commands, claim.now)
    journal = Journal(locked)
    for command in claim.commands:
        journal.record(command, decide(locked, command))
    return journal.write(connection, task_id=task_id)
