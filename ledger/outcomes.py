"""Reading where commands stand: pending, or with the outcome that will never change."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString
from uuid import UUID

import msgspec
import psycopg


class CommandState(msgspec.Struct, frozen=True, gc=False):
    """A command and its outcome. `metadata`, `options`, `accounts` and `result` are JSON text, as stored; `status`
    None: pending. `wallet`, `asset` and `amount` are None for a tombstone, `amount` also where all that is left was
    asked for."""

    seq: int
    tenant_id: int
    client_id: int
    type: str
    wallet: str | None
    to_wallet: str | None
    asset: str | None
    amount: int | None
    reference: str | None
    metadata: str | None
    idempotency_key: str
    accepted_at: datetime
    expires_at: datetime | None
    status: str | None
    code: str | None
    detail: str | None
    accounts: str | None
    at: datetime | None
    task_id: UUID | None
    partition: int
    options: str | None
    ref_seq: int | None
    ref_accepted_at: datetime | None  # of the command that it names
    group_seq: int | None
    result: str | None


STATES: LiteralString = """
SELECT c.seq, c.tenant_id, c.client_id, c.type, c.wallet, c.to_wallet, c.asset, c.amount, c.reference, c.metadata::text,
       c.idempotency_key, c.accepted_at, c.expires_at, o.status, o.code, o.detail, o.accounts::text, o.at, o.task_id,
       c.partition, c.options::text, c.ref_seq, r.accepted_at, c.group_seq, o.result::text
FROM commands c LEFT JOIN outcomes o USING (seq) LEFT JOIN commands r ON r.seq = c.ref_seq
"""
_BY_SEQ: LiteralString = STATES + " WHERE c.seq = ANY(%b::bigint[])"
_BY_KEY: LiteralString = STATES + " WHERE c.client_id = %b::int AND c.idempotency_key = %b::text"


async def states(connection: psycopg.AsyncConnection[Any], seqs: Sequence[int]) -> dict[int, CommandState]:
    """The commands with these seqs, of whatever tenant: the caller checks whose they are."""
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(_BY_SEQ, (list(seqs),))
        return {row[0]: CommandState(*row) for row in await cursor.fetchall()}


async def state_by_key(connection: psycopg.AsyncConnection[Any], client_id: int, key: str) -> CommandState | None:
    """The command that this client sent under this idempotency key."""
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(_BY_KEY, (client_id, key))
        row = await cursor.fetchone()
        return CommandState(*row) if row else None
