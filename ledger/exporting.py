"""A tenant's state, line by line, for another installation: what importing it makes there (ledger.importing).

All of it is of one snapshot, and read a page of wallets at a time, so memory holds a page, however many there are. The
order of the lines is the order in which they can be carried out: credits before the holds on them, limits and statuses,
which would stand in the way, last.
"""

from collections.abc import Generator, Iterator, Sequence
from datetime import datetime
from typing import Any, LiteralString
from uuid import uuid4

import msgspec
import psycopg
from psycopg import IsolationLevel

from ledger.ids import command_id, lot_id

VERSION = 1  # of the lines
PAGE = 500  # wallets that are read at once

Line = dict[str, Any]

_NOW: LiteralString = "SELECT clock_timestamp()"
_NO_HURRY: LiteralString = "SET LOCAL idle_in_transaction_session_timeout = 0"  # whoever reads may take long
_ASSETS: LiteralString = """
SELECT code, name, scale, status, limits::text FROM assets WHERE tenant_id = %b::int ORDER BY code
"""
_WALLETS: LiteralString = """
SELECT id, code, name, metadata::text FROM wallets
WHERE tenant_id = %b::int AND code > %b::text AND code NOT LIKE '@%%' ORDER BY code LIMIT %b::int
"""
_ACCOUNTS: LiteralString = """
SELECT a.wallet_id, a.id, s.code, a.posted FROM accounts a JOIN assets s ON s.id = a.asset_id
WHERE a.wallet_id = ANY(%b::bigint[]) AND (a.posted <> 0 OR a.lots > 0 OR a.held > 0) ORDER BY a.id
"""
_LOTS: LiteralString = """
SELECT account_id, seq, n, created_at, source, priority, expires_at, remaining FROM lots
WHERE account_id = ANY(%b::bigint[]) AND remaining > 0 ORDER BY account_id, seq, n
"""
_HOLDS: LiteralString = """
SELECT h.account_id, h.seq, c.accepted_at, h.remaining, h.expires_at, c.reference, c.metadata::text
FROM holds h JOIN commands c USING (seq)
WHERE h.account_id = ANY(%b::bigint[]) AND h.status = 'open' ORDER BY h.account_id, h.seq
"""
_WALLET_LIMITS: LiteralString = """
SELECT w.code, s.code, a.limits::text FROM wallets w JOIN accounts a ON a.wallet_id = w.id
JOIN assets s ON s.id = a.asset_id
WHERE w.tenant_id = %b::int AND (w.code, s.code) > (%b::text, %b::text) AND w.code NOT LIKE '@%%'
  AND a.limits IS NOT NULL
ORDER BY w.code, s.code LIMIT %b::int
"""
_STATUSES: LiteralString = """
SELECT code, status FROM wallets
WHERE tenant_id = %b::int AND code > %b::text AND code NOT LIKE '@%%' AND status <> 'active' ORDER BY code LIMIT %b::int
"""


def lines(connection: psycopg.Connection[Any], tenant_id: int, tenant: str) -> Generator[Line]:
    """All there is to say, in one read-only transaction of `connection`, which is in none. Amounts are strings."""
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    count, totals = 0, dict[str, int]()
    with connection.transaction():
        connection.execute(_NO_HURRY)
        ((at,),) = connection.execute(_NOW).fetchall()
        head = {"object": "export", "version": VERSION, "id": str(uuid4()), "tenant": tenant, "at": at}
        for line in (head, *_assets(connection, tenant_id)):
            count += 1
            yield line
        for line in _wallets(connection, tenant_id):
            if line["object"] == "credit":
                totals[line["asset"]] = totals.get(line["asset"], 0) + int(line["amount"])
            count += 1
            yield line
        for line in _what_would_stand_in_the_way(connection, tenant_id):
            count += 1
            yield line
    yield {"object": "end", "lines": count + 1, "totals": {asset: str(total) for asset, total in totals.items()}}


def _assets(connection: psycopg.Connection[Any], tenant_id: int) -> list[Line]:
    rows = connection.execute(_ASSETS, (tenant_id,)).fetchall()
    return [{"object": "asset", "code": code, "name": name, "scale": scale} for code, name, scale, *_ in rows]


def _wallets(connection: psycopg.Connection[Any], tenant_id: int) -> Iterator[Line]:
    """Each wallet, then what is in it: the plain rest, its lots, the holds on them."""
    after = ""
    while page := connection.execute(_WALLETS, (tenant_id, after, PAGE)).fetchall():
        accounts: dict[int, list[tuple[int, str, int]]] = {}
        for wallet_id, *account in connection.execute(_ACCOUNTS, ([row[0] for row in page],)):
            accounts.setdefault(wallet_id, []).append((account[0], account[1], account[2]))
        ids = [account[0] for of_wallet in accounts.values() for account in of_wallet]
        lots = _by_account(connection.execute(_LOTS, (ids,)).fetchall())
        holds = _by_account(connection.execute(_HOLDS, (ids,)).fetchall())
        for wallet_id, code, name, metadata in page:
            yield {"object": "wallet", "id": code, "name": name, "metadata": msgspec.json.decode(metadata)}
            for account_id, asset, posted in accounts.get(wallet_id, ()):
                yield from _account(code, asset, posted, lots.get(account_id, ()), holds.get(account_id, ()))
        after = page[-1][1]


