"""Reading what was: balances at a time, entries, statements, transfers. Like ledger.reads, each function takes a
connection and commits nothing.

`at` never decreases along an account's versions, and versions have no gap. So a time is a version (the SQL function
version_at finds it by binary search over the primary key), a stretch of time is a range of versions, and how many
entries lie in it is a subtraction: no index on `at` has to be paid for by every command
(docs/decisions/0018-a-time-is-a-version.md).

A drain under way may still write entries of the last seconds, ledger.db.STATEMENT_TIMEOUT_MS at most: what is younger
than that may gain some.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from msgspec import Struct
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from ledger.ids import Kind, parse_id, unix_ms
from ledger.reads import Account, Wallet

# How many entries one read of a filtered list looks at, over all accounts of the wallet together: some 3 ms. Past that
# the page ends, full or not, and the next one goes on from there.
WALK_MAX = 2_000
# A reference or metadata of more commands than this is no way in: the entries are walked instead. Looking up the
# entries of so many costs what a walk costs.
SEQS_MAX = 500
# Metadata of which PostgreSQL expects more commands than this are not looked up at all: unlike a B-tree, a GIN index
# gathers all it finds before it gives the first. 4,000 take some 4 ms, 500,000 take 100.
METADATA_EXPECTED_MAX = 10_000


class AheadOfTime(Exception):
    """The time that was asked about has not come yet, by the database's clock."""


class AssetNotFound(Exception):
    """This tenant has no such asset."""


# --- balances at a time --------------------------------------------------------------------------------------------

# The version that account `a` had before a time, and at it. Most accounts rest: their last change tells it at once.
_BEFORE = """CASE WHEN a.changed_at < {at} THEN a.version
             ELSE version_at(a.id, {at} - interval '1 microsecond') END"""
_AT = "CASE WHEN a.changed_at <= {at} THEN a.version ELSE version_at(a.id, {at}) END"
_AS_OF = text(f"""
    SELECT clock.at > clock_timestamp() AS ahead, w.code, w.status, w.name, w.metadata::text, w.created_at,
           account.*
    FROM (SELECT CAST(:at AS timestamptz) AS at) clock
    LEFT JOIN wallets w ON w.tenant_id = :tenant_id AND w.code = :code AND w.created_at <= clock.at
    LEFT JOIN LATERAL (
        SELECT s.code AS asset, e.balance_after AS posted, e.held_after AS held, e.version
        FROM accounts a JOIN assets s ON s.id = a.asset_id
        CROSS JOIN LATERAL (SELECT {_AT.format(at="clock.at")} AS version OFFSET 0) v
        JOIN entries e ON e.account_id = a.id AND e.version = v.version
        WHERE a.wallet_id = w.id
    ) account ON true
    ORDER BY asset
""")


async def wallet_as_of(connection: AsyncConnection, tenant_id: int, code: str, at: datetime) -> Wallet | None:
    """A wallet with the balances that it had at a time; None: there was no such wallet then. What it is called and its
    status are today's. `queued` is 0: what waited then is not known any more. Raises AheadOfTime."""
    which = {"tenant_id": tenant_id, "code": code, "at": at}
    rows = (await connection.execute(_AS_OF, which)).mappings().all()
    first = rows[0]
    if first["ahead"]:
        raise AheadOfTime
    if first["code"] is None:
        return None
    accounts = [
        Account(asset=row["asset"], posted=row["posted"], held=row["held"], queued=0, version=row["version"])
        for row in rows
        if row["asset"] is not None
    ]
    return Wallet(first["code"], first["status"], first["name"], first["metadata"], first["created_at"], accounts)


# --- entries -------------------------------------------------------------------------------------------------------


class Entry(Struct, frozen=True):
    """One line of the journal. A system wallet's shard is not its balance: its `version` and `balance_after` are
    those of the shard."""

    account_id: int
    wallet: str
    shard: int
    asset: str
    amount: int  # signed; 0: credits were held or given back
    balance_after: int
    held_after: int
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


