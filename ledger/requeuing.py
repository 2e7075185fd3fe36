"""Requeuing: what a command of a failed outcome asked is asked again, by a new command that names it.

A failed command keeps its outcome: a command has one, for ever. Once the defect is mended an operator has the same
request accepted anew, under a key that no client can send, which is derived from the failed command: so each of them is
requeued once, whoever asks how often. The new one may fail again, and be requeued in its turn. A group is requeued
whole. Who did it and why stands among the changes (docs/decisions/0024-a-failed-command-is-requeued-as-a-new-one.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

import msgspec
import psycopg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger import changes, inbox
from ledger.changes import By
from ledger.commands import read_options, write_options
from ledger.errors import BrokenInvariant
from ledger.ids import command_id, requeue_key
from ledger.inbox import NewCommand

_UNIT: LiteralString = """
SELECT c.seq, c.accepted_at, o.status, c.tenant_id, c.client_id, c.partition, c.type, c.request_hash, c.wallet,
       c.to_wallet, c.asset, c.amount, c.reference, c.metadata::text, c.expires_at, c.options::text, c.ref_seq,
       c.group_seq
FROM commands c LEFT JOIN outcomes o USING (seq)
WHERE c.seq IN (
    SELECT seq FROM commands WHERE seq = %b::bigint
    UNION ALL
    SELECT seq FROM commands WHERE group_seq = (SELECT group_seq FROM commands WHERE seq = %b::bigint)
)
ORDER BY c.seq
"""
_BY_KEYS: LiteralString = """
SELECT c.seq FROM unnest(%b::int[], %b::text[]) WITH ORDINALITY AS k (client_id, idempotency_key, n)
JOIN commands c USING (client_id, idempotency_key) ORDER BY k.n
"""


class NotFailed(Exception):
    """The command has not failed; the argument says how it stands: a status, or `pending`."""


@dataclass(slots=True, frozen=True)
class Requeued:
    """`seq`: the command that retries the one that was meant. `new`: by this call; the partition wants its doorbell."""

    seq: int
    partition: int
    new: bool


def requeue(connection: psycopg.Connection[Any], seq: int, *, by: By) -> Requeued:
    """Accept the request of failed command `seq` again, and of its whole group with it, in the caller's transaction.

    All that was asked stays as it was, `expires_at` and preconditions too. Whose command it is, the caller has checked.
    Raises LookupError where it is not there, NotFailed.
    """
    with connection.cursor(binary=True) as cursor:
        unit = cursor.execute(_UNIT, (seq, seq)).fetchall()
        if not unit:
            raise LookupError(f"no command {seq}")
        for _, _, status, *_ in unit:
            if status != "failed":
                raise NotFailed(status or "pending")
        batch = [_again(row) for row in unit]
        grouped = unit[0][-1] is not None
        seqs = (inbox.enqueue_group if grouped else inbox.enqueue)(connection, batch)
        new = bool(seqs)
        if not new:  # somebody did it before
            keys = [command.client_id for command in batch], [command.idempotency_key for command in batch]
            seqs = [found for (found,) in cursor.execute(_BY_KEYS, keys)]
    if len(seqs) != len(unit):
        raise BrokenInvariant(f"of {len(unit)} commands that failed with {seq}, {len(seqs)} are requeued")
    if new:
        _note(connection, batch, unit, seqs, by)
    place = [row[0] for row in unit].index(seq)
    return Requeued(seqs[place], batch[place].partition, new)


def _again(row: Sequence[Any]) -> NewCommand:
    """The same request as a new command. `row`: of _UNIT."""
    failed, accepted_at, _, tenant_id, client_id, partition, type_, request_hash, *asked, options, ref_seq, _ = row
    failed_id = command_id(failed, accepted_at)
    wallet, to_wallet, asset, amount, reference, metadata, expires_at = asked
    return NewCommand(
        tenant_id=tenant_id,
        client_id=client_id,
        partition=partition,
        type=type_,
        idempotency_key=requeue_key(failed_id),
        request_hash=request_hash,
        wallet=wallet,
        to_wallet=to_wallet,
        asset=asset,
        amount=amount,
        reference=reference,
        metadata=metadata,
        expires_at=expires_at,
        options=write_options(msgspec.structs.replace(read_options(options), requeue_of=failed_id)),
        ref_seq=ref_seq,
    )


def _note(
    connection: psycopg.Connection[Any],
    batch: Sequence[NewCommand],
    unit: Sequence[Sequence[Any]],
    seqs: Sequence[int],
    by: By,
) -> None:
    """Who, when, why; a change for each command of the unit, under its wallet."""
    for command, (failed, accepted_at, *_), seq in zip(batch, unit, seqs, strict=True):
        before = msgspec.json.encode(command_id(failed, accepted_at)).decode()
        of = changes.row(
            by, command.tenant_id, "requeue", before, None, wallet=command.wallet, asset=command.asset, seq=seq
        )
        changes.note_sync(connection, of)


# --- which there are -----------------------------------------------------------------------------------------------


class Failed(msgspec.Struct, frozen=True):
    """A failed command. `requeued_as`: the seq of the command that retries it; None: nobody has asked for that."""

    seq: int
    tenant: str
    client: str | None  # None: the ledger's own
    type: str
    wallet: str | None
    to_wallet: str | None
    asset: str | None
    amount: int | None
    accepted_at: datetime
    at: datetime
    group_seq: int | None
    requeued_as: int | None
    requeued_at: datetime | None

    @property
    def id(self) -> str:
        return command_id(self.seq, self.accepted_at)


# By the index of failed outcomes.
_FAILED = text("""
    SELECT o.seq, t.code AS tenant, l.name AS client, c.type, c.wallet, c.to_wallet, c.asset, c.amount, c.accepted_at,
           o.at, c.group_seq
    FROM (SELECT seq, at FROM outcomes WHERE status = 'failed' AND seq < :before ORDER BY seq DESC) o
    CROSS JOIN LATERAL (SELECT * FROM commands WHERE seq = o.seq LIMIT 1) c
    JOIN tenants t ON t.id = c.tenant_id LEFT JOIN clients l ON l.id = c.client_id
    WHERE CAST(:tenant_id AS integer) IS NULL OR c.tenant_id = :tenant_id
    ORDER BY o.seq DESC LIMIT :limit
