"""Finding things by whatever of them somebody has in his hand: part of a wallet's id, a key, a reference; and what is
known of a command besides its outcome. For the dashboard; each function reads a bounded number of rows by an index.
"""

from datetime import datetime

from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

CLIENTS_MAX = 1_000  # of a tenant, that an idempotency key is looked up for: a lookup each, some 5 ms

_WALLETS = text("""
    SELECT code FROM wallets
    WHERE tenant_id = :tenant_id AND code >= :prefix AND starts_with(code, :prefix) AND code NOT LIKE '@%'
    ORDER BY code LIMIT :limit
""")
_BY_KEY = text("""
    SELECT c.seq FROM (SELECT id FROM clients WHERE tenant_id = :tenant_id ORDER BY id LIMIT :clients) k
    CROSS JOIN LATERAL (SELECT seq FROM commands WHERE client_id = k.id AND idempotency_key = :key LIMIT 1) c
    ORDER BY c.seq DESC LIMIT :limit
""")
_BY_REFERENCE = text("SELECT commands_of_reference(:tenant_id, :reference, :limit)")


async def wallets_like(connection: AsyncConnection, tenant_id: int, prefix: str, *, limit: int) -> list[str]:
    """Ids of the tenant's wallets that begin so."""
    return list(await connection.scalars(_WALLETS, {"tenant_id": tenant_id, "prefix": prefix, "limit": limit}))


async def commands_by_key(connection: AsyncConnection, tenant_id: int, key: str, *, limit: int) -> list[int]:
    """Seqs of the commands that any of the tenant's clients sent under this idempotency key."""
    which = {"tenant_id": tenant_id, "key": key, "clients": CLIENTS_MAX, "limit": limit}
    return list(await connection.scalars(_BY_KEY, which))


async def commands_by_reference(
    connection: AsyncConnection, tenant_id: int, reference: str, *, limit: int
) -> list[int]:
    """Seqs of the tenant's commands with this reference."""
    which = {"tenant_id": tenant_id, "reference": reference, "limit": limit}
    return list(await connection.scalars(_BY_REFERENCE, which))


# --- of one command --------------------------------------------------------------------------------------------------


class Told(Struct, frozen=True):
    """A delivery of a command's outcome, and one attempt at it (None: there was none yet)."""

    endpoint_id: int
    endpoint_created_at: datetime
    url: str
    seq: int
    at: datetime
    status: str
    attempts: int
    due_at: datetime | None
    tried_at: datetime | None
    answer: int | None
    failure: str | None
    took_ms: int | None


_TOLD = text("""
    SELECT e.id, e.created_at, e.url, d.seq, d.at, d.status, d.attempts, d.due_at,
           a.at AS tried_at, a.status AS answer, a.failure, a.took_ms
    FROM webhook_endpoints e
    CROSS JOIN LATERAL (SELECT * FROM deliveries WHERE endpoint_id = e.id AND seq = :seq LIMIT 1) d
    LEFT JOIN LATERAL (
        SELECT at, status, failure, took_ms FROM attempts WHERE endpoint_id = e.id AND seq = d.seq ORDER BY n LIMIT 50
    ) a ON true
    WHERE e.tenant_id = :tenant_id AND e.status <> 'deleted' ORDER BY e.id, a.at LIMIT 500
""")
_CLIENT = text("SELECT name FROM clients WHERE id = :id AND tenant_id = :tenant_id")


async def told(connection: AsyncConnection, tenant_id: int, seq: int) -> list[Told]:
    """Deliveries and attempts of a command's outcome, endpoint by endpoint."""
    rows = await connection.execute(_TOLD, {"tenant_id": tenant_id, "seq": seq})
    return [Told(*row) for row in rows]


async def client_name(connection: AsyncConnection, tenant_id: int, client_id: int) -> str | None:
    """Who sent it; None: the ledger itself."""
    return await connection.scalar(_CLIENT, {"tenant_id": tenant_id, "id": client_id})