class Filter(Struct, frozen=True):
    """Which entries. None: whatever it is. `since` is included, `until` is not; `metadata` is a JSON object that the
    command's contains."""

    asset: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    type: str | None = None
    reference: str | None = None
    metadata: str | None = None


class Span(Struct, frozen=True):
    """Entries of one account that are yet to be read: those of the versions from `low` to `high`."""

    asset: str
    low: int
    high: int


Spans = Mapping[int, Span]  # by account id; none of them is empty

_SINCE = "CAST(:since AS timestamptz)"
_UNTIL = "CAST(:until AS timestamptz)"
_SPANS = text(f"""
    SELECT account.* FROM wallets w LEFT JOIN LATERAL (
        SELECT a.id, s.code AS asset,
               CASE WHEN {_SINCE} IS NULL THEN 0 ELSE {_BEFORE.format(at=_SINCE)} END + 1 AS low,
               CASE WHEN {_UNTIL} IS NULL THEN a.version ELSE {_BEFORE.format(at=_UNTIL)} END
                   AS high
        FROM accounts a JOIN assets s ON s.id = a.asset_id
        WHERE a.wallet_id = w.id AND (CAST(:asset AS text) IS NULL OR s.code = :asset)
    ) account ON true
    WHERE w.tenant_id = :tenant_id AND w.code = :code
""")


async def spans(connection: AsyncConnection, tenant_id: int, code: str, which: Filter) -> Spans | None:
    """All of a wallet's entries until now, of the filter's asset and time. None: there is no such wallet."""
    asked = {"asset": which.asset, "since": which.since, "until": which.until}
    rows = (await connection.execute(_SPANS, {"tenant_id": tenant_id, "code": code, **asked})).all()
    if not rows:
        return None
    return {row.id: Span(row.asset, row.low, row.high) for row in rows if row.id is not None and row.low <= row.high}


_OF_REFERENCE = text("SELECT commands_of_reference(:tenant_id, :reference, :limit)")
_OF_METADATA = text("SELECT commands_of_metadata(:tenant_id, CAST(:metadata AS jsonb), :limit)")
_EXPECTED = text("EXPLAIN (FORMAT JSON) SELECT FROM commands WHERE metadata @> CAST(:metadata AS jsonb)")


async def commands_of(connection: AsyncConnection, tenant_id: int, which: Filter) -> list[int] | None:
    """The seqs of all commands that can match this filter, where they are few and an index tells them; else None."""
    which_ones = {"tenant_id": tenant_id, "limit": SEQS_MAX + 1}
    if which.reference is not None:
        found = await connection.execute(_OF_REFERENCE, {**which_ones, "reference": which.reference})
    elif which.metadata is not None:
        plan = (await connection.execute(_EXPECTED, {"metadata": which.metadata})).scalar_one()
        if plan[0]["Plan"]["Plan Rows"] > METADATA_EXPECTED_MAX:
            return None
        found = await connection.execute(_OF_METADATA, {**which_ones, "metadata": which.metadata})
    else:
        return None
    seqs = list(found.scalars())
    return seqs if len(seqs) <= SEQS_MAX else None


# Every account's own order is read from its own key. The last row looked at comes back, matching or not, where the walk
# ends before the span does (`ends`; 0: it does not).
_WALK = """
    SELECT p.account_id, e.* FROM unnest(
        CAST(:account_ids AS bigint[]), CAST(:lows AS bigint[]), CAST(:highs AS bigint[]), CAST(:ends AS bigint[])
    ) AS p (account_id, low, high, ends)
    CROSS JOIN LATERAL (
        SELECT {columns}, {matches} AS matches
        FROM entries e CROSS JOIN LATERAL (SELECT * FROM commands WHERE seq = e.seq LIMIT 1) c
        WHERE e.account_id = p.account_id AND e.version BETWEEN p.low AND p.high
          AND ({matches} OR e.version = p.ends)
        ORDER BY e.version {direction} LIMIT :limit
    ) e
"""
# The other way in: from the commands to their entries.
_OF_SEQS = """
    SELECT * FROM (
        SELECT p.account_id, {columns}, true AS matches,
               row_number() OVER (PARTITION BY p.account_id ORDER BY e.version {direction}) AS n
        FROM unnest(CAST(:seqs AS bigint[])) AS q (seq)
        CROSS JOIN LATERAL (SELECT * FROM entries WHERE seq = q.seq OFFSET 0) e
        JOIN unnest(CAST(:account_ids AS bigint[]), CAST(:lows AS bigint[]), CAST(:highs AS bigint[]))
          AS p (account_id, low, high) ON p.account_id = e.account_id AND e.version BETWEEN p.low AND p.high
        CROSS JOIN LATERAL (SELECT * FROM commands WHERE seq = e.seq LIMIT 1) c
        WHERE {matches}
    ) found WHERE n <= :limit ORDER BY account_id, n
"""
_COLUMNS = """e.amount, e.balance_after, e.held_after, e.version, e.at, e.seq,
        c.type, c.accepted_at, c.reference, c.metadata::text"""
