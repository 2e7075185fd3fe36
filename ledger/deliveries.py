"""Deliveries: what webhook endpoints are owed, and what became of each attempt.

`owe` writes them in the transaction of the outcome. Nothing marks a delivery as under way: an endpoint has one courier
at a time, by an advisory lock of its session, and a courier knows what it has in the air. If it dies, its session ends,
and the next one finds everything as it was settled last: delivered once more, perhaps, and never not at all
(docs/decisions/0023-webhook-deliveries.md).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import msgspec
import psycopg

from ledger.events import BALANCE_LOW, ENDPOINT_DISABLED, TEST, Listener, Low, Outcome, owed
from ledger.ids import command_id, endpoint_id
from ledger.outcomes import STATES, CommandState

ENDPOINT_LOCKS = 0x62757201  # the space of advisory locks of couriers: one at a time for each endpoint

_LISTENERS: LiteralString = """
SELECT id, tenant_id, event_types, wallets, ordering = 'per_wallet' FROM webhook_endpoints
WHERE status = 'enabled' AND tenant_id = ANY(%b::int[])
"""
_OWE: LiteralString = """
INSERT INTO deliveries (endpoint_id, seq, lane, due_at, at)
SELECT unnest(%b::int[]), unnest(%b::bigint[]), unnest(%b::bigint[]), %b, %b
ON CONFLICT (endpoint_id, seq) DO NOTHING
"""
_OWE_STORED: LiteralString = """
INSERT INTO deliveries (endpoint_id, seq, lane, due_at, at)
SELECT d.endpoint_id, d.seq, d.lane, clock_timestamp(), o.at
FROM unnest(%b::int[], %b::bigint[], %b::bigint[]) AS d (endpoint_id, seq, lane) JOIN outcomes o USING (seq)
ON CONFLICT (endpoint_id, seq) DO NOTHING
"""


# Events are numbered before they are written: each tells of the command whose outcome it comes with.
_NUMBER: LiteralString = """
SELECT nextval('commands_seq_seq'), c.accepted_at
FROM unnest(%b::bigint[]) WITH ORDINALITY AS n (seq, position)
CROSS JOIN LATERAL (SELECT accepted_at FROM commands WHERE seq = n.seq LIMIT 1) c ORDER BY n.position
"""
_TELL_LOW: LiteralString = """
INSERT INTO events (seq, tenant_id, type, at, data, outcome_seq)
SELECT seq, tenant_id, %b, %b, data::json, outcome_seq
FROM unnest(%b::bigint[], %b::int[], %b::text[], %b::bigint[]) AS e (seq, tenant_id, data, outcome_seq)
"""


def ask_listeners(cursor: psycopg.Cursor[Any], tenants: Iterable[int]) -> None:
    """Ask, in a pipeline if need be; `listeners` has the answer."""
    cursor.execute(_LISTENERS, (list(set(tenants)),))


def listeners(cursor: psycopg.Cursor[Any]) -> list[Listener]:
    return [Listener(*row) for row in cursor]


def owe(
    connection: psycopg.Connection[Any],
    to: Sequence[Listener],
    outcomes: Sequence[Outcome],
    at: datetime | None = None,
) -> int:
    """Write what these outcomes owe, in the caller's transaction; how many deliveries are new. `at`: when all of them
    were decided; None: as it stands with each."""
    rows = owed(to, outcomes)
    if not rows:
        return 0
    columns = [list(column) for column in zip(*rows, strict=True)]
    with connection.cursor() as cursor:
        cursor.execute(*((_OWE_STORED, columns) if at is None else (_OWE, (*columns, at, at))))
        return cursor.rowcount


def owe_low(connection: psycopg.Connection[Any], to: Sequence[Listener], low: Sequence[Low], at: datetime) -> int:
    """Tell whoever wants to know of these wallets, in the caller's transaction; how many deliveries that makes."""
    told = [
        (each, endpoint_ids)
        for each in low
        if (endpoint_ids := [listener.endpoint_id for listener in to if listener.wants(_news_of(each))])
    ]
    if not told:
        return 0
    with connection.cursor(binary=True) as cursor:
        numbered = cursor.execute(_NUMBER, ([each.seq for each, _ in told],)).fetchall()
        rows = [
            (seq, each.tenant_id, _low_shown(each, command_id(each.seq, accepted_at)), each.seq)
            for (each, _), (seq, accepted_at) in zip(told, numbered, strict=True)
        ]
        cursor.execute(_TELL_LOW, (BALANCE_LOW, at, *(list(column) for column in zip(*rows, strict=True))))
        owed_rows = [
            (endpoint_id, seq) for (_, ids), (seq, _) in zip(told, numbered, strict=True) for endpoint_id in ids
        ]
        endpoint_ids, seqs = (list(column) for column in zip(*owed_rows, strict=True))
        cursor.execute(_OWE, (endpoint_ids, seqs, [None] * len(seqs), at, at))
    return len(owed_rows)


