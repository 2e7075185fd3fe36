"""One command's life, and which ones wait: for whoever asks what became of it. Reads, as ledger.reads has them."""

from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.history import Entry
from ledger.ids import Kind, command_id, parse_id, requeue_key, unix_ms
from ledger.outcomes import STATES, CommandState

KEYS_MAX = 10  # commands of several clients under one key that are named


class Several(Exception):
    """More than one client has sent a command under this key; the argument names the commands and their clients."""


class Attempt(Struct, frozen=True):
    """One try to deliver the outcome. `status`: of the answer; None: there was none. `failure` None: delivered."""

    n: int
    at: datetime
    status: int | None
    failure: str | None
    detail: str | None
    took_ms: int


class Delivery(Struct, frozen=True):
    endpoint_id: int
    endpoint_created_at: datetime
    status: str
    due_at: datetime | None
    attempts: list[Attempt]


class Timeline(Struct, frozen=True):
    """`attempts`: drains that it broke while it was pending. `group`: the seqs of its atomic batch, itself among them.
    `requeued_as`: (seq, accepted_at) of the command that retries it. `by`, `reason`: who requeued what this one
    repeats, and why."""

    state: CommandState
    tenant: str
    client: str | None  # None: the ledger's own
    attempts: int
    group: list[int]
    entries: list[Entry]
    deliveries: list[Delivery]
    requeued_as: tuple[int, datetime] | None
    by: str | None
    reason: str | None


_FIND_KEY = text("""
    SELECT c.seq, c.accepted_at, l.name AS client, t.code AS tenant
    FROM (SELECT id, name, tenant_id FROM clients UNION ALL SELECT 0, 'the ledger', NULL) l
    CROSS JOIN LATERAL (SELECT * FROM commands WHERE client_id = l.id AND idempotency_key = :key LIMIT 1) c
    JOIN tenants t ON t.id = c.tenant_id
    WHERE (CAST(:tenant_id AS integer) IS NULL OR c.tenant_id = :tenant_id)
      AND (CAST(:client AS text) IS NULL OR l.name = :client)
    ORDER BY c.seq LIMIT :most
""")
_ACCEPTED_AT = text("""
    SELECT c.accepted_at, COALESCE(o.at, c.accepted_at) AS at FROM commands c LEFT JOIN outcomes o USING (seq)
    WHERE c.seq = :seq AND (CAST(:tenant_id AS integer) IS NULL OR c.tenant_id = :tenant_id)
""")


async def find(connection: AsyncConnection, tenant_id: int | None, name: str, *, client: str | None = None) -> int:
    """The seq of the command that has this id, or whose transfer or event has it, or that came under this key.

    `tenant_id` None: of whatever tenant; `client`: whose key. Raises LookupError, Several.
    """
    for kind in (Kind.COMMAND, Kind.TRANSFER, Kind.EVENT):
        if (parsed := parse_id(kind, name)) is not None:
            seq, at_ms = parsed
            row = (await connection.execute(_ACCEPTED_AT, {"seq": seq, "tenant_id": tenant_id})).one_or_none()
            if row is None or unix_ms(row.accepted_at if kind is Kind.COMMAND else row.at) != at_ms:
                raise LookupError(f"no command has the id {name}")
            return seq
    which = {"key": name, "tenant_id": tenant_id, "client": client, "most": KEYS_MAX}
    found = (await connection.execute(_FIND_KEY, which)).all()
    if not found:
        raise LookupError(f"no command has the id or the idempotency key {name!r}")
    if len(found) > 1:
        raise Several(
            ", ".join(f"{command_id(row.seq, row.accepted_at)} ({row.tenant}: {row.client})" for row in found)
        )
    return found[0].seq


_CLIENT = text("SELECT id FROM clients WHERE tenant_id = :tenant_id AND name = :name")


async def client_id(connection: AsyncConnection, tenant_id: int, name: str) -> int:
    """Raises LookupError."""
    found = (await connection.execute(_CLIENT, {"tenant_id": tenant_id, "name": name})).scalar_one_or_none()
    if found is None:
        raise LookupError(f"the tenant has no client {name!r}")
    return found


_STATE = text(f"""
    SELECT s.*, t.code AS tenant, l.name AS client, COALESCE((
        SELECT attempts FROM pending WHERE partition = s.partition AND seq = COALESCE(s.group_seq, s.seq)
    ), 0) AS attempts
    FROM ({STATES.replace("r.accepted_at", "r.accepted_at AS ref_accepted_at")} WHERE c.seq = :seq) s
    JOIN tenants t ON t.id = s.tenant_id LEFT JOIN clients l ON l.id = s.client_id
""")
_STATE_COLUMNS = len(CommandState.__struct_fields__)
_GROUP = text("SELECT seq FROM commands WHERE group_seq = :group_seq ORDER BY seq")
_ENTRIES = text("""
    SELECT e.account_id, w.code AS wallet, a.shard, s.code AS asset, e.amount, e.balance_after, e.held_after, e.version,
           e.at, e.seq, c.type, c.accepted_at, c.reference, c.metadata::text
    FROM entries e JOIN commands c ON c.seq = e.seq JOIN accounts a ON a.id = e.account_id
    JOIN wallets w ON w.id = a.wallet_id JOIN assets s ON s.id = a.asset_id
    WHERE e.seq = :seq ORDER BY e.amount, e.account_id
""")
_DELIVERIES = text("""
    SELECT d.endpoint_id, w.created_at AS endpoint_created_at, d.status, d.due_at
    FROM webhook_endpoints w CROSS JOIN LATERAL (
        SELECT * FROM deliveries WHERE endpoint_id = w.id AND seq = :seq LIMIT 1
    ) d WHERE w.tenant_id = :tenant_id ORDER BY w.id
""")
_ATTEMPTS = text("""
    SELECT endpoint_id, n, at, status, failure, detail, took_ms FROM attempts
    WHERE endpoint_id = ANY(CAST(:endpoint_ids AS integer[])) AND seq = :seq ORDER BY endpoint_id, n
""")
_RETRY = text("SELECT seq, accepted_at FROM commands WHERE client_id = :client_id AND idempotency_key = :key")
_AUTHOR = text("""
    SELECT COALESCE(l.name, 'command line') AS client, h.reason FROM changes h LEFT JOIN clients l ON l.id = h.client_id
    WHERE h.tenant_id = :tenant_id AND h.wallet = :wallet AND h.member = 'requeue' AND h.seq = :seq
    ORDER BY h.id DESC LIMIT 1
""")