""")
_REQUEUED = text("""
    SELECT f.seq, c.seq AS requeued_as, c.accepted_at AS requeued_at
    FROM unnest(CAST(:seqs AS bigint[]), CAST(:keys AS text[])) AS k (seq, key)
    CROSS JOIN LATERAL (SELECT seq, client_id FROM commands WHERE seq = k.seq LIMIT 1) f
    CROSS JOIN LATERAL (
        SELECT seq, accepted_at FROM commands WHERE client_id = f.client_id AND idempotency_key = k.key LIMIT 1
    ) c
""")
_NEWEST = 2**63 - 1


async def failed(connection: AsyncConnection, tenant_id: int | None, *, before: int | None, limit: int) -> list[Failed]:
    """Failed commands, newest first. `tenant_id` None: of all tenants. `before`: the seq of the last one seen."""
    which = {"tenant_id": tenant_id, "before": before or _NEWEST, "limit": limit}
    rows = (await connection.execute(_FAILED, which)).mappings().all()
    keys = {row["seq"]: requeue_key(command_id(row["seq"], row["accepted_at"])) for row in rows}
    again = await connection.execute(_REQUEUED, {"seqs": list(keys), "keys": list(keys.values())})
    requeued = {row.seq: {"requeued_as": row.requeued_as, "requeued_at": row.requeued_at} for row in again}
    nobody = {"requeued_as": None, "requeued_at": None}
    return [Failed(**row, **requeued.get(row["seq"], nobody)) for row in rows]
