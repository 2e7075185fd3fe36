"""The durable inbox: where a command is accepted before its 202, and claimed by a drain after.

`accept` is the intake's group commit: many requests, one statement, one commit. `claim` is the drain's first step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, LiteralString, cast

import msgspec
import psycopg
from psycopg.rows import scalar_row

from ledger.commands import Bonus, Command, Spend, TopUp, Transfer, Unknown
from ledger.errors import BrokenInvariant

# The space of advisory locks that guard partitions: one drain at a time in each. Registers that drains read (a
# wallet's or an asset's status) change under all of them (ledger.registers).
PARTITION_LOCKS = 0x62757200


class NewCommand(msgspec.Struct, frozen=True, gc=False):
    """A validated command on its way in. `request_hash` is of the caller's request in canonical form."""

    tenant_id: int
    client_id: int
    partition: int
    type: str
    idempotency_key: str
    request_hash: bytes
    wallet: str
    to_wallet: str | None
    asset: str
    amount: int
    reference: str | None
    metadata: str | None  # JSON text
    expires_at: datetime | None


@dataclass(slots=True, frozen=True)
class Accepted:
    """Where a command stands after `accept`."""

    seq: int
    accepted_at: datetime
    replayed: bool  # this (client, key) was there already
    same_request: bool  # … with this very request


_ACCEPT: LiteralString = """
WITH batch AS (
    SELECT * FROM unnest(
        %b::int[], %b::int[], %b::smallint[], %b::text[], %b::text[], %b::bytea[], %b::text[], %b::text[], %b::text[],
        %b::bigint[], %b::text[], %b::text[]::jsonb[], %b::timestamptz[]
    ) WITH ORDINALITY AS b (
        tenant_id, client_id, partition, type, idempotency_key, request_hash, wallet, to_wallet, asset,
        amount, reference, metadata, expires_at, position
    )
), accepted AS (
    INSERT INTO commands (
        tenant_id, client_id, partition, type, idempotency_key, request_hash, wallet, to_wallet, asset,
        amount, reference, metadata, expires_at
    )
    SELECT
        tenant_id, client_id, partition, type, idempotency_key, request_hash, wallet, to_wallet, asset,
        amount, reference, metadata, expires_at
    FROM batch ORDER BY position
    ON CONFLICT (client_id, idempotency_key) DO NOTHING
    RETURNING seq, partition, client_id, idempotency_key, accepted_at
), queued AS (
    INSERT INTO pending (partition, seq) SELECT partition, seq FROM accepted
)
SELECT client_id, idempotency_key, seq, accepted_at FROM accepted
"""

_EXISTING: LiteralString = """
SELECT c.client_id, c.idempotency_key, c.seq, c.accepted_at, c.request_hash
FROM unnest(%b::int[], %b::text[]) AS k (client_id, idempotency_key)
JOIN commands c USING (client_id, idempotency_key)
"""


async def accept(connection: psycopg.AsyncConnection[Any], batch: Sequence[NewCommand]) -> list[Accepted]:
    """Store the commands, in order, and queue the new ones; the answers are in the order of `batch`.

    One statement on an autocommit connection: when this returns, the commands are committed. A key that is there
    already, from before or from earlier in this batch, stores nothing and is answered with the command it names.
    """
    columns = zip(*(msgspec.structs.astuple(command) for command in batch), strict=True)
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(_ACCEPT, [list(column) for column in columns])
        fresh = {(client, key): (seq, at) for client, key, seq, at in await cursor.fetchall()}
    answers: list[Accepted | None] = []
    for command in batch:
        mine = fresh.pop((command.client_id, command.idempotency_key), None)
        answers.append(Accepted(mine[0], mine[1], replayed=False, same_request=True) if mine else None)
    replays = [command for command, answer in zip(batch, answers, strict=True) if answer is None]
    if not replays:
        return cast(list[Accepted], answers)

    async with connection.cursor(binary=True) as cursor:
        keys = [command.client_id for command in replays], [command.idempotency_key for command in replays]
        await cursor.execute(_EXISTING, keys)
        existing = {(client, key): (seq, at, request) for client, key, seq, at, request in await cursor.fetchall()}
    for position, command in enumerate(batch):
        if answers[position] is None:
            seq, at, request = existing[command.client_id, command.idempotency_key]
            answers[position] = Accepted(seq, at, replayed=True, same_request=request == command.request_hash)
    return cast(list[Accepted], answers)


async def partition_count(connection: psycopg.AsyncConnection[Any]) -> int:
    """How many partitions this database was made with."""
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT count(*) FROM partitions")
        return cast(int, await cursor.fetchone())


async def backlog_exceeds(connection: psycopg.AsyncConnection[Any], bound: int) -> bool:
    """Whether more than `bound` commands are pending. Reads at most so many."""
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT EXISTS (SELECT FROM pending OFFSET %b::bigint)", (bound,))
        return cast(bool, await cursor.fetchone())


_BACKLOG: LiteralString = """
SELECT (SELECT count(*) FROM (SELECT FROM pending LIMIT %b::bigint) AS counted), (
    SELECT min(oldest.seq) FROM partitions p
    CROSS JOIN LATERAL (SELECT q.seq FROM pending q WHERE q.partition = p.partition ORDER BY q.seq LIMIT 1) AS oldest
)
"""