def _news_of(low: Low) -> Outcome:
    return Outcome(low.seq, low.tenant_id, BALANCE_LOW, low.wallet, None)


def _low_shown(low: Low, command: str) -> str:
    shown = msgspec.json.decode(low.balance) | {"below": str(low.below), "command": command}
    return msgspec.json.encode({"object": "balance_low", **shown}).decode()


def unserved(connection: psycopg.Connection[Any], *, age_s: float) -> bool:
    """Whether an endpoint that is well has had something due for so long, and no courier has it."""
    row = connection.execute(_UNSERVED, (age_s, ENDPOINT_LOCKS)).fetchone()
    return row is not None and row[0]


# --- the courier's -------------------------------------------------------------------------------------------------

# The limit counts those that are locked: others may have the first ones. OFFSET 0: no lock before the other conditions.
_TAKE: LiteralString = """
SELECT id FROM (
    SELECT e.id FROM webhook_endpoints e
    WHERE e.status = 'enabled' AND e.id <> ALL(%b::int[]) AND (e.paused_until IS NULL OR e.paused_until <= %b)
      AND (EXISTS (SELECT FROM deliveries WHERE endpoint_id = e.id AND lane IS NULL AND due_at <= %b)
           OR EXISTS (SELECT FROM deliveries WHERE endpoint_id = e.id AND lane IS NOT NULL AND due_at IS NOT NULL))
    ORDER BY e.id OFFSET 0
) waiting WHERE pg_try_advisory_lock(%b::int, id) LIMIT %b
"""
_LEAVE: LiteralString = "SELECT pg_advisory_unlock(%b::int, id) FROM unnest(%b::int[]) AS id"
_TARGETS: LiteralString = """
SELECT id, tenant_id, url,
       ordering = 'per_wallet'
       OR EXISTS (SELECT FROM deliveries WHERE endpoint_id = e.id AND lane IS NOT NULL AND due_at IS NOT NULL),
       max_per_second, headers, secret, CASE WHEN former_until > %b THEN former_secret END, failing_since, paused_until
FROM webhook_endpoints e WHERE id = ANY(%b::int[]) AND status = 'enabled'
"""
_DUE: LiteralString = """
SELECT n.endpoint_id, d.seq, d.attempts
FROM unnest(%b::int[], %b::bigint[]) AS n (endpoint_id, wanted)
CROSS JOIN LATERAL (
    SELECT seq, attempts FROM deliveries
    WHERE endpoint_id = n.endpoint_id AND lane IS NULL AND due_at <= %b ORDER BY due_at LIMIT n.wanted
) d
"""
# The first of each lane, lane by lane from where the last look ended: what stands behind it waits for it.
_HEADS: LiteralString = """
WITH RECURSIVE heads AS (
    (SELECT lane, seq, attempts, due_at FROM deliveries
     WHERE endpoint_id = %b::int AND lane > %b::bigint AND due_at IS NOT NULL AND lane IS NOT NULL
     ORDER BY lane, seq LIMIT 1)
    UNION ALL
    SELECT n.* FROM heads h CROSS JOIN LATERAL (
        SELECT lane, seq, attempts, due_at FROM deliveries
        WHERE endpoint_id = %b::int AND lane > h.lane AND due_at IS NOT NULL AND lane IS NOT NULL
        ORDER BY lane, seq LIMIT 1
    ) n
)
SELECT lane, seq, attempts, due_at <= %b FROM heads LIMIT %b
"""
_STATES: LiteralString = STATES + " WHERE c.seq = ANY(%b::bigint[])"
_EVENTS: LiteralString = "SELECT seq, type, at, data::text FROM events WHERE seq = ANY(%b::bigint[])"
_SETTLE: LiteralString = """
WITH settled AS (
    UPDATE deliveries d SET status = n.status, attempts = n.n, due_at = n.due_at
    FROM unnest(%b::int[], %b::bigint[], %b::smallint[], %b::text[], %b::timestamptz[])
    AS n (endpoint_id, seq, n, status, due_at)
    WHERE d.endpoint_id = n.endpoint_id AND d.seq = n.seq AND d.status = 'pending'
)
INSERT INTO attempts (endpoint_id, seq, n, at, status, failure, detail, took_ms, body)
SELECT * FROM unnest(
    %b::int[], %b::bigint[], %b::smallint[], %b::timestamptz[], %b::smallint[], %b::text[], %b::text[], %b::int[],
    %b::text[]
) ON CONFLICT DO NOTHING
"""
_HEALTH: LiteralString = """
UPDATE webhook_endpoints SET failing_since = %b, paused_until = %b WHERE id = %b::int
"""
_DISABLE: LiteralString = """
UPDATE webhook_endpoints SET status = 'disabled', disabled_reason = %b WHERE id = %b::int AND status = 'enabled'
RETURNING created_at
"""
_TELL: LiteralString = """
INSERT INTO events (tenant_id, type, at, data) VALUES (%b::int, %b, %b, %b::json) RETURNING seq
"""
_OWE_EVENT: LiteralString = """
INSERT INTO deliveries (endpoint_id, seq, due_at, at)
SELECT id, %b::bigint, %b, %b FROM webhook_endpoints
WHERE tenant_id = %b::int AND status = 'enabled' AND (event_types IS NULL OR %b::text = ANY(event_types))
"""
_OWE_ONE: LiteralString = "INSERT INTO deliveries (endpoint_id, seq, due_at, at) VALUES (%b::int, %b::bigint, %b, %b)"
_PURGE: LiteralString = """
WITH looked_at AS (
    SELECT endpoint_id, seq, at, due_at FROM deliveries WHERE endpoint_id = %b::int AND seq > %b ORDER BY seq LIMIT %b
), old AS (
    SELECT endpoint_id, seq FROM looked_at JOIN webhook_endpoints e ON e.id = endpoint_id
    WHERE at < %b AND (due_at IS NULL OR e.status = 'deleted')
), attempts_gone AS (
    DELETE FROM attempts a USING old WHERE a.endpoint_id = old.endpoint_id AND a.seq = old.seq
), owed_no_longer AS (
    UPDATE webhook_endpoints e SET owed_after = GREATEST(owed_after, (
        SELECT max(position) FROM outcomes
        WHERE seq IN (SELECT seq FROM old UNION ALL SELECT v.outcome_seq FROM events v JOIN old USING (seq))
    )) WHERE e.id IN (SELECT endpoint_id FROM old)
), gone AS (
    DELETE FROM deliveries d USING old WHERE d.endpoint_id = old.endpoint_id AND d.seq = old.seq
)
SELECT max(seq) FROM looked_at HAVING count(*) = %b AND bool_or(at < %b)
"""
_PURGE_EVENTS: LiteralString = """
WITH looked_at AS (
    SELECT seq, at FROM events WHERE seq > %b ORDER BY seq LIMIT %b
), gone AS (
    DELETE FROM events v USING looked_at l WHERE v.seq = l.seq AND l.at < %b
    AND NOT EXISTS (SELECT FROM deliveries d JOIN webhook_endpoints e ON e.id = d.endpoint_id WHERE d.seq = v.seq)
)
SELECT max(seq) FROM looked_at HAVING count(*) = %b AND bool_or(at < %b)
"""
_OF_EVENTS = 0  # in the place of an endpoint: the events themselves, last
_ENDPOINTS: LiteralString = "SELECT id FROM webhook_endpoints ORDER BY id"
_UNSERVED: LiteralString = """
SELECT EXISTS (
    SELECT FROM webhook_endpoints e WHERE status = 'enabled' AND failing_since IS NULL
      AND (paused_until IS NULL OR paused_until < now())
      AND EXISTS (SELECT FROM deliveries d WHERE d.endpoint_id = e.id AND lane IS NULL
                  AND due_at < now() - make_interval(secs => %b))
      AND NOT EXISTS (
          SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid::bigint = %b AND objid::bigint = e.id
      )
)
"""


