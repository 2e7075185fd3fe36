"""Reading the books. Each function takes a connection, asks one statement where one snapshot matters, commits nothing.

System wallets (@treasury, @bonus, @revenue) are no one's to read as wallets: they stand in no list and under no id.
What they hold is told by the supply, and by the entries of transfers. What was, is read by ledger.history.
"""

from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.commands import BONUS, DEBIT_TYPES, REVENUE, TREASURY
from ledger.registers import ASSET_COLUMNS, Asset, asset_of

# The migration that this version of the code needs. A newer schema serves it too: migrations go before the code.
SCHEMA = "0012"


# --- wallets -------------------------------------------------------------------------------------------------------


class Account(Struct, frozen=True):
    """Minor units. `queued`: debits among the wallet's own pending commands; a reversal of what another wallet sent
    here waits in that one's queue. `available` is below zero where not all of them can succeed."""

    asset: str
    posted: int
    held: int
    queued: int
    version: int

    @property
    def available(self) -> int:
        return self.posted - self.held - self.queued


class Wallet(Struct, frozen=True):
    id: str
    status: str
    name: str | None
    metadata: str  # JSON text: nobody here looks inside
    created_at: datetime
    accounts: list[Account]


# One statement, so one snapshot: a command is either queued or in the balance, never both, never neither.
# LIMIT 1 on a unique key changes no row: it keeps the planner, which knows little of a table as restless as `pending`,
# from reading all commands instead of the pending ones. A row of `pending` with a size above 1 is a group, under its
# first command. A reversal takes back what its command credited: never more than that, and all of it unless it says.
_WALLETS = """
WITH page AS (
    SELECT id, code, status, name, metadata::text, created_at FROM wallets
    WHERE tenant_id = :tenant_id AND {which}
), waiting AS (
    SELECT c.wallet, c.asset, c.type, c.amount, c.ref_seq
    FROM pending q CROSS JOIN LATERAL (
        (SELECT * FROM commands WHERE seq = q.seq LIMIT 1)
        UNION ALL SELECT * FROM commands WHERE q.size > 1 AND group_seq = q.seq AND seq > q.seq
    ) c
    WHERE q.partition = ANY(CAST(:partitions AS smallint[]))
      AND c.tenant_id = :tenant_id AND c.type = ANY(:debits) AND c.wallet IN (SELECT code FROM page)
), queued AS (
    SELECT wallet, asset, sum(amount)::bigint AS queued FROM (
        SELECT wallet, asset, CASE type WHEN 'adjust' THEN GREATEST(-amount, 0) ELSE amount END AS amount
        FROM waiting WHERE type <> 'reverse'
        UNION ALL
        SELECT w.wallet, w.asset, LEAST(COALESCE(NULLIF(w.amount, 0), o.amount), o.amount - COALESCE(r.reversed, 0))
        FROM waiting w CROSS JOIN LATERAL (SELECT * FROM commands WHERE seq = w.ref_seq LIMIT 1) o
        LEFT JOIN LATERAL (SELECT reversed FROM reversals WHERE seq = w.ref_seq LIMIT 1) r ON true
        WHERE w.type = 'reverse' AND o.type IN ('top_up', 'bonus', 'adjust') AND o.amount > 0
    ) AS debit
    GROUP BY wallet, asset
), balance AS (
    SELECT p.code AS wallet, s.code AS asset, a.posted, a.held, a.version
    FROM page p JOIN accounts a ON a.wallet_id = p.id JOIN assets s ON s.id = a.asset_id
)
SELECT p.code, p.status, p.name, p.metadata, p.created_at, asset,
       COALESCE(posted, 0) AS posted, COALESCE(held, 0) AS held, COALESCE(queued, 0) AS queued,
       COALESCE(version, 0) AS version
FROM page p LEFT JOIN (balance FULL JOIN queued USING (wallet, asset)) AS account ON account.wallet = p.code
ORDER BY p.code, asset
"""
_QUEUED = [*DEBIT_TYPES, "reverse"]  # types that may debit their own wallet
_WALLET = text(_WALLETS.format(which="code = :code"))
_WALLET_PAGE = text(_WALLETS.format(which="code > :after AND code NOT LIKE '@%' ORDER BY code LIMIT :limit"))


async def wallet(connection: AsyncConnection, tenant_id: int, code: str, *, partition: int) -> Wallet | None:
    """One wallet with its balances; `partition` is where its commands are drained (ledger.partitions)."""
    which = {"tenant_id": tenant_id, "code": code, "partitions": [partition], "debits": _QUEUED}
    found = _wallets((await connection.execute(_WALLET, which)).mappings())
    return found[0] if found else None


async def wallets(
    connection: AsyncConnection, tenant_id: int, *, after: str, limit: int, partitions: int
) -> list[Wallet]:
    """The next wallets by id, with their balances. `after`: the id of the last one seen, or empty."""
    which = {"tenant_id": tenant_id, "after": after, "limit": limit, "debits": _QUEUED}
    rows = await connection.execute(_WALLET_PAGE, {**which, "partitions": list(range(partitions))})
    return _wallets(rows.mappings())


