"""Reading holds. Like ledger.reads, each function takes a connection and commits nothing."""

from datetime import datetime

from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.ids import Kind, parse_id, unix_ms


class Hold(Struct, frozen=True):
    """Minor units. `seq` and `accepted_at` are of the hold command, whose id is the hold's."""

    seq: int
    accepted_at: datetime
    wallet: str
    asset: str
    status: str
    amount: int
    remaining: int  # still held
    captured: int
    expires_at: datetime
    ended_at: datetime | None
    reference: str | None
    metadata: str | None  # JSON text


_HOLD = """
    h.seq, c.accepted_at, w.code AS wallet, s.code AS asset, h.status, h.amount, h.remaining, h.captured, h.expires_at,
    h.ended_at, c.reference, c.metadata::text
"""
# The newest of each account, from its own index: the wallet's page is among them.
_HOLDS = f"""
    SELECT {_HOLD}
    FROM wallets w JOIN accounts a ON a.wallet_id = w.id JOIN assets s ON s.id = a.asset_id
    CROSS JOIN LATERAL (
        SELECT * FROM holds WHERE account_id = a.id AND seq < :before {{status}} ORDER BY seq DESC LIMIT :limit
    ) h
    CROSS JOIN LATERAL (SELECT * FROM commands WHERE seq = h.seq LIMIT 1) c
    WHERE w.tenant_id = :tenant_id AND w.code = :code
    ORDER BY h.seq DESC LIMIT :limit
"""
_ALL = text(_HOLDS.format(status=""))
_OPEN = text(_HOLDS.format(status="AND status = 'open'"))
_ONE = text(f"""
    SELECT {_HOLD}
    FROM holds h JOIN commands c ON c.seq = h.seq JOIN accounts a ON a.id = h.account_id
    JOIN wallets w ON w.id = a.wallet_id JOIN assets s ON s.id = a.asset_id
    WHERE h.seq = :seq AND c.tenant_id = :tenant_id
""")
_NEWEST = 2**63 - 1


async def holds(
    connection: AsyncConnection, tenant_id: int, wallet: str, *, open_only: bool, before: int | None, limit: int
) -> list[Hold]:
    """A wallet's holds, newest first. `before`: the seq of the last one seen. One past its time is open until its
    credits are given back, within two seconds."""
    which = {"tenant_id": tenant_id, "code": wallet, "before": before or _NEWEST, "limit": limit}
    rows = await connection.execute(_OPEN if open_only else _ALL, which)
    return [Hold(**row) for row in rows.mappings()]


async def hold(connection: AsyncConnection, tenant_id: int, public_id: str) -> Hold | None:
    """By the id of the hold command. None: no such command, or it is not a hold that was placed."""
    name = parse_id(Kind.COMMAND, public_id)
    if name is None:
        return None
    seq, at_ms = name
    row = (await connection.execute(_ONE, {"seq": seq, "tenant_id": tenant_id})).mappings().one_or_none()
    return Hold(**row) if row is not None and unix_ms(row["accepted_at"]) == at_ms else None
