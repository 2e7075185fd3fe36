"""Between the database and the decisions: lock and load what a batch touches, and open the accounts it needs.

Locks are taken in one global order: accounts by id, in one statement; then shares of the supply, by asset and
partition; new rows are inserted after that, by name, in one order too. So no two drains can wait for each other in a
circle. The ids are looked up before, without a lock, where they are not known yet.
Holds, lots and reversals need no locks of their own: their account's guards them. What only some batches need (what
a command refers to, lots, velocity, supply) is asked for by those batches only.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, LiteralString, cast
from weakref import WeakKeyDictionary

import psycopg

from ledger import references, supply
from ledger.commands import (
    DEBIT_TYPES,
    NO_OPTIONS,
    Capture,
    Command,
    ExpireHold,
    Release,
    Reverse,
    touched_wallets,
)
from ledger.decisions import Account, AccountKey, Asset, Books, Window
from ledger.errors import BooksMoved
from ledger.limits import combine, read_limits

_ASSETS: LiteralString = """
SELECT n.tenant_id, n.code, s.id, s.status, s.limits::text FROM unnest(%b::int[], %b::text[]) AS n (tenant_id, code)
CROSS JOIN LATERAL (SELECT id, status, limits FROM assets WHERE tenant_id = n.tenant_id AND code = n.code LIMIT 1) s
"""
# LIMIT 1 on a unique key changes no row: it keeps the planner from joining on the tenant alone, which it finds cheap
# while it believes that a tenant has few wallets.
_FIND: LiteralString = """
SELECT n.position, k.id
FROM unnest(%b::int[], %b::text[], %b::text[], %b::smallint[]) WITH ORDINALITY
AS n (tenant_id, wallet, asset, shard, position)
CROSS JOIN LATERAL (SELECT id FROM wallets WHERE tenant_id = n.tenant_id AND code = n.wallet LIMIT 1) w
CROSS JOIN LATERAL (SELECT id FROM assets WHERE tenant_id = n.tenant_id AND code = n.asset LIMIT 1) s
CROSS JOIN LATERAL (
    SELECT id FROM accounts WHERE wallet_id = w.id AND asset_id = s.id AND shard = n.shard LIMIT 1
) k
"""
# Wallets are only read: their status changes under the partitions' locks, one of which this drain holds
# (ledger.registers). The time of the last change is told where it is later than `now`: hardly ever.
_READ: LiteralString = """
SELECT a.id, w.status, a.asset_id, a.posted, a.held, a.version, a.floor, a.lots, a.limits::text,
       CASE WHEN a.changed_at > %b THEN a.changed_at END
