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

from ledger.commands import (
    Adjust,
    Bonus,
    Capture,
    Close,
    Command,
    Exchange,
    ExpireCredits,
    ExpireHold,
    Hold,
    Release,
    Reverse,
    Spend,
    TopUp,
    Transfer,
    Unknown,
    read_options,
)
from ledger.errors import BrokenInvariant
from ledger.ids import command_id

# The space of advisory locks that guard partitions: one drain at a time in each. Registers that drains read (a
# wallet's or an asset's status) change under all of them (ledger.registers).
PARTITION_LOCKS = 0x62757200


# The request hash of a tombstone, which answers whatever arrives under its key.
CANCELLED_UNSEEN = b""
OWN_REQUEST = b"the ledger's own"  # of what no client can send: there is no request to compare


class NewCommand(msgspec.Struct, frozen=True, gc=False):
    """A validated command on its way in. `request_hash` is of the caller's request in canonical form.

    `amount` None: all that is left. `options`: JSON text (ledger.commands.write_options). `ref_seq`: the hold or the
    command that it names, from which `wallet`, `asset` and `partition` are taken.
    """

    tenant_id: int
    client_id: int
    partition: int
    type: str
    idempotency_key: str
    request_hash: bytes
    wallet: str
    to_wallet: str | None
    asset: str
    amount: int | None
    reference: str | None
    metadata: str | None  # JSON text
    expires_at: datetime | None
    options: str | None = None
    ref_seq: int | None = None


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """Where a command stands after `accept`."""

    seq: int
    accepted_at: datetime
    replayed: bool  # this (client, key) was there already
    same_request: bool  # … with this very request


_ACCEPT: LiteralString = """
WITH accepted AS (
    INSERT INTO commands (
        tenant_id, client_id, partition, type, idempotency_key, request_hash, wallet, to_wallet, asset,
        amount, reference, metadata, expires_at, options, ref_seq
    )
    SELECT
        unnest(%b::int[]), unnest(%b::int[]), unnest(%b::smallint[]), unnest(%b::text[]), unnest(%b::text[]),
        unnest(%b::bytea[]), unnest(%b::text[]), unnest(%b::text[]), unnest(%b::text[]), unnest(%b::bigint[]),
        unnest(%b::text[]), unnest(%b::text[])::jsonb, unnest(%b::timestamptz[]), unnest(%b::text[])::json,
        unnest(%b::bigint[])
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

# A group's commands get their numbers beforehand, so that each of them can name the first; one row queues them all.
_NUMBERS: LiteralString = """
SELECT nextval('commands_seq_seq') FROM generate_series(1, %b::int) ORDER BY 1
"""
_ACCEPT_GROUP: LiteralString = """
INSERT INTO commands (
    seq, group_seq, tenant_id, client_id, partition, type, idempotency_key, request_hash, wallet, to_wallet, asset,
    amount, reference, metadata, expires_at, options, ref_seq
) OVERRIDING SYSTEM VALUE
SELECT * FROM unnest(
    %b::bigint[], %b::bigint[], %b::int[], %b::int[], %b::smallint[], %b::text[], %b::text[], %b::bytea[], %b::text[],
    %b::text[], %b::text[], %b::bigint[], %b::text[], %b::text[]::jsonb[], %b::timestamptz[], %b::text[]::json[],
    %b::bigint[]
)
ON CONFLICT (client_id, idempotency_key) DO NOTHING
RETURNING seq, accepted_at
"""
_QUEUE_GROUP: LiteralString = """
INSERT INTO pending (partition, seq, size) VALUES (%b::smallint, %b::bigint, %b::smallint)
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
    existing = await _existing(connection, replays)
    for position, command in enumerate(batch):
        if answers[position] is None:
            answers[position] = existing[command.client_id, command.idempotency_key, command.request_hash]
    return cast(list[Accepted], answers)


async def accept_group(connection: psycopg.AsyncConnection[Any], batch: Sequence[NewCommand]) -> list[Accepted | None]:
    """Store commands of one partition as a group, which is decided as one; all of them or none.

    When this returns, they are committed. If any of their keys is there already, nothing is stored, and each answer is
    the command of that key, or None where there is none: a replay of the whole group has no None in it and is the
    `same_request` throughout, since a request's hash is of its whole group.
    """
    size = len(batch)
    columns = [list(column) for column in zip(*(msgspec.structs.astuple(command) for command in batch), strict=True)]
    async with connection.transaction() as transaction, connection.cursor(binary=True) as cursor:
        await cursor.execute(_NUMBERS, (size,))
        seqs = [seq for (seq,) in await cursor.fetchall()]
        await cursor.execute(_ACCEPT_GROUP, [seqs, [seqs[0]] * size, *columns])
        stored = dict(await cursor.fetchall())
        if len(stored) < size:
            raise psycopg.Rollback(transaction)
        await cursor.execute(_QUEUE_GROUP, (batch[0].partition, seqs[0], size))
        return [Accepted(seq, stored[seq], replayed=False, same_request=True) for seq in seqs]
    existing = await _existing(connection, batch)
    return [existing.get((command.client_id, command.idempotency_key, command.request_hash)) for command in batch]


