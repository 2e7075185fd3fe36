"""Reading the books. Each function takes a connection, asks one statement where one snapshot matters, commits nothing.

System wallets (@treasury, @bonus, @revenue) are no one's to read as wallets: they stand in no list and under no id.
What they hold is told by the supply, and by the entries of transfers. What was, is read by ledger.history.
"""

from collections.abc import Iterable
from datetime import datetime

import msgspec
from msgspec import Struct
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.commands import ADJUSTMENT, BONUS, DEBIT_TYPES, EXCHANGE, EXPIRED, REVENUE, SYSTEM_WALLETS, TREASURY
from ledger.limits import Limits, combine, read_limits
from ledger.registers import ASSET_COLUMNS, Asset, asset_of

# The migration that this version of the code needs. A newer schema serves it too: migrations go before the code.
SCHEMA = "0021"


# --- wallets -------------------------------------------------------------------------------------------------------


class Lot(Struct, frozen=True):
    seq: int
    n: int
    at: datetime  # of the transfer that made it
    source: str
    priority: int
    expires_at: datetime | None
    remaining: int
    held: int
    past: bool  # its time has come, and it leaves within two seconds

    @property
    def available(self) -> int:
        return 0 if self.past else self.remaining - self.held


class Account(Struct, frozen=True):
    """Minor units. `queued`: debits among the wallet's own pending commands; a reversal of what another wallet sent
    here waits in that one's queue. `past`: of lots past their time, not swept yet. `available` is below zero where not
    all that is queued can succeed. `lots`: those not used up, in the order of spending; None: nobody asked."""

    asset: str
    posted: int
    held: int
    queued: int
    version: int
    past: int = 0
    lots: list[Lot] | None = None
    limits: Limits | None = None  # in force; None where nobody asked, too

    @property
    def available(self) -> int:
        return self.posted - self.held - self.queued - self.past


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
# An account without lots is asked for none.
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
    SELECT p.code AS wallet, s.code AS asset, a.posted, a.held, a.version, {lots} AS lots, a.limits, CASE
        WHEN a.lots > 0 THEN (
            SELECT sum(remaining - held)::bigint FROM lots
            WHERE account_id = a.id AND remaining > held AND expires_at <= statement_timestamp()
        ) END AS past
    FROM page p JOIN accounts a ON a.wallet_id = p.id JOIN assets s ON s.id = a.asset_id
)
SELECT p.code, p.status, p.name, p.metadata, p.created_at, asset,
       COALESCE(posted, 0) AS posted, COALESCE(held, 0) AS held, COALESCE(queued, 0) AS queued,
       COALESCE(version, 0) AS version, COALESCE(past, 0) AS past, lots::text, {limits}
FROM page p LEFT JOIN (balance FULL JOIN queued USING (wallet, asset)) AS account ON account.wallet = p.code
ORDER BY p.code, asset
"""
_QUEUED = [*DEBIT_TYPES, "reverse"]  # types that may debit their own wallet
_LOTS = """CASE WHEN a.lots > 0 THEN (
        SELECT json_agg(json_build_array(seq, n, created_at, source, priority, expires_at, remaining, held,
                                         COALESCE(expires_at <= statement_timestamp(), false))
                        ORDER BY priority, expires_at NULLS LAST, source, seq, n)
        FROM lots WHERE account_id = a.id AND remaining > 0
    ) END"""
_LIMITS = """limits::text AS own_limits,
       (SELECT limits::text FROM assets WHERE tenant_id = :tenant_id AND code = asset) AS asset_limits"""
_WALLET = text(_WALLETS.format(which="code = :code", lots=_LOTS, limits=_LIMITS))
_LISTED = {"lots": "NULL", "limits": "NULL AS own_limits, NULL AS asset_limits"}
_PAGE = "code > :after AND code NOT LIKE '@%' {filter} ORDER BY code LIMIT :limit"
_WALLET_PAGE = text(_WALLETS.format(which=_PAGE.format(filter=""), **_LISTED))
_HAS_METADATA = "AND metadata @> CAST(:metadata AS jsonb) AND metadata <> '{}'"  # the latter: the index is partial
_WALLET_PAGE_WITH = text(_WALLETS.format(which=_PAGE.format(filter=_HAS_METADATA), **_LISTED))


async def wallet(connection: AsyncConnection, tenant_id: int, code: str, *, partition: int) -> Wallet | None:
    """One wallet with its balances, lots and limits; `partition` is where its commands are drained
    (ledger.partitions)."""
    which = {"tenant_id": tenant_id, "code": code, "partitions": [partition], "debits": _QUEUED}
    found = _wallets((await connection.execute(_WALLET, which)).mappings(), whole=True)
    return found[0] if found else None


async def wallets(
    connection: AsyncConnection, tenant_id: int, *, after: str, limit: int, partitions: int, metadata: str | None = None
) -> list[Wallet]:
    """The next wallets by id, with their balances. `after`: the id of the last one seen, or empty. `metadata`: a JSON
    object, not an empty one, that the wallets' metadata contain."""
    which = {"tenant_id": tenant_id, "after": after, "limit": limit, "debits": _QUEUED}
    which |= {"partitions": list(range(partitions))}
    statement = _WALLET_PAGE
    if metadata is not None:
        statement, which = _WALLET_PAGE_WITH, which | {"metadata": metadata}
    return _wallets((await connection.execute(statement, which)).mappings(), whole=False)


