"""Reading what a receipt is made of: an applied command's transfer, as it stands in the hash chain."""

from datetime import datetime

from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


class Line(Struct, frozen=True):
    """An entry, with what clients call its account."""

    account_id: int
    version: int
    asset_id: int
    amount: int  # signed
    balance_after: int
    held_after: int
    wallet: str
    asset: str


class Link(Struct, frozen=True):
    """A transfer and its place in the chain of its partition; `position` None: it is from before the chain."""

    seq: int
    tenant_id: int
    partition: int
    at: datetime
    position: int | None
    hash: bytes | None
    previous_hash: bytes | None
    request_hash: bytes
    lines: list[Line]


_LINK = text("""
    SELECT t.seq, t.tenant_id, t.partition, t.at, t.position, t.hash, c.request_hash,
           CASE t.position WHEN 1 THEN decode(repeat('00', 32), 'hex') ELSE before.hash END AS previous_hash
    FROM transfers t JOIN commands c USING (seq)
    LEFT JOIN transfers before ON before.partition = t.partition AND before.position = t.position - 1
    WHERE t.seq = :seq
""")
_LINES = text("""
    SELECT e.account_id, e.version, e.asset_id, e.amount, e.balance_after, e.held_after, w.code AS wallet,
           s.code AS asset
    FROM entries e JOIN accounts a ON a.id = e.account_id JOIN wallets w ON w.id = a.wallet_id
    JOIN assets s ON s.id = e.asset_id WHERE e.seq = :seq ORDER BY e.account_id
""")


async def link(connection: AsyncConnection, seq: int) -> Link | None:
    """The transfer of a command; None: it has none. Whose it is, the caller has checked."""
    row = (await connection.execute(_LINK, {"seq": seq})).mappings().one_or_none()
    if row is None:
        return None
    lines = [Line(**line) for line in (await connection.execute(_LINES, {"seq": seq})).mappings()]
    return Link(**row, lines=lines)