def enqueue(connection: psycopg.Connection[Any], batch: Sequence[NewCommand]) -> list[int]:
    """Accept commands of the ledger's own, in the caller's transaction; the seqs of those that are new. A key that is
    there stores nothing."""
    columns = zip(*(msgspec.structs.astuple(command) for command in batch), strict=True)
    with connection.cursor(binary=True) as cursor:
        cursor.execute(_ACCEPT, [list(column) for column in columns])
        return [seq for _, _, seq, _ in cursor]


def enqueue_group(connection: psycopg.Connection[Any], batch: Sequence[NewCommand]) -> list[int]:
    """The same for an atomic group, all of one partition; empty: their keys are there, all of them."""
    columns = [list(column) for column in zip(*(msgspec.structs.astuple(command) for command in batch), strict=True)]
    size = len(batch)
    with connection.cursor(binary=True) as cursor:
        seqs = [seq for (seq,) in cursor.execute(_NUMBERS, (size,))]
        stored = cursor.execute(_ACCEPT_GROUP, [seqs, [seqs[0]] * size, *columns]).fetchall()
        if not stored:
            return []
        if len(stored) < size:
            raise BrokenInvariant(f"of {size} keys of a group, {size - len(stored)} are taken")
        cursor.execute(_QUEUE_GROUP, (batch[0].partition, seqs[0], size))
        return seqs


async def _existing(
    connection: psycopg.AsyncConnection[Any], commands: Sequence[NewCommand]
) -> dict[tuple[int, str, bytes], Accepted]:
    """The commands that stand under these keys, by client, key and the hash of what is asked now."""
    async with connection.cursor(binary=True) as cursor:
        keys = [command.client_id for command in commands], [command.idempotency_key for command in commands]
        await cursor.execute(_EXISTING, keys)
        found = {(client, key): (seq, at, request) for client, key, seq, at, request in await cursor.fetchall()}
    existing: dict[tuple[int, str, bytes], Accepted] = {}
    for command in commands:
        if there := found.get((command.client_id, command.idempotency_key)):
            seq, at, request = there
            same = request in (command.request_hash, CANCELLED_UNSEEN)
            key = (command.client_id, command.idempotency_key, command.request_hash)
            existing[key] = Accepted(seq, at, replayed=True, same_request=same)
    return existing


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
    "c.type, c.options::text, c.seq, c.tenant_id, c.partition, c.wallet, c.asset, "
    "COALESCE(c.amount, 0), c.expires_at, c.to_wallet, COALESCE(c.ref_seq, 0), c.group_seq, c.request_hash, "
    "CASE WHEN c.type = 'expire_hold' THEN (SELECT client_id FROM commands WHERE seq = c.ref_seq) ELSE c.client_id END"
)
_CLAIM: LiteralString = """
SELECT CASE WHEN n = 1 THEN clock_timestamp() END, seq, size, locked
FROM claim_pending(%b::smallint[], %b::int, %b::int) WITH ORDINALITY AS c (seq, size, locked, n)
"""
# A statement of its own, after the claim: the claim sees rows that were committed while it ran, and a join in the same
# statement, whose snapshot is older, would not find their commands.
_COMMANDS: LiteralString = f"""
SELECT {_COMMAND_COLUMNS} FROM commands c WHERE c.seq = ANY(%b::bigint[]) ORDER BY c.seq
"""
_COMMANDS_AND_GROUPS: LiteralString = f"""
SELECT {_COMMAND_COLUMNS} FROM commands c WHERE c.seq IN (
    SELECT unnest(%b::bigint[]) UNION ALL SELECT seq FROM commands WHERE group_seq = ANY(%b::bigint[])
) ORDER BY c.seq
"""
_LOCK_PARTITIONS: LiteralString = "SELECT pg_advisory_xact_lock(%b::int, p) FROM unnest(%b::int[]) AS p ORDER BY p"
_LOCK_ALL: LiteralString = """
SELECT pg_advisory_xact_lock(%b::int, partition::int) FROM partitions ORDER BY partition
"""
_RECLAIM: LiteralString = """
DELETE FROM pending WHERE partition = ANY(%b::smallint[]) AND seq = ANY(%b::bigint[]) RETURNING seq, size
"""
_COUNT_ATTEMPT: LiteralString = """
UPDATE pending SET attempts = attempts + 1
WHERE (partition, seq) = (SELECT partition, COALESCE(group_seq, seq) FROM commands WHERE seq = %b::bigint)
RETURNING attempts
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
    """Take up to `max_rows` pending commands from those of `partitions` that no other drain holds, the first one first.

    An empty claim: look again. Nothing: no lock was taken, so the drain may end.
    The commands leave the queue in the caller's transaction: its rollback puts them back.
    """
    with connection.cursor(binary=True) as cursor:
        claimed = cursor.execute(_CLAIM, (list(partitions), max_rows, PARTITION_LOCKS)).fetchall()
        if not claimed:
            return Nothing.IDLE
        if not any(locked for *_, locked in claimed):
            return Nothing.BUSY
        queued = [(seq, size) for _, seq, size, _ in claimed if seq is not None]
        commands = load(cursor, queued) if queued else []
    return Claim(claimed[0][0], commands)


def reclaim(connection: psycopg.Connection[Any], commands: Sequence[Command]) -> Claim | None:
    """Take these commands, those of them still pending, waiting for whoever drains their partitions. None: all gone."""
    with connection.cursor(binary=True) as cursor:
        partitions = sorted({command.partition for command in commands})
        cursor.execute(_LOCK_PARTITIONS, (PARTITION_LOCKS, partitions))
        queued = list({command.group_seq or command.seq for command in commands})
        taken = cursor.execute(_RECLAIM, (partitions, queued)).fetchall()
        if not taken:
            return None
        ((now,),) = cursor.execute("SELECT clock_timestamp()").fetchall()
        return Claim(now, load(cursor, taken))


def lock_all_partitions(connection: psycopg.Connection[Any]) -> None:
    """In one order, until the transaction ends. Waits for the drains that are under way."""
    connection.execute(_LOCK_ALL, (PARTITION_LOCKS,))


def units(commands: Sequence[Command]) -> list[list[Command]]:
    """The commands as they are decided: one by one, or a group at a time; in the order of each one's first."""
    found: dict[int, list[Command]] = {}
    for command in commands:
        found.setdefault(command.group_seq or command.seq, []).append(command)
    return list(found.values())