@dataclass(slots=True, frozen=True)
class Target:
    """An endpoint as a courier needs it. Secrets and headers are sealed. `ordered`: some of what it is owed goes lane
    by lane, because it wants that, or did when it was owed it."""

    endpoint_id: int
    tenant_id: int
    url: str
    ordered: bool
    max_per_second: int | None
    headers: bytes | None
    secret: bytes
    former_secret: bytes | None
    failing_since: datetime | None
    paused_until: datetime | None


@dataclass(slots=True, frozen=True)
class Due:
    """A delivery whose time has come. `attempts`: so far."""

    endpoint_id: int
    seq: int
    attempts: int
    lane: int | None = None


@dataclass(slots=True, frozen=True)
class Event:
    """News that is no outcome. `data` is JSON text."""

    seq: int
    type: str
    at: datetime
    data: str


@dataclass(slots=True, frozen=True)
class Settled:
    """What came of one attempt. `due_at` None: it is over."""

    due: Due
    delivered: bool
    due_at: datetime | None
    at: datetime
    status: int | None
    failure: str | None
    detail: str | None
    took_ms: int
    body: str

    @property
    def outcome(self) -> str:
        if self.delivered:
            return "delivered"
        return "pending" if self.due_at is not None else "exhausted"


Connection = psycopg.AsyncConnection[Any]


