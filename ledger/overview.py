"""The service at a glance: what waits and where, what comes in and goes out, what was refused, who is at work.

For people who look every second: every read is bounded. Counts of a time are of the newest rows, found by their keys:
nothing here has an index on time that each command would pay for. Everything comes from PostgreSQL, workers too, by
their sessions; what Redis has is not told here. Nothing is committed.
"""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.inbox import PARTITION_LOCKS
from ledger.reads import SCHEMA

PENDING_MAX = 100_000  # pending rows counted in each partition: a few hundredths of a second
RECENT_MAX = 20_000  # the newest commands, transfers, outcomes that are looked at: some 10 ms each
DUE_MAX = 10_000  # deliveries counted for each endpoint

# --- what waits ----------------------------------------------------------------------------------------------------


class Partition(Struct, frozen=True):
    """`pending`: commands, those of groups among them; `more`: there are PENDING_MAX rows or more. `attempts`: the
    most drains that one of them broke. `holder`: the session that has the partition's lock (a drain, or somebody who
    stops them all); `held_s`: for how long its transaction is open, None where this role may not see it."""

    partition: int
    pending: int
    more: bool
    oldest_s: float  # age of the oldest pending command; 0 where none is
    attempts: int
    holder: str | None
    holder_pid: int | None
    held_s: float | None
    last_applied_at: datetime | None  # of the last transfer; None: there is none since the hash chain began


_PARTITIONS = text("""
    SELECT p.partition, COALESCE(q.pending, 0) AS pending, q.rows >= :most AS more,
           COALESCE(GREATEST(extract(epoch FROM clock_timestamp() - (
               SELECT accepted_at FROM commands WHERE seq = q.oldest LIMIT 1
           )), 0), 0)::float AS oldest_s,
           COALESCE(q.attempts, 0) AS attempts, a.application_name AS holder, l.pid AS holder_pid,
           GREATEST(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float AS held_s,
           (SELECT at FROM transfers WHERE partition = p.partition AND position IS NOT NULL
            ORDER BY position DESC LIMIT 1) AS last_applied_at
    FROM partitions p
    CROSS JOIN LATERAL (
        SELECT count(*) AS rows, sum(size) AS pending, min(seq) AS oldest, max(attempts) AS attempts
        FROM (SELECT seq, size, attempts FROM pending WHERE partition = p.partition ORDER BY seq LIMIT :most) waiting
    ) q
    LEFT JOIN pg_locks l ON l.locktype = 'advisory' AND l.granted AND l.classid = :space AND l.objid = p.partition
          AND l.objsubid = 2 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    ORDER BY p.partition
""")


async def partitions(connection: AsyncConnection) -> list[Partition]:
    """Every partition: its backlog, who has it, and when it last applied something."""
    rows = await connection.execute(_PARTITIONS, {"most": PENDING_MAX, "space": PARTITION_LOCKS})
    return [Partition(**row) for row in rows.mappings()]


# --- what comes and goes -------------------------------------------------------------------------------------------


class Rates(Struct, frozen=True):
    """Commands per second, over the last `over_s` seconds, or the time that the newest RECENT_MAX of them took."""

    accepted_per_s: float
    applied_per_s: float
    over_s: float


_RATES = text("""
    WITH now AS (SELECT clock_timestamp() AS now), accepted AS (
        SELECT count(*) AS n, min(accepted_at) AS since FROM (
            SELECT accepted_at FROM commands ORDER BY seq DESC LIMIT :most
        ) newest, now WHERE accepted_at > now - make_interval(secs => :over_s)
    ), applied AS (
        SELECT count(*) AS n, min(t.at) AS since, bool_or(t.n >= :share) AS cut
        FROM partitions p CROSS JOIN now CROSS JOIN LATERAL (
            SELECT at, row_number() OVER () AS n FROM (
                SELECT at FROM transfers WHERE partition = p.partition AND position IS NOT NULL
                ORDER BY position DESC LIMIT :share
            ) newest WHERE at > now - make_interval(secs => :over_s)
        ) t
    )
    SELECT accepted.n / CASE WHEN accepted.n < :most THEN :over_s ELSE
               GREATEST(extract(epoch FROM now - accepted.since)::float, 0.001) END AS accepted_per_s,
           applied.n / CASE WHEN applied.cut IS NOT TRUE THEN :over_s ELSE
               GREATEST(extract(epoch FROM now - applied.since)::float, 0.001) END AS applied_per_s
    FROM accepted, applied, now
""")
_PARTITION_COUNT = text("SELECT count(*) FROM partitions")


