"""Where the trace of a command continues. Only commands that are traced have a row, and only while tracing is on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

import psycopg

KEPT_DAYS = 4  # a delivery is tried for three and a half
PURGE_MAX = 10_000  # rows of one purge: a few hundredths of a second

_STORE: LiteralString = """
INSERT INTO traces (seq, traceparent) SELECT * FROM unnest(%b::bigint[], %b::text[]) ON CONFLICT (seq) DO NOTHING
"""
_DECIDED: LiteralString = """
SELECT t.seq, t.traceparent, c.accepted_at, c.type, o.status, o.code
FROM traces t JOIN commands c ON c.seq = t.seq JOIN outcomes o ON o.seq = t.seq WHERE t.seq = ANY(%b::bigint[])
"""
_OF: LiteralString = "SELECT seq, traceparent FROM traces WHERE seq = ANY(%b::bigint[])"
_PURGE: LiteralString = """
DELETE FROM traces WHERE seq IN (
    SELECT seq FROM (SELECT seq, at FROM traces ORDER BY seq LIMIT %b) oldest
    WHERE at < now() - make_interval(days => %b::int)
)
"""


@dataclass(slots=True, frozen=True)
class Decided:
    """A traced command that has its outcome."""

    seq: int
    traceparent: str
    accepted_at: datetime
    type: str
    status: str
    code: str


async def store(connection: psycopg.AsyncConnection[Any], traceparents: Mapping[int, str]) -> None:
    """By seq, in the transaction that accepts the commands: their drain finds it."""
    await connection.execute(_STORE, (list(traceparents), list(traceparents.values())))


def decided(connection: psycopg.Connection[Any], seqs: Sequence[int]) -> list[Decided]:
    """Those of these commands that are traced."""
    with connection.cursor(binary=True) as cursor:
        return [Decided(*row) for row in cursor.execute(_DECIDED, (list(seqs),))]


async def of(connection: psycopg.AsyncConnection[Any], seqs: Sequence[int]) -> dict[int, str]:
    """The traceparents of those of these commands that are traced."""
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(_OF, (list(seqs),))
        return dict(await cursor.fetchall())


def purge(connection: psycopg.Connection[Any]) -> None:
    """Delete rows that are older than anything that would ask for them, the oldest first."""
    connection.execute(_PURGE, (PURGE_MAX, KEPT_DAYS))