FROM accounts a JOIN wallets w ON w.id = a.wallet_id WHERE a.id = ANY(%b::bigint[])
"""
_LOCK: LiteralString = _READ + " ORDER BY a.id FOR UPDATE OF a"  # which locks in the order of the sort below it
_WALLETS: LiteralString = """
SELECT w.tenant_id, w.code, w.status FROM unnest(%b::int[], %b::text[]) AS n (tenant_id, wallet)
JOIN wallets w ON w.tenant_id = n.tenant_id AND w.code = n.wallet
"""
_OPEN_WALLETS: LiteralString = """
INSERT INTO wallets (tenant_id, code) SELECT DISTINCT * FROM unnest(%b::int[], %b::text[]) ORDER BY 1, 2
ON CONFLICT (tenant_id, code) DO NOTHING
"""
_OPEN_ACCOUNTS: LiteralString = """
WITH opened AS (
    INSERT INTO accounts (wallet_id, asset_id)
    SELECT w.id, n.asset_id FROM unnest(%b::int[], %b::text[], %b::int[]) AS n (tenant_id, wallet, asset_id)
    JOIN wallets w ON w.tenant_id = n.tenant_id AND w.code = n.wallet
    ORDER BY n.tenant_id, n.wallet, n.asset_id
    ON CONFLICT (wallet_id, asset_id, shard) DO NOTHING
    RETURNING id, wallet_id, asset_id
)
SELECT w.tenant_id, w.code, o.asset_id, o.id FROM opened o JOIN wallets w ON w.id = o.wallet_id
"""
# What an account's own commands have debited or reserved since the window began.
_WINDOWS: LiteralString = """
SELECT n.account_id, d.debits, d.total
FROM unnest(%b::bigint[], %b::int[], %b::text[]) AS n (account_id, window_s, wallet)
CROSS JOIN LATERAL (
    SELECT count(*) AS debits, COALESCE(sum(c.amount), 0)::bigint AS total
    FROM entries e CROSS JOIN LATERAL (SELECT type, wallet, amount FROM commands WHERE seq = e.seq LIMIT 1) c
    WHERE e.account_id = n.account_id
      AND e.version > version_at(n.account_id, %b - make_interval(secs => n.window_s))
      AND e.amount <= 0 AND c.wallet = n.wallet AND c.type = ANY(%b::text[])
) d
"""
# The ids of accounts that a connection has come across. An account is never deleted and its id never used again, so
# what was true once stays true; whoever puts another database in the place of this one ends its connections first.
# Finding an account by its names costs three times what locking it by its id does.
_accounts_known: WeakKeyDictionary[psycopg.Connection[Any], dict[AccountKey, int]] = WeakKeyDictionary()
ACCOUNTS_KNOWN_MAX = 50_000  # 15 MiB; past that many, begin again: those at play come back within a few drains

_VELOCITY_TYPES = [type_ for type_ in DEBIT_TYPES if type_ != "adjust"]


def lock(connection: psycopg.Connection[Any], commands: Sequence[Command], now: datetime) -> Books:
    """The books as these commands need them, their accounts locked until the transaction ends.

    `Books.now` is `now`, or the time of the last change of any of these accounts if that is later: along an account's
    versions time never runs backwards, whoever waited for whom. Raises BooksMoved: roll back and drain again.
    """
    return _load(connection, commands, now, locking=True)


def read(connection: psycopg.Connection[Any], commands: Sequence[Command], now: datetime) -> Books:
    """The same without a lock: what would be decided now. Every statement sees its own moment unless the transaction
    is REPEATABLE READ."""
    return _load(connection, commands, now, locking=False)


def _load(connection: psycopg.Connection[Any], commands: Sequence[Command], now: datetime, *, locking: bool) -> Books:
    reversals = {command.ref_seq for command in commands if isinstance(command, Reverse)}
    legs = references.legs(connection, reversals) if reversals else {}
    keys = list({key for command in commands for key in touched(command, legs)})
    names = sorted({(tenant, asset) for tenant, _, asset, _ in keys})
    ids = _remembered(connection, keys) if locking else _find(connection, keys)
    books = Books(now, wanted=reversals)
    by_id: dict[int, Account] = {}
    with_lots: list[int] = []
    with connection.pipeline(), connection.cursor(binary=True) as assets, connection.cursor(binary=True) as accounts:
        assets.execute(_ASSETS, ([tenant for tenant, _ in names], [code for _, code in names]))
        accounts.execute(_LOCK if locking else _READ, (now, list(ids)))
        for tenant, code, id_, status, limits in assets:
            books.assets[tenant, code] = Asset(id_, status, read_limits(limits) if limits else None)
            books.limited = books.limited or limits is not None
        for id_, status, asset_id, posted, held, version, floor, lots, limits, later in accounts:
            key = ids[id_]
            account = by_id[id_] = books.accounts[key] = Account(key, id_, asset_id, posted, held, version, floor)
            books.wallets[key[0], key[1]] = status
            if later is not None:
                books.now = max(books.now, later)
            if lots:
                with_lots.append(id_)
            if limits:
                account.limits, books.limited = read_limits(limits), True
    if len(by_id) != len(ids):
        _accounts_known.pop(connection, None)
        raise BooksMoved
    # Wallets without an account in the asset: they may exist all the same, and be frozen.
    missing = len(ids) < len(keys)
    if strangers := list({key[:2] for key in keys if key[:2] not in books.wallets}) if missing else []:
        with connection.cursor(binary=True) as cursor:
            cursor.execute(_WALLETS, [list(column) for column in zip(*strangers, strict=True)])
            found = {(tenant, wallet): status for tenant, wallet, status in cursor}
        books.wallets.update(found)
        # A wallet that was opened a moment ago has an account by now that was not there to be locked.
        if locking and _find(connection, [key for key in keys if key[:2] in found]):
            raise BooksMoved
    if legs or with_lots:
        references.load_lots(connection, books, by_id, with_lots, legs)
    holds = {
        command.ref_seq: (command.tenant_id, command.wallet, command.asset, 0)
        for command in commands
        if isinstance(command, (Capture, Release, ExpireHold))
    }
    if holds:
        references.load_holds(connection, books, holds)
    if books.limited:
        _load_windows(connection, books, keys)
    if any(asset.limits and asset.limits.max_supply is not None for asset in books.assets.values()):
        supply.load(connection, books, commands, locking=locking)
    return books


def _remembered(connection: psycopg.Connection[Any], keys: Sequence[AccountKey]) -> dict[int, AccountKey]:
    """The ids of the accounts that are there: most are known from earlier drains on this connection."""
    known = _accounts_known.setdefault(connection, {})
    found = {known.get(key): key for key in keys}
    if None not in found:
        return cast(dict[int, AccountKey], found)
    if len(known) > ACCOUNTS_KNOWN_MAX:
        known.clear()
    known.update({key: id_ for id_, key in _find(connection, [key for key in keys if key not in known]).items()})
    return {known[key]: key for key in keys if key in known}


def _find(connection: psycopg.Connection[Any], keys: Sequence[AccountKey]) -> dict[int, AccountKey]:
    with connection.cursor(binary=True) as cursor:
        cursor.execute(_FIND, [list(column) for column in zip(*keys, strict=True)] or [[], [], [], []])
        return {id_: keys[position - 1] for position, id_ in cursor}


def touched(command: Command, legs: references.Legs) -> list[AccountKey]:
    """The accounts that a command may change. `legs`: of the commands that the batch reverses, as far as they were
    applied before it."""
    tenant, asset, partition = command.tenant_id, command.asset, command.partition
    keys = [(tenant, wallet, asset, partition if wallet[0] == "@" else 0) for wallet in touched_wallets(command)]
    if command.options is not NO_OPTIONS:
        also = (command.options.to_asset,) if command.options.to_asset is not None else command.options.assets
        keys += [(tenant, wallet, other, shard) for other in also for _, wallet, _, shard in tuple(keys)]
    if isinstance(command, Reverse):
        keys += [key for leg in legs.get(command.ref_seq, ()) for key in (leg.source, leg.target)]
    return keys


def _load_windows(connection: psycopg.Connection[Any], books: Books, keys: Iterable[AccountKey]) -> None:
    """The velocity windows of the accounts that have a limit on them; an empty one where the batch may open one."""
    asked: list[tuple[int, int, str]] = []
    by_id: dict[int, AccountKey] = {}
    for key in keys:
        asset, account = books.assets.get((key[0], key[2])), books.accounts.get(key)
        if asset is None or key[1].startswith("@"):
            continue
        velocity = combine(asset.limits, account.limits if account else None).velocity
        if velocity is not None and account is None:
            books.windows[key] = Window(0, 0)
        elif velocity is not None and account is not None:
            by_id[account.id] = key
            asked.append((account.id, velocity.window_s, key[1]))
    if not asked:
        return
    with connection.cursor(binary=True) as cursor:
        columns = [list(column) for column in zip(*asked, strict=True)]
        cursor.execute(_WINDOWS, (*columns, books.now, _VELOCITY_TYPES))
        for account_id, count, total in cursor:
            books.windows[by_id[account_id]] = Window(count, total)


def open_accounts(connection: psycopg.Connection[Any], accounts: Iterable[Account]) -> None:
    """Give the accounts that this batch credits for the first time a row, and their wallets one if they lack it.

    Raises BooksMoved where another drain opened one of them meanwhile: its balance is not the zero assumed here.
    """
    new = {(account.key[0], account.key[1], account.asset_id): account for account in accounts}
    if not new:
        return
    tenants, wallets, asset_ids = (list(column) for column in zip(*new, strict=True))
    with connection.cursor(binary=True) as cursor:
        cursor.execute(_OPEN_WALLETS, (tenants, wallets))
        cursor.execute(_OPEN_ACCOUNTS, (tenants, wallets, asset_ids))
        opened = cursor.fetchall()
    if len(opened) != len(new):
        raise BooksMoved
    for tenant, wallet, asset_id, id_ in opened:
        new[tenant, wallet, asset_id].id = id_