async def rates(connection: AsyncConnection, *, over_s: float = 10.0) -> Rates:
    """How fast commands come in and are applied, all tenants together."""
    count = (await connection.execute(_PARTITION_COUNT)).scalar_one()
    which = {"most": RECENT_MAX, "share": RECENT_MAX // count, "over_s": over_s}
    row = (await connection.execute(_RATES, which)).one()
    return Rates(float(row.accepted_per_s), float(row.applied_per_s), over_s)


class Decided(Struct, frozen=True):
    """How many outcomes of a code there are among the newest."""

    status: str
    code: str
    count: int


class Recent(Struct, frozen=True):
    """Outcomes since a time, by code, the most frequent first. `more`: there were more than are counted."""

    decided: list[Decided]
    more: bool


# By the feed's index: the newest of each client in each stream.
_RECENT = text("""
    WITH places AS (
        SELECT c.id AS client_id, s.stream
        FROM (SELECT id FROM clients WHERE CAST(:tenant_id AS integer) IS NULL OR tenant_id = :tenant_id
              UNION ALL SELECT 0 WHERE CAST(:tenant_id AS integer) IS NULL) c
        CROSS JOIN (SELECT partition AS stream FROM partitions UNION ALL SELECT -1) s
    ), share AS (SELECT GREATEST(CAST(:most AS integer) / GREATEST(count(*), 1), 10) AS n FROM places),
    newest AS (
        SELECT o.status, o.code, o.n FROM places p CROSS JOIN LATERAL (
            SELECT status, code, at, row_number() OVER () AS n FROM (
                SELECT status, code, at FROM outcomes
                WHERE client_id = p.client_id AND stream = p.stream AND position IS NOT NULL
                ORDER BY position DESC LIMIT (SELECT n FROM share)
            ) last
        ) o WHERE o.at > clock_timestamp() - make_interval(secs => :over_s)
    )
    SELECT status, code, count(*) AS count, bool_or(n >= (SELECT n FROM share)) AS more
    FROM newest GROUP BY status, code ORDER BY count DESC, code
""")


async def recent(connection: AsyncConnection, tenant_id: int | None, *, over_s: float = 300.0) -> Recent:
    """What became of the commands that were decided within the last `over_s` seconds. `tenant_id` None: of all."""
    which = {"tenant_id": tenant_id, "most": RECENT_MAX, "over_s": over_s}
    rows = (await connection.execute(_RECENT, which)).mappings().all()
    decided = [Decided(row["status"], row["code"], row["count"]) for row in rows]
    return Recent(decided, any(row["more"] for row in rows))


# --- who is told ---------------------------------------------------------------------------------------------------


class Webhooks(Struct, frozen=True):
    """`failing`: endpoints whose last attempts all failed. `due`: deliveries whose time has come, counted up to DUE_MAX
    of each endpoint; `overdue_s`: for how long the oldest has been due at an endpoint that is well."""

    enabled: int
    disabled: int
    failing: int
    due: int
    waiting: int  # for another attempt
    exhausted: int
    overdue_s: float


_WEBHOOKS = text("""
    SELECT count(*) FILTER (WHERE e.status = 'enabled') AS enabled,
           count(*) FILTER (WHERE e.status = 'disabled') AS disabled,
           count(*) FILTER (WHERE e.status = 'enabled' AND e.failing_since IS NOT NULL) AS failing,
           COALESCE(sum(d.due) FILTER (WHERE e.status = 'enabled'), 0)::bigint AS due,
           COALESCE(sum(d.waiting) FILTER (WHERE e.status = 'enabled'), 0)::bigint AS waiting,
           COALESCE(sum(d.exhausted), 0)::bigint AS exhausted,
           COALESCE(max(d.overdue_s) FILTER (
               WHERE e.status = 'enabled' AND e.failing_since IS NULL
                 AND (e.paused_until IS NULL OR e.paused_until < clock_timestamp())
           ), 0)::float AS overdue_s
    FROM webhook_endpoints e CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE due_at <= clock_timestamp()) AS due,
               count(*) FILTER (WHERE due_at > clock_timestamp()) AS waiting,
               max(extract(epoch FROM clock_timestamp() - due_at)) FILTER (WHERE due_at <= clock_timestamp())
                   AS overdue_s,
               (SELECT count(*) FROM (
                    SELECT FROM deliveries WHERE endpoint_id = e.id AND status = 'exhausted' LIMIT :most
                ) x) AS exhausted
        FROM (
            (SELECT due_at FROM deliveries WHERE endpoint_id = e.id AND due_at IS NOT NULL AND lane IS NULL
             ORDER BY due_at LIMIT :most)
            UNION ALL
            (SELECT due_at FROM deliveries WHERE endpoint_id = e.id AND due_at IS NOT NULL AND lane IS NOT NULL
             LIMIT :most)
        ) waiting
    ) d
    WHERE e.status <> 'deleted' AND (CAST(:tenant_id AS integer) IS NULL OR e.tenant_id = :tenant_id)
""")


async def webhooks(connection: AsyncConnection, tenant_id: int | None) -> Webhooks:
    """How the deliveries of webhooks stand. `tenant_id` None: of all tenants."""
    row = (await connection.execute(_WEBHOOKS, {"tenant_id": tenant_id, "most": DUE_MAX})).mappings().one()
    return Webhooks(**row)


# --- who is at work ------------------------------------------------------------------------------------------------


class Sessions(Struct, frozen=True):
    """Sessions of one kind of process: `bursar-worker`, `bursar-api`, `bursar-courier` … A worker process has one or
    two, one of them from half a second after its start."""

    application: str
    count: int


class Database(Struct, frozen=True):
    """PostgreSQL. `schema`: the revision it is at, empty for none; `schema_needed`: this version's."""

    version: str
    schema: str
    schema_needed: str
    connections: int
    connections_max: int
    sessions: Sequence[Sessions]

    def count(self, application: str) -> int:
        return next((each.count for each in self.sessions if each.application == application), 0)


_DATABASE = text("""
    SELECT current_setting('server_version') AS version, (SELECT max(version_num) FROM alembic_version) AS schema,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' OR backend_type IS NULL)
               AS connections,
           current_setting('max_connections')::int AS connections_max
""")
_SESSIONS = text("""
    SELECT application_name AS application, count(*) AS count FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'bursar-%' GROUP BY 1 ORDER BY 1
""")


async def database(connection: AsyncConnection) -> Database:
    """PostgreSQL itself, and who is connected to this database."""
    row = (await connection.execute(_DATABASE)).one()
    sessions = [Sessions(**each) for each in (await connection.execute(_SESSIONS)).mappings()]
    return Database(row.version, row.schema or "", SCHEMA, row.connections, row.connections_max, sessions)
