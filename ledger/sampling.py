"""How the service does at this moment, for the dashboard. Each question reads what is new since the last one, a bounded
number of rows, or none at all: an index serves every one of them, and no history is ever summed.

What a tenant's figures are made of is the tenant's own. The backlog, the workers and the servers are everybody's, as
they are in `/metrics`.
"""

from typing import Any, LiteralString

import psycopg
from msgspec import Struct

LOOKED_AT_MAX = 2_000  # numbers of one stretch whose rows are read, the newest: a millisecond, however many there were
SAMPLED = 200  # outcomes whose latency is looked at in one sample: each is another lookup
ENDPOINTS_MAX = 50  # of a tenant, and NEWEST deliveries of each: 5,000 rows at the most
NEWEST = 100

Connection = psycopg.AsyncConnection[Any]


class Marks(Struct, frozen=True):
    """How far the numbers of commands and outcomes have been given out. Those who took one may not have committed."""

    seq: int
    position: int


_MARKS: LiteralString = """
SELECT (SELECT last_value FROM commands_seq_seq), (SELECT last_value FROM outcome_positions)
"""


async def marks(connection: Connection) -> Marks:
    return Marks(*await _row(connection, _MARKS, ()))


class Queue(Struct, frozen=True):
    """`pending` is counted up to a bound. `oldest_s`: the age of the oldest; 0 where nothing is pending."""

    partition: int
    pending: int
    oldest_s: float


_QUEUES: LiteralString = """
SELECT p.partition, counted.n, COALESCE(GREATEST(extract(epoch FROM clock_timestamp() - c.accepted_at), 0), 0)::float8
FROM partitions p
CROSS JOIN LATERAL (
    SELECT count(*) AS n FROM (SELECT FROM pending WHERE partition = p.partition LIMIT %b::bigint) q
) counted
LEFT JOIN LATERAL (SELECT seq FROM pending WHERE partition = p.partition ORDER BY seq LIMIT 1) oldest ON true
LEFT JOIN LATERAL (SELECT accepted_at FROM commands WHERE seq = oldest.seq LIMIT 1) c ON true
ORDER BY p.partition
"""


async def queues(connection: Connection, *, at_most: int) -> list[Queue]:
    """Every partition. `at_most`: how many pending commands are counted in each."""
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(_QUEUES, (at_most,))
        return [Queue(*row) for row in await cursor.fetchall()]


_ACCEPTED: LiteralString = """
SELECT count(*) FROM commands WHERE seq > %b::bigint AND seq <= %b::bigint AND tenant_id = %b::int
"""


async def accepted(connection: Connection, tenant_id: int, *, after: Marks, upto: Marks) -> float:
    """How many of the tenant's commands have numbers of this stretch; of a long one, by its newest part."""
    begin, share = _looked_at(after.seq, upto.seq)
    (count,) = await _row(connection, _ACCEPTED, (begin, upto.seq, tenant_id))
    return count * share


def _looked_at(after: int, upto: int) -> tuple[int, float]:
    """Where the part of a stretch begins that is read, and how many times longer the stretch is."""
    begin = max(after, upto - LOOKED_AT_MAX)
    return begin, (upto - after) / max(upto - begin, 1)


_OF_TENANT: LiteralString = """
FROM clients k CROSS JOIN (SELECT partition AS stream FROM partitions UNION ALL SELECT -1) s
CROSS JOIN LATERAL (
    SELECT seq, status, code, at, position FROM outcomes
    WHERE client_id = k.id AND stream = s.stream AND position > %b::bigint AND position <= %b::bigint
) o
"""
_DECIDED: LiteralString = f"SELECT o.status, o.code, count(*) {_OF_TENANT} WHERE k.tenant_id = %b::int GROUP BY 1, 2"
_LATENCY: LiteralString = f"""
SELECT percentile_disc(ARRAY[0.5, 0.99]::float8[]) WITHIN GROUP (ORDER BY
    extract(epoch FROM o.at - c.accepted_at)::float8 * 1000)
{_OF_TENANT} CROSS JOIN LATERAL (SELECT accepted_at FROM commands WHERE seq = o.seq LIMIT 1) c
WHERE k.tenant_id = %b::int AND o.position %% %b::bigint = 0
"""