_WALLET_EXISTS = text("SELECT EXISTS (SELECT 1 FROM wallets WHERE tenant_id = :tenant_id AND code = :code)")


async def wallet_exists(connection: AsyncConnection, tenant_id: int, code: str) -> bool:
    return (await connection.execute(_WALLET_EXISTS, {"tenant_id": tenant_id, "code": code})).scalar_one()


_lots = msgspec.json.Decoder(list[tuple[int, int, datetime, str, int, datetime | None, int, int, bool]])


def _wallets(rows: Iterable[RowMapping], *, whole: bool) -> list[Wallet]:
    found: dict[str, Wallet] = {}
    for row in rows:
        shown = found.get(row["code"])
        if shown is None:
            shown = found[row["code"]] = Wallet(
                row["code"], row["status"], row["name"], row["metadata"], row["created_at"], []
            )
        if row["asset"] is not None:
            balance = Account(row["asset"], row["posted"], row["held"], row["queued"], row["version"], row["past"])
            shown.accounts.append(_with_details(balance, row) if whole else balance)
    return list(found.values())


def _with_details(account: Account, row: RowMapping) -> Account:
    lots = [Lot(*lot) for lot in _lots.decode(row["lots"])] if row["lots"] else []
    own, of_asset = (read_limits(text) if text else None for text in (row["own_limits"], row["asset_limits"]))
    return msgspec.structs.replace(account, lots=lots, limits=combine(of_asset, own))


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
    """Minor units. `issued`: topped up and given; `spent`: come back as revenue; `expired`: of lots past their time.
    `exchanged`: taken out by exchanges, less what they gave; `adjusted`: put in by adjustments, less what they took."""

    asset: str
    issued: int
    spent: int
    expired: int
    exchanged: int
    adjusted: int
    max_supply: int | None

    @property
    def in_circulation(self) -> int:
        return self.issued - self.spent - self.expired - self.exchanged + self.adjusted

    @property
    def headroom(self) -> int | None:
        """What may still be issued; below zero where more circulates than may. None: as much as one likes."""
        return None if self.max_supply is None else self.max_supply - self.in_circulation


_SUPPLY = text("""
    SELECT s.code AS asset, s.limits::text, w.code AS wallet, COALESCE(sum(a.posted), 0) AS posted
    FROM (
        SELECT id, code, limits FROM assets WHERE tenant_id = :tenant_id AND code > :after ORDER BY code LIMIT :limit
    ) s
    LEFT JOIN wallets w ON w.tenant_id = :tenant_id AND w.code = ANY(:ours)
    LEFT JOIN accounts a ON a.wallet_id = w.id AND a.asset_id = s.id
    GROUP BY s.code, s.limits::text, w.code ORDER BY s.code
""")


async def supply(connection: AsyncConnection, tenant_id: int, *, after: str, limit: int) -> list[Supply]:
    """Where the supply of each asset went, from the system wallets: their shards, never the players' accounts."""
    which = {"tenant_id": tenant_id, "after": after, "limit": limit, "ours": list(SYSTEM_WALLETS)}
    ours: dict[tuple[str, str | None], dict[str, int]] = {}  # by asset and its limits: what each wallet of ours has
    for row in await connection.execute(_SUPPLY, which):
        ours.setdefault((row.asset, row.limits), {})[row.wallet] = int(row.posted)
    return [
        Supply(
            asset,
            issued=-posted.get(TREASURY, 0) - posted.get(BONUS, 0),
            spent=posted.get(REVENUE, 0),
            expired=posted.get(EXPIRED, 0),
            exchanged=posted.get(EXCHANGE, 0),
            adjusted=-posted.get(ADJUSTMENT, 0),
            max_supply=read_limits(limits).max_supply if limits else None,
        )
        for (asset, limits), posted in ours.items()
    ]


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
