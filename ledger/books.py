"""Between the database and the decisions: lock and load what a batch touches, and open the accounts it needs.

Locks are taken in one global order, by account id, in one statement; new rows are inserted after that, by name, in one
order too. So no two drains can wait for each other in a circle.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, LiteralString

import psycopg

from ledger.commands import Command, touched_wallets
from ledger.decide import Account, AccountKey, Asset, Books
from ledger.errors import BooksMoved

_ASSETS: LiteralString = """
SELECT n.tenant_id, n.code, s.id, s.status FROM unnest(%b::int[], %b::text[]) AS n (tenant_id, code)
CROSS JOIN LATERAL (SELECT id, status FROM assets WHERE tenant_id = n.tenant_id AND code = n.code LIMIT 1) s
"""
# FOR UPDATE locks in the order of the sort below it. Wallets are only read: their status changes under the partitions'
# locks, one of which this drain holds (ledger.registers). LIMIT 1 on a unique key changes no row: it keeps the planner
# from joining on the tenant alone, which it finds cheap while it believes that a tenant has few wallets.
_LOCK: LiteralString = """
SELECT n.tenant_id, n.wallet, n.asset, n.shard, w.status, a.id, a.asset_id, a.posted, a.held, a.version
FROM unnest(%b::int[], %b::text[], %b::text[], %b::smallint[]) AS n (tenant_id, wallet, asset, shard)
CROSS JOIN LATERAL (SELECT id, status FROM wallets WHERE tenant_id = n.tenant_id AND code = n.wallet LIMIT 1) w
CROSS JOIN LATERAL (SELECT id FROM assets WHERE tenant_id = n.tenant_id AND code = n.asset LIMIT 1) s
CROSS JOIN LATERAL (
    SELECT id FROM accounts WHERE wallet_id = w.id AND asset_id = s.id AND shard = n.shard LIMIT 1
) k
JOIN accounts a ON a.id = k.id
ORDER BY a.id FOR UPDATE OF a
"""
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


def lock(connection: psycopg.Connection[Any], commands: Sequence[Command], now: datetime) -> Books:
    """The books as these commands need them, their accounts locked until the transaction ends."""
    names = sorted({(command.tenant_id, command.asset) for command in commands})
    keys = list({key for command in commands for key in _touched(command)})
    with connection.pipeline(), connection.cursor(binary=True) as assets, connection.cursor(binary=True) as accounts:
        assets.execute(_ASSETS, ([tenant for tenant, _ in names], [code for _, code in names]))
        accounts.execute(_LOCK, [list(column) for column in zip(*keys, strict=True)] or [[], [], [], []])
        books = Books(now, {(tenant, code): Asset(id_, status) for tenant, code, id_, status in assets})
        for tenant, wallet, asset, shard, status, id_, asset_id, posted, held, version in accounts:
            key = (tenant, wallet, asset, shard)
            books.accounts[key] = Account(key, id_, asset_id, posted, held, version)
            books.wallets[tenant, wallet] = status
    strangers = list({(key[0], key[1]) for key in keys if (key[0], key[1]) not in books.wallets})
    if strangers:  # wallets without an account in the asset: they may exist all the same, and be frozen
        with connection.cursor(binary=True) as cursor:
            cursor.execute(_WALLETS, [list(column) for column in zip(*strangers, strict=True)])
            books.wallets.update({(tenant, wallet): status for tenant, wallet, status in cursor})
    return books


def _touched(command: Command) -> Iterable[AccountKey]:
    for wallet in touched_wallets(command):
        shard = command.partition if wallet.startswith("@") else 0
        yield command.tenant_id, wallet, command.asset, shard


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
