"""One drain's work on a claimed batch: lock, decide, write. The caller owns the transaction."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg

from ledger import books
from ledger.commands import Command
from ledger.decide import decide
from ledger.decisions import Books, Refused
from ledger.errors import Code
from ledger.inbox import Claim
from ledger.journal import Journal, Written


def apply(connection: psycopg.Connection[Any], claim: Claim, *, task_id: UUID | None) -> Written:
    """Decide the claimed commands in order and write what they come to."""
    journal = settle(books.lock(connection, claim.commands, claim.now), claim.commands)
    return journal.write(connection, task_id=task_id)


def settle(locked: Books, commands: Sequence[Command]) -> Journal:
    """Decide commands in order, each on the books that those before it left. Nothing is written."""
    journal = Journal(locked)
    groups: dict[int, list[Command]] = {}
    for command in commands:
        if command.group_seq is not None:
            groups.setdefault(command.group_seq, []).append(command)
    for command in commands:
        if command.group_seq is None:
            journal.record(command, decide(locked, command))
        elif command.group_seq == command.seq:
            _settle_group(locked, journal, groups[command.seq])
    return journal


def _settle_group(locked: Books, journal: Journal, group: Sequence[Command]) -> None:
    """All of a group or nothing: tried on a copy of the books, then, if nothing is refused, done."""
    refused = _first_refused(locked, group)
    for position, command in enumerate(group):
        decision = _in_group(refused, position, len(group)) if refused else decide(locked, command)
        journal.record(command, decision)


def _in_group(refused: tuple[int, Refused], position: int, size: int) -> Refused:
    """What a command of a refused group hears: its own refusal, or whose fault it was."""
    at_fault, refusal = refused
    if position == at_fault:
        return refusal
    return Refused(Code.GROUP_REFUSED, f"command {at_fault + 1} of {size} of the batch was refused: {refusal.code}")


def _first_refused(locked: Books, group: Sequence[Command]) -> tuple[int, Refused] | None:
    keys = [key for command in group for key in books.touched(command, locked.legs())]
    trial = locked.trial(keys, [command.ref_seq for command in group])
    journal = Journal(trial)
    for position, command in enumerate(group):
        decision = decide(trial, command)
        if isinstance(decision, Refused):
            return position, decision
        journal.record(command, decision)
    return None
