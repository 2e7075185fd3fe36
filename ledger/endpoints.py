"""Webhook endpoints: who wants to be told, of what, and how it goes.

What an endpoint is owed changes under the locks of all partitions and of the cancels, as the registers that drains
read do (ledger.registers): each outcome was decided before the change or after it, and `owed_after` is the last place
in the feed before. So "every outcome that owes a delivery has its row" can be asked of the database, and is
(ledger.audit.webhooks). Secrets come and go sealed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, LiteralString

import psycopg

from ledger import deliveries
from ledger.events import Listener, Outcome, outcome_type
from ledger.feed import CANCELS
from ledger.inbox import PARTITION_LOCKS

ENDPOINTS_MAX = 100  # of one tenant: each is a row per outcome at worst
REPLAY_MAX = 10_000  # outcomes that one call looks at: well under a second
STATS_MAX = 10_000  # the newest deliveries, of which statistics are made: a few hundredths of a second

Ordering = Literal["none", "per_wallet"]
Status = Literal["enabled", "disabled"]
Connection = psycopg.Connection[Any]


@dataclass(slots=True, frozen=True)
class Settings:
    """What its owner chose. `event_types` and `wallets` None: all. `headers`: sealed, their names are not."""

    url: str
    description: str | None
    event_types: list[str] | None
    wallets: list[str] | None
    ordering: Ordering
    max_per_second: int | None
    header_names: list[str]
    headers: bytes | None


@dataclass(slots=True, frozen=True)
class Endpoint:
    id: int
    created_at: datetime
    settings: Settings
    status: Status
    disabled_reason: str | None
    failing_since: datetime | None
    paused_until: datetime | None
    former_until: datetime | None


class TooMany(Exception):
    """The tenant has ENDPOINTS_MAX of them."""


_SETTINGS: LiteralString = "url, description, event_types, wallets, ordering, max_per_second, header_names, headers"
_STATE: LiteralString = "status, disabled_reason, failing_since, paused_until, former_until"
_FIND: LiteralString = f"""
SELECT id, created_at, {_SETTINGS}, {_STATE} FROM webhook_endpoints
WHERE tenant_id = %s AND id = %s AND status <> 'deleted'
"""
_LIST: LiteralString = f"""
SELECT id, created_at, {_SETTINGS}, {_STATE} FROM webhook_endpoints
WHERE tenant_id = %s AND id > %s AND status <> 'deleted' ORDER BY id LIMIT %s
"""
_COUNT: LiteralString = "SELECT count(*) FROM webhook_endpoints WHERE tenant_id = %s AND status <> 'deleted'"
_STOP: LiteralString = """
SELECT count(pg_advisory_xact_lock(%s::int, n)) FROM (
    SELECT n FROM (SELECT partition::int AS n FROM partitions UNION ALL SELECT %s::int) every ORDER BY n
) in_order
"""
_INSERT: LiteralString = f"""
INSERT INTO webhook_endpoints (tenant_id, client_id, {_SETTINGS}, secret, status, owed_after)
SELECT %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, 'enabled', last_value FROM outcome_positions RETURNING id
"""
_LOCK: LiteralString = _FIND + " FOR UPDATE"
_UPDATE: LiteralString = f"""
UPDATE webhook_endpoints SET ({_SETTINGS}) = (%s, %s, %s, %s, %s, %s, %s, %s), status = %s,
       owed_after = CASE WHEN %s THEN (SELECT last_value FROM outcome_positions) ELSE owed_after END