_MATCHES = {
    "type": "c.type = :type",
    "reference": "c.reference = :reference",
    "metadata": "COALESCE(c.metadata @> CAST(:metadata AS jsonb), false)",
}


@cache
def _reading(template: str, members: tuple[str, ...], direction: str) -> TextClause:
    matches = " AND ".join(_MATCHES[member] for member in members) or "true"
    return text(template.format(columns=_COLUMNS, matches=f"({matches})", direction=direction))


async def entries(
    connection: AsyncConnection,
    wallet: str,
    left: Spans,
    which: Filter,
    *,
    limit: int,
    seqs: Sequence[int] | None = None,
    newest_first: bool = True,
) -> tuple[list[Entry], Spans]:
    """The next of these entries that the filter lets pass, and what is left to read after them (empty: nothing).

    Each account's entries come in the order of its versions; accounts are merged by time. At most WALK_MAX entries are
    looked at, so a page may be short, or empty, with more left. `seqs`: what `commands_of` told.
    """
    if not left:
        return [], {}
    ends: dict[int, int] = {}  # account id → the last version that this read looks at, where its span goes on
    share = max(WALK_MAX // len(left), 1)
    for account_id, span in left.items():
        if seqs is None and span.high - span.low >= share:
            ends[account_id] = span.high - share + 1 if newest_first else span.low + share - 1
    asked = {member: value for member in _MATCHES if (value := getattr(which, member)) is not None}
    values: dict[str, object] = {
        **asked,
        "account_ids": list(left),
        "lows": [ends.get(id, span.low) if newest_first else span.low for id, span in left.items()],
        "highs": [span.high if newest_first else ends.get(id, span.high) for id, span in left.items()],
        "limit": limit + 1,
    }
    if seqs is None:
        values["ends"] = [ends.get(account_id, 0) for account_id in left]
    else:
        values["seqs"] = list(seqs)
    reading = _reading(_WALK if seqs is None else _OF_SEQS, tuple(asked), "DESC" if newest_first else "ASC")
    rows = (await connection.execute(reading, values)).all()
    return _merge(rows, wallet, left, ends, limit=limit, newest_first=newest_first)


def _merge(
    rows: Iterable[Any], wallet: str, left: Spans, ends: Mapping[int, int], *, limit: int, newest_first: bool
) -> tuple[list[Entry], Spans]:
    """The page out of what was read of each account, in the order of reading, and what is left."""
    unread: dict[int, list[Any]] = {}  # account id → its rows, the next one last
    for row in rows:
        unread.setdefault(row.account_id, []).append(row)
    for of_account in unread.values():
        of_account.reverse()
    page: list[Entry] = []
    after: dict[int, Span] = {}
    choose = max if newest_first else min
    while unread:
        account_id = choose(unread, key=lambda id: (unread[id][-1].at, unread[id][-1].seq))
        row, asset = unread[account_id][-1], left[account_id].asset
        if row.matches:
            if len(page) == limit:
                break
            page.append(Entry(account_id, wallet, 0, asset, *row[1:11]))
        unread[account_id].pop()
        if row.version == ends.get(account_id):  # what comes next of this account is not known: the page ends here
            after[account_id] = _from(left[account_id], row.version + (-1 if newest_first else 1), newest_first)
            del unread[account_id]
            break
        if not unread[account_id]:
            del unread[account_id]
    return page, after | {
        account_id: _from(left[account_id], of_account[-1].version, newest_first)
        for account_id, of_account in unread.items()
    }


def _from(span: Span, version: int, newest_first: bool) -> Span:
    """The part of this span that is read from `version` on."""
    return Span(span.asset, span.low, version) if newest_first else Span(span.asset, version, span.high)


# --- statements ----------------------------------------------------------------------------------------------------


class Balance(Struct, frozen=True):
    """Minor units. `version` 0: nothing had been written yet."""

    posted: int
    held: int
    version: int


class Statement(Struct, frozen=True):
    """One account from a time until another: what it had, what is to be read (`history.entries`), what it had then."""

    since: datetime | None
    until: datetime
    opening: Balance
    closing: Balance
    entries: Spans


_STATEMENT = text(f"""
    SELECT clock.until, clock.until > clock_timestamp() AS ahead, w.id AS wallet_id, s.id AS asset_id, account.*
    FROM (SELECT COALESCE({_UNTIL}, clock_timestamp()) AS until) clock
    LEFT JOIN wallets w ON w.tenant_id = :tenant_id AND w.code = :code
    LEFT JOIN assets s ON s.tenant_id = :tenant_id AND s.code = :asset
    LEFT JOIN LATERAL (
        SELECT a.id AS account_id, o.version AS opened, o.balance_after AS opening, o.held_after AS opening_held,
               c.version AS closed, c.balance_after AS closing, c.held_after AS closing_held
        FROM accounts a
        CROSS JOIN LATERAL (
            SELECT CASE WHEN {_SINCE} IS NULL THEN 0 ELSE {_BEFORE.format(at=_SINCE)} END AS opening,
                   {_BEFORE.format(at="clock.until")} AS closing
            OFFSET 0
        ) v
        LEFT JOIN entries o ON o.account_id = a.id AND o.version = v.opening
        LEFT JOIN entries c ON c.account_id = a.id AND c.version = v.closing
        WHERE a.wallet_id = w.id AND a.asset_id = s.id
    ) account ON true
""")


async def statement(
    connection: AsyncConnection,
    tenant_id: int,
    code: str,
    asset: str,
    *,
    since: datetime | None,
    until: datetime | None,
) -> Statement | None:
    """The frame of a statement: the entries are read after it, and can be at leisure: no new one gets into a span.

    `since` is included (None: from the beginning), `until` is not (None: now). None: there is no such wallet.
    Raises AheadOfTime, AssetNotFound.
    """
    which = {"tenant_id": tenant_id, "code": code, "asset": asset, "since": since, "until": until}
    row = (await connection.execute(_STATEMENT, which)).one()
    if row.ahead:
        raise AheadOfTime
    if row.wallet_id is None:
        return None
    if row.asset_id is None:
        raise AssetNotFound
    opening = Balance(row.opening or 0, row.opening_held or 0, row.opened or 0)
    closing = Balance(row.closing or 0, row.closing_held or 0, row.closed or 0)
    span = Span(asset, opening.version + 1, closing.version)
    return Statement(since, row.until, opening, closing, {row.account_id: span} if span.low <= span.high else {})


# --- transfers -----------------------------------------------------------------------------------------------------


class Transfer(Struct, frozen=True):
    seq: int
    at: datetime
    entries: list[Entry]


_TRANSFER = text(f"""
    SELECT t.at AS transferred_at, e.account_id, w.code AS wallet, a.shard, s.code AS asset, {_COLUMNS}
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
    rows = (await connection.execute(_TRANSFER, {"tenant_id": tenant_id, "seq": seq})).all()
    if not rows or unix_ms(rows[0].transferred_at) != at_ms:
        return None
    return Transfer(seq, rows[0].transferred_at, [Entry(*row[1:]) for row in rows])
