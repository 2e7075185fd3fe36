"""The feed: a client's outcomes in an order in which nothing new appears behind a place that was passed.

An outcome's place is its stream and its position there. A stream is a partition: its drains commit one after the other
and take positions from one sequence while they hold the partition's lock, so the positions of a stream commit in order;
those of two streams do not. Cancels hold no partition: they have a stream, and a lock, of their own. A *cursor* is a
place in every stream at once (docs/decisions/0021-the-feed-has-a-place-in-every-partition.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

import psycopg

from ledger.outcomes import STATES, CommandState

CANCELS = -1  # the stream of cancelled commands, before those of the partitions 0, 1, …
Cursor = tuple[int, ...]  # the position that was passed in each stream, that of the cancels first

_AFTER: LiteralString = f"""
WITH found AS MATERIALIZED (
    SELECT o.seq, o.stream, o.position
    FROM unnest(%b::smallint[], %b::bigint[]) AS s (stream, passed)
    CROSS JOIN LATERAL (
        SELECT seq, stream, position FROM outcomes
        WHERE client_id = %b::int AND stream = s.stream AND position > s.passed ORDER BY position LIMIT %b
    ) o
    ORDER BY o.position LIMIT %b
)
SELECT state.*, found.stream, found.position
FROM found CROSS JOIN LATERAL ({STATES} WHERE c.seq = found.seq) AS state ORDER BY found.position
"""
_END: LiteralString = """
SELECT COALESCE((
    SELECT position FROM outcomes WHERE client_id = %b::int AND stream = s.stream AND position IS NOT NULL
    ORDER BY position DESC LIMIT 1
), 0)
FROM unnest(%b::smallint[]) WITH ORDINALITY AS s (stream, n) ORDER BY n
"""
_NEWS: LiteralString = """
SELECT DISTINCT w.n FROM unnest(%b::int[], %b::int[], %b::smallint[], %b::bigint[]) AS w (n, client_id, stream, passed)
WHERE EXISTS (
    SELECT FROM outcomes WHERE client_id = w.client_id AND stream = w.stream AND position > w.passed
)
"""
_LAST: LiteralString = "SELECT last_value FROM outcome_positions"


@dataclass(slots=True, frozen=True)
class Told:
    """An outcome, and the cursor that has just passed it."""

    state: CommandState
    cursor: Cursor


def streams(cursor: Cursor) -> list[int]:
    return list(range(CANCELS, CANCELS + len(cursor)))


async def end(connection: psycopg.AsyncConnection[Any], client_id: int, partitions: int) -> Cursor:
    """Behind all that this client has been told by now."""
    async with connection.cursor(binary=True) as sql:
        await sql.execute(_END, (client_id, list(range(CANCELS, partitions))))
        return tuple([position for (position,) in await sql.fetchall()])


async def after(connection: psycopg.AsyncConnection[Any], client_id: int, cursor: Cursor, *, limit: int) -> list[Told]:
    """The next outcomes of this client, `limit` at the most, and none skipped."""
    async with connection.cursor(binary=True) as sql:
        await sql.execute(_AFTER, (streams(cursor), list(cursor), client_id, limit, limit))
        rows = await sql.fetchall()
    told: list[Told] = []
    passed = list(cursor)
    for *state, stream, position in rows:
        passed[stream - CANCELS] = position
        told.append(Told(CommandState(*state), tuple(passed)))
    return told


async def news(connection: psycopg.AsyncConnection[Any], waiting: Sequence[tuple[int, Cursor]]) -> set[int]:
    """Of these places, (client, cursor), the numbers of those that something has come behind."""
    flat = [
        (n, client_id, stream, passed)
        for n, (client_id, cursor) in enumerate(waiting)
        for stream, passed in zip(streams(cursor), cursor, strict=True)
    ]
    async with connection.cursor(binary=True) as sql:
        await sql.execute(_NEWS, [list(column) for column in zip(*flat, strict=True)])
        return {n for (n,) in await sql.fetchall()}


async def newest(connection: psycopg.AsyncConnection[Any]) -> int:
    """The highest position given out by now, committed or not."""
    row = await (await connection.execute(_LAST)).fetchone()
    assert row is not None
    return row[0]


def oldest(told: Sequence[Told]) -> datetime | None:
    return min((each.state.at for each in told if each.state.at is not None), default=None)