WHERE id = %s
"""
_FORGIVE: LiteralString = """
UPDATE webhook_endpoints SET disabled_reason = NULL, failing_since = NULL, paused_until = NULL WHERE id = %s
"""
_ROTATE: LiteralString = """
UPDATE webhook_endpoints SET former_secret = secret, former_until = now() + %s, secret = %s
WHERE tenant_id = %s AND id = %s AND status <> 'deleted'
"""
_DELETE: LiteralString = """
UPDATE webhook_endpoints SET status = 'deleted', secret = '', former_secret = NULL, headers = NULL
WHERE tenant_id = %s AND id = %s AND status <> 'deleted'
"""


def find(connection: Connection, tenant_id: int, id_: int) -> Endpoint | None:
    row = connection.execute(_FIND, (tenant_id, id_)).fetchone()
    return _endpoint(row) if row else None


def listed(connection: Connection, tenant_id: int, *, after: int, limit: int) -> list[Endpoint]:
    """Oldest first, from behind `after`."""
    return [_endpoint(row) for row in connection.execute(_LIST, (tenant_id, after, limit))]


def create(connection: Connection, tenant_id: int, client_id: int, settings: Settings, secret: bytes) -> Endpoint:
    """It is owed what is decided from the commit on. Raises TooMany."""
    _stop_drains(connection)
    ((there,),) = connection.execute(_COUNT, (tenant_id,))
    if there >= ENDPOINTS_MAX:
        raise TooMany
    ((id_,),) = connection.execute(_INSERT, (tenant_id, client_id, *_columns(settings), secret))
    made = find(connection, tenant_id, id_)
    assert made is not None
    return made


def change(
    connection: Connection,
    tenant_id: int,
    id_: int,
    changed: Callable[[Endpoint], tuple[Settings, Status]],
    *,
    owed: bool,
) -> Endpoint | None:
    """Set what its owner chooses; `changed` is told how it stands. What it is owed by then stays owed. A new URL or
    status begins with a clean slate. None: no such endpoint.

    `owed`: whether what it is owed may change, its event types, wallets or status; only that stops the drains.
    """
    if owed:
        _stop_drains(connection)
    row = connection.execute(_LOCK, (tenant_id, id_)).fetchone()
    if row is None:
        return None
    before = _endpoint(row)
    was, (now, status) = before.settings, changed(before)
    starts_anew = (was.event_types, was.wallets, before.status) != (now.event_types, now.wallets, status)
    assert owed or not starts_anew
    connection.execute(_UPDATE, (*_columns(now), status, starts_anew, id_))
    if (was.url, before.status) != (now.url, status):
        connection.execute(_FORGIVE, (id_,))
    return find(connection, tenant_id, id_)


def rotate(connection: Connection, tenant_id: int, id_: int, secret: bytes, *, overlap: timedelta) -> bool:
    """A new secret, beside which the one before goes on signing for `overlap`. False: no such endpoint."""
    return connection.execute(_ROTATE, (overlap, secret, tenant_id, id_)).rowcount == 1


def delete(connection: Connection, tenant_id: int, id_: int) -> bool:
    """Nothing is sent to it any more, its secrets are gone. False: no such endpoint."""
    return connection.execute(_DELETE, (tenant_id, id_)).rowcount == 1


def _stop_drains(connection: Connection) -> None:
    connection.execute(_STOP, (PARTITION_LOCKS, CANCELS))


def _endpoint(row: Sequence[Any]) -> Endpoint:
    return Endpoint(row[0], row[1], Settings(*row[2:10]), *row[10:])


def _columns(settings: Settings) -> tuple[Any, ...]:
    return (
        settings.url, settings.description, settings.event_types, settings.wallets, settings.ordering,
        settings.max_per_second, settings.header_names, settings.headers,
    )  # fmt: skip


# --- its deliveries ------------------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class Delivery:
    """`at`: of the event. `accepted_at`: of the command whose outcome it is; None: it is no outcome."""

    seq: int
    status: str
    attempts: int
    due_at: datetime | None
    at: datetime
    type: str
    accepted_at: datetime | None


@dataclass(slots=True, frozen=True)
class Attempt:
    n: int
    at: datetime
    status: int | None
    failure: str | None
    detail: str | None
    took_ms: int
    body: str


@dataclass(slots=True, frozen=True)
class Stats:
    """Of the newest STATS_MAX deliveries. `p50_ms` and `p99_ms`: of their attempts that were answered with success."""

    pending: int
    delivered: int
    exhausted: int
    attempts: int
    failures: int
    p50_ms: int | None
    p99_ms: int | None
    oldest_pending_at: datetime | None


_DELIVERIES: LiteralString = """
SELECT d.seq, d.status, d.attempts, d.due_at, d.at, o.status, o.code, e.type, c.accepted_at
FROM (
    SELECT * FROM deliveries
    WHERE endpoint_id = %s AND seq < %s AND seq > %s AND (%s::text IS NULL OR status = %s) ORDER BY seq DESC LIMIT %s
) d
LEFT JOIN outcomes o ON o.seq = d.seq LEFT JOIN commands c ON c.seq = d.seq LEFT JOIN events e ON e.seq = d.seq
ORDER BY d.seq DESC
"""
_ATTEMPTS: LiteralString = """
SELECT n, at, status, failure, detail, took_ms, body FROM attempts WHERE endpoint_id = %s AND seq = %s ORDER BY n
"""
_RESEND: LiteralString = """
UPDATE deliveries SET status = 'pending', due_at = clock_timestamp() WHERE endpoint_id = %s AND seq = %s
"""
_RECOVER: LiteralString = """
UPDATE deliveries SET status = 'pending', due_at = clock_timestamp() WHERE endpoint_id = %s AND seq IN (
    SELECT seq FROM deliveries WHERE endpoint_id = %s AND seq > %s AND status = 'exhausted' ORDER BY seq LIMIT %s
) RETURNING seq
"""
_OUTCOMES: LiteralString = """
SELECT c.seq, c.tenant_id, o.status, o.code, c.wallet, c.to_wallet
FROM (SELECT * FROM commands WHERE seq > %s ORDER BY seq LIMIT %s) c JOIN outcomes o USING (seq) ORDER BY c.seq
"""
_LAST_LOOKED_AT: LiteralString = """
SELECT max(seq), count(*) FROM (SELECT seq FROM commands WHERE seq > %s ORDER BY seq LIMIT %s) c
"""
_STATS: LiteralString = """
WITH newest AS (
    SELECT seq, status, due_at FROM deliveries WHERE endpoint_id = %s ORDER BY seq DESC LIMIT %s
), tried AS (
    SELECT a.failure, a.took_ms FROM attempts a WHERE a.endpoint_id = %s AND a.seq >= (SELECT min(seq) FROM newest)
)
SELECT count(*) FILTER (WHERE status = 'pending'), count(*) FILTER (WHERE status = 'delivered'),
       count(*) FILTER (WHERE status = 'exhausted'),
       (SELECT count(*) FROM tried), (SELECT count(*) FROM tried WHERE failure IS NOT NULL),
       (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY took_ms) FROM tried WHERE failure IS NULL),
       (SELECT percentile_disc(0.99) WITHIN GROUP (ORDER BY took_ms) FROM tried WHERE failure IS NULL),
       (SELECT min(at) FROM deliveries WHERE endpoint_id = %s AND due_at IS NOT NULL)