_WALLET_EXISTS = text("SELECT EXISTS (SELECT 1 FROM wallets WHERE tenant_id = :tenant_id AND code = :code)")


async def wallet_exists(connection: AsyncConnection, tenant_id: int, code: str) -> bool:
    return (await connection.execute(_WALLET_EXISTS, {"tenant_id": tenant_id, "code": code})).scalar_one()


def _wallets(rows: Iterable[RowMapping]) -> list[Wallet]:
    found: dict[str, Wallet] = {}
    for row in rows:
        shown = found.get(row["code"])
        if shown is None:
            shown = found[row["code"]] = Wallet(
                row["code"], row["status"], row["name"], row["metadata"], row["created_at"], []
            )
        if row["asset"] is not None:
            account = Account(row["asset"], row["posted"], row["held"], row["queued"], row["version"])
            shown.accounts.append(account)
    return list(found.values())


# --- assets and supply ---------------------------------------------------------------------------------------------

_ASSETS = text(f"""
    SELECT {ASSET_COLUMNS} FROM assets
    WHERE tenant_id = :tenant_id AND code > :after ORDER BY code LIMIT :limit
""")


async def assets(connection: AsyncConnection, tenant_id: int, *, after: str, limit: int) -> list[Asset]:
    """The next assets by code. `after`: the code of the last one seen, or empty."""
    rows = await connection.execute(_ASSETS, {"tenant_id": tenant_id, "after": after, "limit": limit})
    return [asset_of(*row) for row in rows]


_ASSET_EXISTS = text("SELECT EXISTS (SELECT 1 FROM assets WHERE tenant_id = :tenant_id AND code = :code)")


async def asset_exists(connection: AsyncConnection, tenant_id: int, code: str) -> bool:
    return (await connection.execute(_ASSET_EXISTS, {"tenant_id": tenant_id, "code": code})).scalar_one()


class Supply(Struct, frozen=True):
    """Minor units. `issued`: topped up and given; `spent`: come back as revenue."""

    asset: str
    issued: int
    spent: int

    @property
    def in_circulation(self) -> int:
        return self.issued - self.spent


_SUPPLY = text("""
    SELECT s.code AS asset,
           COALESCE(-sum(a.posted) FILTER (WHERE w.code = ANY(:sources)), 0) AS issued,
           COALESCE(sum(a.posted) FILTER (WHERE w.code = :revenue), 0) AS spent
    FROM (SELECT id, code FROM assets WHERE tenant_id = :tenant_id AND code > :after ORDER BY code LIMIT :limit) s
    LEFT JOIN wallets w ON w.tenant_id = :tenant_id AND (w.code = ANY(:sources) OR w.code = :revenue)
    LEFT JOIN accounts a ON a.wallet_id = w.id AND a.asset_id = s.id
    GROUP BY s.code ORDER BY s.code
""")


async def supply(connection: AsyncConnection, tenant_id: int, *, after: str, limit: int) -> list[Supply]:
    """What was issued and spent of each asset, from the system wallets: their shards, never the players' accounts."""
    which = {"tenant_id": tenant_id, "after": after, "limit": limit}
    rows = await connection.execute(_SUPPLY, {**which, "sources": [TREASURY, BONUS], "revenue": REVENUE})
    return [Supply(row.asset, int(row.issued), int(row.spent)) for row in rows]


# --- the service itself --------------------------------------------------------------------------------------------


class Backlog(Struct, frozen=True):
    pending: int
    oldest_s: float  # age of the oldest pending command; 0 where none is


_OLDEST = """
    SELECT COALESCE(GREATEST(extract(epoch FROM clock_timestamp() - min(c.accepted_at)), 0), 0)
    FROM partitions p
    CROSS JOIN LATERAL (SELECT seq FROM pending WHERE partition = p.partition ORDER BY seq LIMIT 1) oldest
    CROSS JOIN LATERAL (SELECT accepted_at FROM commands WHERE seq = oldest.seq LIMIT 1) c
"""
_BACKLOG = text(f"SELECT (SELECT count(*) FROM pending) AS pending, ({_OLDEST}) AS oldest_s")
_READY = text(f"SELECT (SELECT max(version_num) FROM alembic_version) AS schema, ({_OLDEST}) AS oldest_s")


async def backlog(connection: AsyncConnection) -> Backlog:
    """How much waits. Counts every pending row: some 100 ms for a million of them."""
    row = (await connection.execute(_BACKLOG)).one()
    return Backlog(row.pending, float(row.oldest_s))


async def schema_and_age(connection: AsyncConnection) -> tuple[str, float]:
    """The revision that the database is at (empty: none), and the age in seconds of the oldest pending command."""
    row = (await connection.execute(_READY)).one()
    return row.schema or "", float(row.oldest_s)