def load(cursor: psycopg.Cursor[Any], queued: Sequence[tuple[int, int]]) -> list[Command]:
    """The commands behind these rows of the queue (seq, size), in acceptance order. The cursor is a binary one."""
    seqs = [seq for seq, _ in queued]
    groups = [seq for seq, size in queued if size > 1]
    if groups:
        cursor.execute(_COMMANDS_AND_GROUPS, (seqs, groups))
    else:
        cursor.execute(_COMMANDS, (seqs,))
    commands = [_command(row) for row in cursor]
    wanted = sum(size for _, size in queued)
    if len(commands) != wanted:
        raise BrokenInvariant(f"{wanted} pending commands were claimed, {len(commands)} of them exist")
    return commands


def unstored(command: NewCommand, seq: int, group_seq: int | None) -> Command:
    """A command that is in no inbox, as a drain would load it."""
    who = (seq, command.tenant_id, command.partition, command.wallet, command.asset, command.amount or 0)
    more = (
        command.expires_at,
        command.to_wallet,
        command.ref_seq or 0,
        group_seq,
        command.request_hash,
        command.client_id,
    )
    return _command((command.type, command.options, *who, *more))


def count_attempt(connection: psycopg.Connection[Any], seq: int) -> int:
    """Note that this command broke a drain; how many it has broken by now. 0: it is no longer pending."""
    row = connection.execute(_COUNT_ATTEMPT, (seq,)).fetchone()
    return row[0] if row else 0


def public_id(connection: psycopg.Connection[Any], seq: int) -> str:
    """The id by which clients know this command."""
    ((accepted_at,),) = connection.execute("SELECT accepted_at FROM commands WHERE seq = %b::bigint", (seq,)).fetchall()
    return command_id(seq, accepted_at)


def _command(row: tuple[Any, ...]) -> Command:
    """From the columns of _COMMAND_COLUMNS."""
    order: tuple[Any, ...] = row[2:]  # the fields of Order, in its order, up to its options
    if row[1] is not None:
        order = (*order, read_options(row[1]))
    match row[0]:
        case "spend":
            return Spend(*order)
        case "top_up":
            return TopUp(*order)
        case "transfer":
            return Transfer(*order)
        case "bonus":
            return Bonus(*order)
        case "hold":
            return Hold(*order)
        case "capture":
            return Capture(*order)
        case "release":
            return Release(*order)
        case "exchange":
            return Exchange(*order)
        case "reverse":
            return Reverse(*order)
        case "adjust":
            return Adjust(*order)
        case "expire_hold":
            return ExpireHold(*order)
        case "expire_credits":
            return ExpireCredits(*order)
        case "close":
            return Close(*order)
        case _:
            return Unknown(*order)