async def timeline(connection: AsyncConnection, seq: int) -> Timeline:
    """All that is known of a command. Raises LookupError."""
    row = (await connection.execute(_STATE, {"seq": seq})).one_or_none()
    if row is None:
        raise LookupError(f"no command {seq}")
    state = CommandState(*row[:_STATE_COLUMNS])
    group: Sequence[int] = [seq]
    if state.group_seq is not None:
        group = (await connection.execute(_GROUP, {"group_seq": state.group_seq})).scalars().all()
    entries = [Entry(*entry) for entry in await connection.execute(_ENTRIES, {"seq": seq})]
    retry = {"client_id": state.client_id, "key": requeue_key(command_id(seq, state.accepted_at))}
    again = (await connection.execute(_RETRY, retry)).one_or_none() if state.status == "failed" else None
    which = {"tenant_id": state.tenant_id, "wallet": state.wallet, "seq": seq}
    author = (await connection.execute(_AUTHOR, which)).one_or_none() if state.options is not None else None
    return Timeline(
        state,
        row.tenant,
        row.client,
        row.attempts,
        list(group),
        entries,
        await _deliveries(connection, state.tenant_id, seq),
        (again.seq, again.accepted_at) if again is not None else None,
        author.client if author is not None else None,
        author.reason if author is not None else None,
    )


async def _deliveries(connection: AsyncConnection, tenant_id: int, seq: int) -> list[Delivery]:
    rows = (await connection.execute(_DELIVERIES, {"seq": seq, "tenant_id": tenant_id})).all()
    which = {"endpoint_ids": [row.endpoint_id for row in rows], "seq": seq}
    attempts: dict[int, list[Attempt]] = {}
    for endpoint_id, *attempt in (await connection.execute(_ATTEMPTS, which)).all() if rows else ():
        attempts.setdefault(endpoint_id, []).append(Attempt(*attempt))
    return [
        Delivery(row.endpoint_id, row.endpoint_created_at, row.status, row.due_at, attempts.get(row.endpoint_id, []))
        for row in rows
    ]


async def states(connection: AsyncConnection, seqs: Sequence[int]) -> dict[int, CommandState]:
    """These commands and where they stand, of whatever tenant."""
    rows = await connection.execute(_STATES, {"seqs": list(seqs)})
    return {row[0]: CommandState(*row) for row in rows}


_STATES = text(f"{STATES} WHERE c.seq = ANY(CAST(:seqs AS bigint[]))")
_PARTITION_NUMBERS = text("SELECT partition FROM partitions ORDER BY partition")
_TENANTS = text("SELECT id, code FROM tenants ORDER BY id")


async def partition_numbers(connection: AsyncConnection) -> Sequence[int]:
    return (await connection.execute(_PARTITION_NUMBERS)).scalars().all()


async def tenants(connection: AsyncConnection) -> list[tuple[int, str]]:
    """(id, code) of each."""
    return [(row.id, row.code) for row in await connection.execute(_TENANTS)]


# --- what waits ----------------------------------------------------------------------------------------------------


class Waiting(Struct, frozen=True):
    """A pending command; of a group, its first one. `size`: how many commands are queued with it."""

    seq: int
    partition: int
    attempts: int
    size: int
    tenant: str
    client: str | None
    type: str
    wallet: str | None
    asset: str | None
    amount: int | None
    accepted_at: datetime

    @property
    def id(self) -> str:
        return command_id(self.seq, self.accepted_at)


_PENDING = text("""
    SELECT q.seq, q.partition, q.attempts, q.size, t.code AS tenant, l.name AS client, c.type, c.wallet, c.asset,
           c.amount, c.accepted_at
    FROM partitions p
    CROSS JOIN LATERAL (SELECT * FROM pending WHERE partition = p.partition ORDER BY seq LIMIT :limit) q
    CROSS JOIN LATERAL (SELECT * FROM commands WHERE seq = q.seq LIMIT 1) c
    JOIN tenants t ON t.id = c.tenant_id LEFT JOIN clients l ON l.id = c.client_id
    WHERE CAST(:tenant_id AS integer) IS NULL OR c.tenant_id = :tenant_id
    ORDER BY q.seq LIMIT :limit
""")


async def pending(connection: AsyncConnection, tenant_id: int | None, *, limit: int) -> list[Waiting]:
    """What waits, oldest first: of a tenant those among the oldest `limit` of each partition. None: of all tenants."""
    rows = await connection.execute(_PENDING, {"tenant_id": tenant_id, "limit": limit})
    return [Waiting(**row) for row in rows.mappings()]
