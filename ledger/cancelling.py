"""Cancelling: a pending command gets the outcome `cancelled`, unless a drain gave it another one first.

Whoever deletes a command's row of the queue gives the command its outcome, in the same transaction. The row's lock lets
one have it, a drain or a cancel; the other waits, and finds it gone, or there again after a rollback. A key that was
never seen is cancelled by taking it: a *tombstone* stands under it from then on
(docs/decisions/0020-cancelled-keys-and-unlocked-decisions.md).
"""

from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg

from ledger import deliveries
from ledger.commands import TOMBSTONE
from ledger.errors import BrokenInvariant, Code
from ledger.events import Outcome, outcome_type
from ledger.feed import CANCELS
from ledger.inbox import CANCELLED_UNSEEN, PARTITION_LOCKS

_TAKE: LiteralString = """
WITH taken AS (
    DELETE FROM pending
    WHERE (partition, seq) = (SELECT partition, COALESCE(group_seq, seq) FROM commands WHERE seq = %b::bigint)
    RETURNING seq
)
SELECT seq FROM taken UNION SELECT c.seq FROM taken t JOIN commands c ON c.group_seq = t.seq ORDER BY seq
"""
_FIND: LiteralString = "SELECT seq FROM commands WHERE client_id = %b::int AND idempotency_key = %b::text"
_BURY: LiteralString = """
INSERT INTO commands (tenant_id, client_id, partition, type, idempotency_key, request_hash)
VALUES (%b::int, %b::int, 0, %b, %b, %b)
ON CONFLICT (client_id, idempotency_key) DO NOTHING
RETURNING seq
"""
_OUTCOMES: LiteralString = """
INSERT INTO outcomes (seq, status, code, detail, accounts, at, client_id, stream)
SELECT seq, 'cancelled', %b, %b, '[]', clock_timestamp(), client_id, %b FROM commands WHERE seq = ANY(%b::bigint[])
"""
_TOLD: LiteralString = """
SELECT seq, tenant_id, wallet, to_wallet FROM commands WHERE seq = ANY(%b::bigint[]) ORDER BY seq
"""


@dataclass(slots=True, frozen=True)
class Cancelled:
    """`seq`: the command that was meant. `seqs`: what this call cancelled; empty: it had its outcome before.
    `deliveries`: webhooks that it owes."""

    seq: int
    seqs: list[int]
    deliveries: int = 0


def cancel(connection: psycopg.Connection[Any], seq: int) -> Cancelled:
    """Cancel a command, and its whole group with it, in the caller's transaction.

    Waits for a drain that has claimed it, no longer than `lock_timeout`: then raises psycopg.errors.LockNotAvailable.
    Whose command it is, the caller has checked.
    """
    with connection.cursor(binary=True) as cursor:
        seqs = [taken for (taken,) in cursor.execute(_TAKE, (seq,))]
        owed = _write(connection, seqs, "cancelled before it was decided") if seqs else 0
        return Cancelled(seq, seqs, owed)


def cancel_key(connection: psycopg.Connection[Any], *, tenant_id: int, client_id: int, key: str) -> Cancelled:
    """Cancel what this client sent under an idempotency key, or the key itself if nothing came under it yet.

    As `cancel`. An accept under way with the same key is waited for.
    """
    seq = _find(connection, client_id, key)
    if seq is None:
        tombstone = (tenant_id, client_id, TOMBSTONE, key, CANCELLED_UNSEEN)
        with connection.cursor(binary=True) as cursor:
            if buried := cursor.execute(_BURY, tombstone).fetchone():
                owed = _write(connection, [buried[0]], "cancelled before it arrived")
                return Cancelled(buried[0], [buried[0]], owed)
        seq = _find(connection, client_id, key)  # it came meanwhile
        if seq is None:
            raise BrokenInvariant(f"key {key!r} of client {client_id} is taken and is not there")
    return cancel(connection, seq)


def _write(connection: psycopg.Connection[Any], seqs: list[int], detail: str) -> int:
    """Their outcomes; how many deliveries these owe. They have a stream of the feed to themselves: a cancel holds no
    partition."""
    with connection.cursor(binary=True) as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%b::int, %b::int)", (PARTITION_LOCKS, CANCELS))
        cursor.execute(_OUTCOMES, (Code.CANCELLED, detail, CANCELS, seqs))
        type_ = outcome_type("cancelled", Code.CANCELLED)
        told = [Outcome(seq, tenant, type_, *wallets) for seq, tenant, *wallets in cursor.execute(_TOLD, (seqs,))]
        deliveries.ask_listeners(cursor, {outcome.tenant_id for outcome in told})
        return deliveries.owe(connection, deliveries.listeners(cursor), told)


def _find(connection: psycopg.Connection[Any], client_id: int, key: str) -> int | None:
    with connection.cursor(binary=True) as cursor:
        row = cursor.execute(_FIND, (client_id, key)).fetchone()
        return row[0] if row else None