_SHARE: LiteralString = """
SELECT (SELECT count(*) FROM webhook_endpoints WHERE status = 'enabled'),
       (SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = current_setting('application_name'))
"""


async def take(connection: Connection, now: datetime, *, but: Sequence[int], most: int) -> list[int]:
    """Endpoints with something due that no courier has: this connection has them from now on, until it leaves them or
    closes. `but`: those that it has already."""
    async with connection.cursor(binary=True) as sql:
        await sql.execute(_TAKE, (list(but), now, now, ENDPOINT_LOCKS, most))
        return [id_ for (id_,) in await sql.fetchall()]


async def leave(connection: Connection, endpoint_ids: Sequence[int]) -> None:
    async with connection.cursor(binary=True) as sql:
        await sql.execute(_LEAVE, (ENDPOINT_LOCKS, list(endpoint_ids)))


async def targets(connection: Connection, endpoint_ids: Sequence[int], now: datetime) -> dict[int, Target]:
    """Those of them that are enabled, as they stand."""
    async with connection.cursor(binary=True) as sql:
        await sql.execute(_TARGETS, (now, list(endpoint_ids)))
        return {row[0]: Target(*row) for row in await sql.fetchall()}


async def due(connection: Connection, wanted: Sequence[tuple[int, int]], now: datetime) -> list[Due]:
    """The deliveries in no order that are due, (endpoint, how many at the most), soonest first."""
    async with connection.cursor(binary=True) as sql:
        await sql.execute(_DUE, (*(list(column) for column in zip(*wanted, strict=True)), now))
        return [Due(*row) for row in await sql.fetchall()]


async def heads(
    connection: Connection, endpoint_id: int, now: datetime, *, after_lane: int, most: int
) -> tuple[list[Due], int]:
    """The first delivery of each lane, of those that are due, and the lane from which to look next (-1: the first)."""
    async with connection.cursor(binary=True) as sql:
        await sql.execute(_HEADS, (endpoint_id, after_lane, endpoint_id, now, most))
        rows = await sql.fetchall()
    found = [Due(endpoint_id, seq, attempts, lane) for lane, seq, attempts, is_due in rows if is_due]
    return found, rows[-1][0] if len(rows) == most else -1