FROM newest
"""
SEQ_MAX = 2**62 - 1  # ledger.ids


def deliveries_of(
    connection: Connection,
    id_: int,
    *,
    before: int | None,
    limit: int,
    status: str | None = None,
    seq: int | None = None,
) -> list[Delivery]:
    """Newest first; `seq`: only that one."""
    upto, above = (seq + 1, seq - 1) if seq is not None else (before or SEQ_MAX, 0)
    rows = connection.execute(_DELIVERIES, (id_, upto, above, status, status, limit))
    return [
        Delivery(number, state, attempts, due_at, at, type_ or outcome_type(decided, code), accepted_at)
        for number, state, attempts, due_at, at, decided, code, type_, accepted_at in rows
    ]


def attempts_of(connection: Connection, id_: int, seq: int) -> list[Attempt]:
    return [Attempt(*row) for row in connection.execute(_ATTEMPTS, (id_, seq))]


def resend(connection: Connection, id_: int, seq: int) -> bool:
    """Send it again now, whatever became of it. False: it is not there."""
    return connection.execute(_RESEND, (id_, seq)).rowcount == 1


def recover(connection: Connection, id_: int, *, after: int, most: int = REPLAY_MAX) -> tuple[int, int | None]:
    """Send again what was given up, of commands behind `after`; how many, and behind which to go on (None: done)."""
    seqs = [seq for (seq,) in connection.execute(_RECOVER, (id_, id_, after, most))]
    return len(seqs), max(seqs) if len(seqs) == most else None


def replay(
    connection: Connection, tenant_id: int, endpoint: Endpoint, *, after: int, most: int = REPLAY_MAX
) -> tuple[int, int | None]:
    """Owe it the outcomes of commands behind `after` that it wants and has no delivery of; as `recover`."""
    chosen = endpoint.settings
    listener = Listener(
        endpoint.id, tenant_id, chosen.event_types, chosen.wallets, chosen.ordering == "per_wallet"
    )  # fmt: skip
    ((last, looked_at),) = connection.execute(_LAST_LOOKED_AT, (after, most))
    outcomes = [
        Outcome(seq, tenant, outcome_type(status, code), wallet, to_wallet)
        for seq, tenant, status, code, wallet, to_wallet in connection.execute(_OUTCOMES, (after, most))
    ]
    return deliveries.owe(connection, [listener], outcomes), last if looked_at == most else None


def seq_before(connection: Connection, since: datetime) -> int:
    """The seq behind which all commands were accepted at `since` or later, by halving: they are numbered in the order
    in which they were accepted, but for milliseconds."""
    row = connection.execute("SELECT COALESCE(max(seq), 0) FROM commands").fetchone()
    assert row is not None
    low, high = 0, row[0]
    while low < high:
        middle = (low + high + 1) // 2
        accepted = connection.execute(
            "SELECT seq, accepted_at FROM commands WHERE seq >= %s ORDER BY seq LIMIT 1", (middle,)
        ).fetchone()
        if accepted is not None and accepted[1] < since:
            low = middle
        else:
            high = middle - 1
    return low


def stats(connection: Connection, id_: int) -> Stats:
    row = connection.execute(_STATS, (id_, STATS_MAX, id_, id_)).fetchone()
    assert row is not None
    return Stats(*row)
