"""A maximum supply without a hot row: every partition holds a share of what may still be issued.

A drain that finds enough in its own partition's share locks that row and no other. One that does not locks the shares
of all partitions, in order, decides on their sum, and spreads what is left evenly. So a capped asset costs a row a
partition, and only within reach of its cap do drains wait for each other (docs/decisions/0014-shares-of-the-supply.md).
"""

from collections.abc import Sequence
from typing import Any, LiteralString

import psycopg

from ledger.commands import Bonus, Command, Exchange, Reverse, TopUp
from ledger.decisions import Books, Share
from ledger.errors import BooksMoved

_LOOK: LiteralString = """
SELECT asset_id, partition, headroom FROM supply_shares WHERE asset_id = ANY(%b::int[]) ORDER BY asset_id, partition
"""
_LOCK: LiteralString = """
SELECT s.asset_id, s.partition, s.headroom
FROM unnest(%b::int[], %b::smallint[]) AS n (asset_id, partition) JOIN supply_shares s USING (asset_id, partition)
ORDER BY s.asset_id, s.partition FOR UPDATE OF s
"""
_STORE: LiteralString = """
UPDATE supply_shares s SET headroom = n.headroom
FROM unnest(%b::int[], %b::smallint[], %b::bigint[]) AS n (asset_id, partition, headroom)
WHERE s.asset_id = n.asset_id AND s.partition = n.partition
"""


def load(connection: psycopg.Connection[Any], books: Books, commands: Sequence[Command], *, locking: bool) -> None:
    """The shares that this batch may change. Raises BooksMoved where another drain emptied one of them meanwhile."""
    capped = {asset.id for asset in books.assets.values() if asset.limits and asset.limits.max_supply is not None}
    wanted: dict[tuple[int, int], int] = {}  # the most that the batch can issue
    for command in commands:
        issues = command.amount if isinstance(command, (TopUp, Bonus)) else 0
        _want(books, capped, wanted, command, command.asset, issues)
        if isinstance(command, Exchange):
            assert command.options.to_asset is not None
            _want(books, capped, wanted, command, command.options.to_asset, command.options.to_amount or 0)
        elif isinstance(command, Reverse) and (original := books.originals.get(command.ref_seq)):
            for leg in original.legs:
                _want(books, capped, wanted, command, leg.source[2], 0)
    with connection.cursor(binary=True) as cursor:
        cursor.execute(_LOOK, (list(capped),))
        seen = {(asset_id, partition): headroom for asset_id, partition, headroom in cursor}
        short = {name[0] for name, most in wanted.items() if most > seen.get(name, most)}
        if locking:
            names = [name for name in seen if name in wanted or name[0] in short]
            cursor.execute(_LOCK, ([asset for asset, _ in names], [partition for _, partition in names]))
            seen |= {(asset_id, partition): headroom for asset_id, partition, headroom in cursor}
        if any(name[0] not in short and most > seen.get(name, most) for name, most in wanted.items()):
            raise BooksMoved
    for asset_id in short:
        pool = Share(sum(headroom for name, headroom in seen.items() if name[0] == asset_id))
        books.shares |= {name: pool for name in seen if name[0] == asset_id}
    books.shares |= {name: Share(seen[name]) for name in wanted if name[0] not in short and name in seen}


def _want(
    books: Books, capped: set[int], wanted: dict[tuple[int, int], int], command: Command, code: str, amount: int
) -> None:
    asset = books.assets.get((command.tenant_id, code))
    if asset is not None and asset.id in capped:
        name = (asset.id, command.partition)
        wanted[name] = wanted.get(name, 0) + amount


def store(connection: psycopg.Connection[Any], books: Books) -> None:
    """Write the shares as the batch left them; one that stands for all partitions is spread over them."""
    sharing: dict[int, list[tuple[int, int]]] = {}  # by identity of the share
    for name, share in sorted(books.shares.items()):
        sharing.setdefault(id(share), []).append(name)
    rows: list[tuple[int, int, int]] = []
    for names in sharing.values():
        each, over = divmod(books.shares[names[0]].headroom, len(names))
        rows += [(*name, each + (position < over)) for position, name in enumerate(names)]
    connection.execute(_STORE, [list(column) for column in zip(*rows, strict=True)])