async def backlog(connection: psycopg.AsyncConnection[Any], *, at_most: int) -> tuple[int, int | None]:
    """How many commands are pending, counted up to `at_most`, and the oldest one's seq."""
    async with connection.cursor() as cursor:
        await cursor.execute(_BACKLOG, (at_most,))
        return cast(tuple[int, int | None], await cursor.fetchone())


@dataclass(slots=True, frozen=True)
class Claim:
    """One drain's batch, in acceptance order. `now` is the database's clock."""

    now: datetime
    commands: list[Command]


class Nothing(Enum):
    """Why a claim came back with nothing locked."""

    IDLE = "nothing is pending"
    BUSY = "what is pending is held by other drains, which look again when they are done"


_COMMAND_COLUMNS: LiteralString = (
    "clock_timestamp(), c.type, c.seq, c.tenant_id, c.partition, c.wallet, c.asset, c.amount, c.expires_at, c.to_wallet"
)
_CLAIM: LiteralString = """
SELECT clock_timestamp(), seq, locked FROM claim_pending(%b::smallint[], %b::int, %b::int)
"""
# A statement of its own, after the claim: the claim sees rows that were committed while it ran, and a join in the same
# statement, whose snapshot is older, would not find their commands.
_COMMANDS: LiteralString = f"SELECT {_COMMAND_COLUMNS} FROM commands c WHERE c.seq = ANY(%b::bigint[]) ORDER BY c.seq"
_LOCK_PARTITIONS: LiteralString = "SELECT pg_advisory_xact_lock(%b::int, p) FROM unnest(%b::int[]) AS p ORDER BY p"
_RECLAIM: LiteralString = f"""
WITH claimed AS (
    DELETE FROM pending WHERE partition = ANY(%b::smallint[]) AND seq = ANY(%b::bigint[])
    RETURNING seq
)
SELECT {_COMMAND_COLUMNS} FROM claimed JOIN commands c USING (seq) ORDER BY c.seq
"""
_COUNT_ATTEMPT: LiteralString = """
UPDATE pending SET attempts = attempts + 1
WHERE (partition, seq) = (SELECT partition, seq FROM commands WHERE seq = %b::bigint) RETURNING attempts
"""


_OVERDUE: LiteralString = """
SELECT EXISTS (
    SELECT FROM unnest(%b::smallint[]) AS p
    CROSS JOIN LATERAL (SELECT q.seq FROM pending q WHERE q.partition = p ORDER BY q.seq LIMIT 1) AS oldest
    JOIN commands c ON c.seq = oldest.seq
    WHERE c.accepted_at < clock_timestamp() - make_interval(secs => %b::double precision)
)
"""


def overdue(connection: psycopg.Connection[Any], partitions: Sequence[int], *, age_s: float) -> bool:
    """Whether any of these partitions has a command that was accepted longer than `age_s` ago."""
    row = connection.execute(_OVERDUE, (list(partitions), age_s)).fetchone()
    return bool(row and row[0])


def claim(connection: psycopg.Connection[Any], partitions: Sequence[int], *, max_rows: int) -> Claim | Nothing:
    """Take up to `max_rows` pending commands from those of `partitions` that no other drain holds.

    An empty claim: look again. Nothing: no lock was taken, so the drain may end.
    The commands leave the queue in the caller's transaction: its rollback puts them back.
    """
    with connection.cursor(binary=True) as cursor:
        claimed = cursor.execute(_CLAIM, (list(partitions), max_rows, PARTITION_LOCKS)).fetchall()
        if not claimed:
            return Nothing.IDLE
        if not any(locked for _, _, locked in claimed):
            return Nothing.BUSY
        seqs = [seq for _, seq, _ in claimed if seq is not None]
        rows = cursor.execute(_COMMANDS, (seqs,)).fetchall() if seqs else []
    if len(rows) != len(seqs):
        raise BrokenInvariant(f"{len(seqs)} pending commands were claimed, {len(rows)} of them exist")
    return Claim(claimed[0][0], [_command(row) for row in rows])


def reclaim(connection: psycopg.Connection[Any], commands: Sequence[Command]) -> Claim | None:
    """Take these commands, those of them still pending, waiting for whoever drains their partitions. None: all gone."""
    with connection.cursor(binary=True) as cursor:
        partitions = sorted({command.partition for command in commands})
        cursor.execute(_LOCK_PARTITIONS, (PARTITION_LOCKS, partitions))
        rows = cursor.execute(_RECLAIM, (partitions, [command.seq for command in commands])).fetchall()
    return Claim(rows[0][0], [_command(row) for row in rows]) if rows else None


def count_attempt(connection: psycopg.Connection[Any], seq: int) -> int:
    """Note that this command broke a drain; how many it has broken by now. 0: it is no longer pending."""
    row = connection.execute(_COUNT_ATTEMPT, (seq,)).fetchone()
    return row[0] if row else 0


def _command(row: tuple[Any, ...]) -> Command:
    order = row[2:9]  # the fields of Order, in its order
    match row[1]:
        case "spend":
            return Spend(*order)
        case "top_up":
            return TopUp(*order)
        case "transfer":
            return Transfer(*order, to_wallet=row[9])
        case "bonus":
            return Bonus(*order)
        case _:
            return Unknown(*order)
