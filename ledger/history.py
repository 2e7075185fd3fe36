"""Reading what was: entries and transfers. Like ledger.reads, each function takes a connection and commits nothing."""

from collections.abc import Mapping
from datetime import datetime

from msgspec import Struct
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.ids import Kind, parse_id, unix_ms


class Entry(Struct, frozen=True):
    """One line of the journal. A system wallet's shard is not its balance: its `version` and `balance_after` are
    those of the shard."""

    account_id: int
    wallet: str
    shard: int
    asset: str
    amount: int  # signed
    balance_after: int
    version: int
    at: datetime
    seq: int
    type: str
    accepted_at: datetime
    reference: str | None
    metadata: str | None  # JSON text

    @property
    def id(self) -> str:
        """Made of names: no wallet id or asset code has a slash in it."""
        shard = f"{self.shard}." if self.wallet.startswith("@") else ""
        return f"{self.wallet}/{self.asset}/{shard}{self.version}"


_ENTRY = """
    e.account_id, w.code AS wallet, a.shard, s.code AS asset, e.amount, e.balance_after, e.version, e.at, e.seq,
    c.type, c.accepted_at, c.reference, c.metadata::text
"""
# The newest of each account, below where the last page ended: every account's own order is read from its own key.
_ENTRIES = text(f"""
    SELECT {_ENTRY}
    FROM wallets w JOIN accounts a ON a.wallet_id = w.id JOIN assets s ON s.id = a.asset_id
    LEFT JOIN unnest(CAST(:account_ids AS bigint[]), CAST(:versions AS bigint[])) AS p (account_id, version)
      ON p.account_id = a.id
    CROSS JOIN LATERAL (
        SELECT * FROM entries
        WHERE account_id = a.id AND version < COALESCE(p.version, CASE WHEN :first THEN 9223372036854775807 END)
        ORDER BY version DESC LIMIT :limit
    ) e
    CROSS JOIN LATERAL (SELECT * FROM commands WHERE seq = e.seq LIMIT 1) c
    WHERE w.tenant_id = :tenant_id AND w.code = :code
    ORDER BY e.account_id, e.version
""")

Position = Mapping[int, int]  # account id → the version above which its entries have been read


async def entries(
    connection: AsyncConnection, tenant_id: int, code: str, *, after: Position | None, limit: int
) -> tuple[list[Entry], Position]:
    """A wallet's entries, newest first, and where to go on (empty: nowhere). `after` None: from the newest.

    Each account's entries come in the order of its versions; accounts are merged by time. What is written between two
    pages is newer than both, so no page repeats or skips an entry.
    """
    which = {"tenant_id": tenant_id, "code": code, "first": after is None, "limit": limit + 1}
    where = {"account_ids": list(after or {}), "versions": list((after or {}).values())}
    rows = (await connection.execute(_ENTRIES, which | where)).mappings()
    heads: dict[int, list[Entry]] = {}  # account id → its entries, the newest last
    for row in rows:
        heads.setdefault(row["account_id"], []).append(Entry(**row))
    page: list[Entry] = []
    position: dict[int, int] = {}
    while heads and len(page) < limit:
        newest = max(heads, key=lambda account_id: (heads[account_id][-1].at, heads[account_id][-1].seq))
        entry = heads[newest].pop()
        page.append(entry)
        position[newest] = entry.version
        if not heads[newest]:
            del heads[newest], position[newest]
    # An account that this page did not reach goes on from its newest entry.
    position |= {account_id: left[-1].version + 1 for account_id, left in heads.items() if account_id not in position}
    return page, position


class Transfer(Struct, frozen=True):
    seq: int
    at: datetime
    entries: list[Entry]


_TRANSFER = text(f"""
    SELECT t.at AS transferred_at, {_ENTRY}
    FROM transfers t JOIN commands c ON c.seq = t.seq JOIN entries e ON e.seq = t.seq
    JOIN accounts a ON a.id = e.account_id JOIN wallets w ON w.id = a.wallet_id JOIN assets s ON s.id = a.asset_id
    WHERE t.tenant_id = :tenant_id AND t.seq = :seq
    ORDER BY e.amount, e.account_id
""")


async def transfer(connection: AsyncConnection, tenant_id: int, public_id: str) -> Transfer | None:
    """A transfer with all its entries, debits first, by the id that clients see."""
    name = parse_id(Kind.TRANSFER, public_id)
    if name is None:
        return None
    seq, at_ms = name
    rows = (await connection.execute(_TRANSFER, {"tenant_id": tenant_id, "seq": seq})).mappings().all()
    if not rows or unix_ms(rows[0]["transferred_at"]) != at_ms:
        return None
    lines = [Entry(**{name: value for name, value in row.items() if name != "transferred_at"}) for row in rows]
    return Transfer(seq, rows[0]["transferred_at"], lines)