class Decided(Struct, frozen=True):
    """Outcomes of one stretch. Milliseconds from acceptance to decision; None: there were none."""

    applied: float
    refused: dict[str, int]  # by code, whatever was not applied
    p50_ms: float | None
    p99_ms: float | None


async def decided(connection: Connection, tenant_id: int, *, after: Marks, upto: Marks) -> Decided:
    """What came of the tenant's commands, of the outcomes that have positions of this stretch; of a long one, by its
    newest part."""
    begin, share = _looked_at(after.position, upto.position)
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(_DECIDED, (begin, upto.position, tenant_id))
        rows = await cursor.fetchall()
        total = sum(count for _, _, count in rows)
        every = max(1, total // SAMPLED)
        latency = None
        if total:
            await cursor.execute(_LATENCY, (begin, upto.position, tenant_id, every))
            ((latency,),) = await cursor.fetchall()
    applied = share * sum(count for status, _, count in rows if status == "applied")
    refused = {code: round(share * count) for status, code, count in rows if status != "applied"}
    p50, p99 = latency or (None, None)
    return Decided(applied, refused, p50, p99)


class Sessions(Struct, frozen=True):
    """Connections of one kind of process, and how long ago one of them was last heard of."""

    name: str
    count: int
    idle_s: float


_SESSIONS: LiteralString = """
SELECT application_name, count(*),
       COALESCE(min(extract(epoch FROM clock_timestamp() - state_change)), 0)::float8
FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'bursar-%%' GROUP BY 1
"""


async def sessions(connection: Connection) -> dict[str, Sessions]:
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(_SESSIONS)
        return {row[0]: Sessions(*row) for row in await cursor.fetchall()}


class Webhooks(Struct, frozen=True):
    """Of the newest deliveries and attempts of each of the tenant's endpoints."""

    endpoints: int
    disabled: int
    pending: int
    delivered: int
    exhausted: int
    attempts: int
    failures: int
    p50_ms: int | None


_WEBHOOKS: LiteralString = """
WITH mine AS (
    SELECT id, status FROM webhook_endpoints WHERE tenant_id = %b::int AND status <> 'deleted' ORDER BY id LIMIT %b::int
), newest AS (
    SELECT d.status FROM mine CROSS JOIN LATERAL (
        SELECT status FROM deliveries WHERE endpoint_id = mine.id ORDER BY seq DESC LIMIT %b::int
    ) d
), tried AS (
    SELECT a.failure, a.took_ms FROM mine CROSS JOIN LATERAL (
        SELECT failure, took_ms FROM attempts WHERE endpoint_id = mine.id ORDER BY seq DESC, n DESC LIMIT %b::int
    ) a
)
SELECT (SELECT count(*) FROM mine), (SELECT count(*) FROM mine WHERE status = 'disabled'),
       count(*) FILTER (WHERE status = 'pending'), count(*) FILTER (WHERE status = 'delivered'),
       count(*) FILTER (WHERE status = 'exhausted'),
       (SELECT count(*) FROM tried), (SELECT count(*) FROM tried WHERE failure IS NOT NULL),
       (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY took_ms) FROM tried WHERE failure IS NULL)
FROM newest
"""


async def webhooks(connection: Connection, tenant_id: int) -> Webhooks:
    return Webhooks(*await _row(connection, _WEBHOOKS, (tenant_id, ENDPOINTS_MAX, NEWEST, NEWEST)))


async def _row(connection: Connection, query: LiteralString, values: tuple[object, ...]) -> tuple[Any, ...]:
    async with connection.cursor(binary=True) as cursor:
        await cursor.execute(query, values)
        row = await cursor.fetchone()
        assert row is not None
        return row