def _account(
    wallet: str, asset: str, posted: int, lots: Sequence[Sequence[Any]], holds: Sequence[Sequence[Any]]
) -> Iterator[Line]:
    of = {"wallet": wallet, "asset": asset}
    if plain := posted - sum(lot[-1] for lot in lots):
        yield {"object": "credit", **of, "amount": str(plain)}
    for seq, n, at, source, priority, expires_at, remaining in lots:
        lot = {"lot": lot_id(seq, n, at), "source": source, "priority": priority, "expires_at": expires_at}
        yield {"object": "credit", **of, "amount": str(remaining), **lot}
    for seq, accepted_at, remaining, expires_at, reference, metadata in holds:
        told = {"reference": reference, "metadata": msgspec.json.decode(metadata) if metadata else None}
        id_ = command_id(seq, accepted_at)
        yield {"object": "hold", "id": id_, **of, "amount": str(remaining), "expires_at": expires_at, **told}


def _by_account(rows: Sequence[Sequence[Any]]) -> dict[int, list[Sequence[Any]]]:
    found: dict[int, list[Sequence[Any]]] = {}
    for account_id, *rest in rows:
        found.setdefault(account_id, []).append(rest)
    return found


def _what_would_stand_in_the_way(connection: psycopg.Connection[Any], tenant_id: int) -> Iterator[Line]:
    """Limits and statuses."""
    of = ("", "")
    while page := connection.execute(_WALLET_LIMITS, (tenant_id, *of, PAGE)).fetchall():
        for wallet, asset, limits in page:
            yield {"object": "limits", "wallet": wallet, "asset": asset, "limits": msgspec.json.decode(limits)}
        of = (page[-1][0], page[-1][1])
    assets = connection.execute(_ASSETS, (tenant_id,)).fetchall()
    for code, *_, limits in assets:
        if limits is not None:
            yield {"object": "limits", "wallet": None, "asset": code, "limits": msgspec.json.decode(limits)}
    after = ""
    while page := connection.execute(_STATUSES, (tenant_id, after, PAGE)).fetchall():
        for wallet, status in page:
            yield {"object": "status", "wallet": wallet, "asset": None, "status": status}
        after = page[-1][0]
    for code, _, _, status, _ in assets:
        if status != "active":
            yield {"object": "status", "wallet": None, "asset": code, "status": status}


# --- the journal -----------------------------------------------------------------------------------------------------

JOURNAL_PAGE = 2_000  # commands, of whatever tenant, that are looked at by one statement

_LAST: LiteralString = "SELECT COALESCE(max(seq), 0) FROM commands"
_TRANSFERS: LiteralString = """
SELECT c.seq, c.accepted_at, t.at, t.partition, t.position, encode(t.hash, 'hex'), encode(c.request_hash, 'hex'), (
    SELECT json_agg(json_build_object(
        'account', e.account_id, 'wallet', w.code, 'shard', a.shard, 'asset', s.code, 'amount', e.amount::text,
        'balance_after', e.balance_after::text, 'held_after', e.held_after::text, 'version', e.version
    ) ORDER BY e.account_id, e.version)
    FROM entries e JOIN accounts a ON a.id = e.account_id JOIN wallets w ON w.id = a.wallet_id
    JOIN assets s ON s.id = a.asset_id WHERE e.seq = c.seq
)::text
FROM commands c LEFT JOIN transfers t USING (seq)
WHERE c.seq > %b::bigint AND c.seq <= %b::bigint AND c.tenant_id = %b::int ORDER BY c.seq
"""


class Written(msgspec.Struct, frozen=True):
    """What a command left in the journal; of one that was not applied, nothing. `entries` is JSON text."""

    seq: int
    accepted_at: datetime
    at: datetime | None
    partition: int | None
    position: int | None  # in its partition's hash chain
    hash: str | None
    request_hash: str
    entries: str | None


def last(connection: psycopg.Connection[Any]) -> int:
    """The newest command's seq."""
    ((seq,),) = connection.execute(_LAST).fetchall()
    return seq


def journal(
    connection: psycopg.Connection[Any], tenant_id: int, *, after: int, upto: int
) -> Generator[tuple[int, list[Written]]]:
    """A tenant's commands by seq, a page at a time with the place up to which it looked. No snapshot stays open:
    records do not change."""
    while after < upto:
        until = min(after + JOURNAL_PAGE, upto)
        yield until, [Written(*row) for row in connection.execute(_TRANSFERS, (after, until, tenant_id))]
        after = until