async def contents(connection: Connection, seqs: Sequence[int]) -> dict[int, CommandState | Event]:
    """What there is to tell: commands with their outcomes, and other events."""
    async with connection.cursor(binary=True) as sql:
        await sql.execute(_STATES, (list(seqs),))
        found: dict[int, CommandState | Event] = {row[0]: CommandState(*row) for row in await sql.fetchall()}
        if rest := [seq for seq in seqs if seq not in found]:
            await sql.execute(_EVENTS, (rest,))
            found |= {row[0]: Event(*row) for row in await sql.fetchall()}
    return found


async def settle(connection: Connection, settled: Sequence[Settled]) -> None:
    """Note what came of these attempts."""
    rows = [
        (s.due.endpoint_id, s.due.seq, s.due.attempts + 1, s.outcome, s.due_at) for s in settled
    ]  # fmt: skip
    noted = [
        (s.due.endpoint_id, s.due.seq, s.due.attempts + 1, s.at, s.status, s.failure, s.detail, s.took_ms, s.body)
        for s in settled
    ]
    async with connection.cursor() as sql:
        await sql.execute(_SETTLE, [list(column) for table in (rows, noted) for column in zip(*table, strict=True)])


async def note_health(
    connection: Connection, endpoint_id: int, *, failing_since: datetime | None, paused_until: datetime | None
) -> None:
    async with connection.cursor() as sql:
        await sql.execute(_HEALTH, (failing_since, paused_until, endpoint_id))


async def disable(connection: Connection, target: Target, reason: str, now: datetime) -> bool:
    """Send it nothing more, and tell the tenant's other endpoints; False: somebody had done it. In a transaction of
    the caller's."""
    async with connection.cursor() as sql:
        await sql.execute(_DISABLE, (reason, target.endpoint_id))
        row = await sql.fetchone()
        if row is None:
            return False
        told = {"id": endpoint_id(target.endpoint_id, row[0]), "url": target.url, "reason": reason}
        data = msgspec.json.encode({"object": "webhook_endpoint", "status": "disabled", **told}).decode()
        await sql.execute(_TELL, (target.tenant_id, ENDPOINT_DISABLED, now, data))
        ((seq,),) = await sql.fetchall()
        await sql.execute(_OWE_EVENT, (seq, now, now, target.tenant_id, ENDPOINT_DISABLED))
    return True


def send_test(connection: psycopg.Connection[Any], tenant_id: int, endpoint_id: int) -> int:
    """Owe the endpoint an event without meaning; its seq. In a transaction of the caller's."""
    data = msgspec.json.encode({"message": "a test, sent because somebody asked for it"}).decode()
    now = datetime.now(UTC)
    ((seq,),) = connection.execute(_TELL, (tenant_id, TEST, now, data))
    connection.execute(_OWE_ONE, (endpoint_id, seq, now, now))
    return seq


async def purge(
    connection: Connection, now: datetime, *, retention: timedelta, most: int, after: Mapping[int, int]
) -> dict[int, int]:
    """Delete what has been over for so long, oldest first; one call looks at `most` of each endpoint. `after`: what the
    call before returned, where there is more to look at and behind which seq; empty: all, from the beginning."""
    before = now - retention
    more: dict[int, int] = {}
    async with connection.cursor(binary=True) as sql:
        await sql.execute(_ENDPOINTS)
        places = after or {id_: 0 for (id_,) in [*await sql.fetchall(), (_OF_EVENTS,)]}
        for id_, seq in places.items():
            which = (seq,) if id_ == _OF_EVENTS else (id_, seq)
            await sql.execute(_PURGE_EVENTS if id_ == _OF_EVENTS else _PURGE, (*which, most, before, most, before))
            for (last,) in await sql.fetchall():
                more[id_] = last
    return more


async def share(connection: Connection) -> int | None:
    """How many endpoints each courier has where all have as many: one at least. None: there is no other courier."""
    async with connection.cursor(binary=True) as sql:
        await sql.execute(_SHARE)
        ((endpoints, couriers),) = await sql.fetchall()
    return max(1, -(-endpoints // couriers)) if couriers > 1 else None


async def alive(connection: Connection) -> None:
    """Say something: a session that says nothing is ended."""
    await connection.execute("SELECT")
