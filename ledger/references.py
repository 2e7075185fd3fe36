"""What the commands of a batch refer to: holds, reversed commands, lots. Read under the locks of their accounts."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, LiteralString

import msgspec
import psycopg

from ledger.decisions import Account, AccountKey, Books, HoldState, Leg, Original
from ledger.lots import Lot, Piece

Legs = Mapping[int, tuple[Leg, ...]]  # by the seq of the command that is reversed

# Entries never change, so they may be read before the locks that they tell of.
_LEGS: LiteralString = """
SELECT e.seq, w.tenant_id, w.code, s.code, a.shard, e.amount, s.code = c.asset
FROM entries e JOIN accounts a ON a.id = e.account_id JOIN wallets w ON w.id = a.wallet_id
JOIN assets s ON s.id = a.asset_id JOIN commands c ON c.seq = e.seq
WHERE e.seq = ANY(%b::bigint[]) AND e.amount <> 0
"""
_REVERSED: LiteralString = "SELECT seq, reversed FROM reversals WHERE seq = ANY(%b::bigint[])"
_LOT_ENTRIES: LiteralString = """
SELECT seq, lot_seq, lot_n, amount FROM lot_entries WHERE seq = ANY(%b::bigint[]) ORDER BY seq, position
"""
_LOTS: LiteralString = """
SELECT account_id, seq, n, created_at, source, priority, expires_at, remaining, held, sweeps FROM lots
WHERE account_id = ANY(%b::bigint[]) AND remaining > 0
UNION
SELECT l.account_id, l.seq, l.n, l.created_at, l.source, l.priority, l.expires_at, l.remaining, l.held, l.sweeps
FROM unnest(%b::bigint[], %b::smallint[]) AS k (seq, n) JOIN lots l USING (seq, n)
"""
_HOLDS: LiteralString = """
SELECT seq, status, amount, remaining, captured, expires_at, lots::text FROM holds WHERE seq = ANY(%b::bigint[])
"""
_pieces = msgspec.json.Decoder(list[tuple[int, int, int]])


def legs(connection: psycopg.Connection[Any], seqs: Collection[int]) -> dict[int, tuple[Leg, ...]]:
    """The legs of these commands, that of the command's own asset first; none for one that was not applied."""
    ends: dict[int, dict[tuple[bool, str], dict[bool, tuple[AccountKey, int]]]] = {}
    with connection.cursor(binary=True) as cursor:
        for seq, tenant, wallet, asset, shard, amount, own in cursor.execute(_LEGS, (list(seqs),)):
            leg = ends.setdefault(seq, {}).setdefault((not own, asset), {})
            leg[amount > 0] = ((tenant, wallet, asset, shard), amount)
    return {
        seq: tuple(Leg(leg[False][0], *leg[True]) for _, leg in sorted(found.items(), key=lambda entry: entry[0]))
        for seq, found in ends.items()
    }


def load_lots(
    connection: psycopg.Connection[Any],
    books: Books,
    by_id: Mapping[int, Account],
    with_lots: Sequence[int],
    legs: Legs,
) -> None:
    """The lots of these accounts, and what the reversed commands took and made, used up or not."""
    taken: dict[int, list[tuple[int, int, int]]] = {}
    made: dict[int, list[tuple[int, int]]] = {}
    reversed_: dict[int, int] = {}
    with connection.cursor(binary=True) as cursor:
        if legs:
            seqs = list(legs)
            reversed_ = dict(cursor.execute(_REVERSED, (seqs,)).fetchall())
            for seq, lot_seq, n, amount in cursor.execute(_LOT_ENTRIES, (seqs,)):
                if amount < 0:
                    taken.setdefault(seq, []).append((lot_seq, n, -amount))
                elif amount > 0:
                    made.setdefault(seq, []).append((lot_seq, n))
        names = list({(seq, n) for pieces in taken.values() for seq, n, _ in pieces if seq})
        found: dict[tuple[int, int], Lot] = {}
        if with_lots or names:
            columns = [seq for seq, _ in names], [n for _, n in names]
            for account_id, *lot in cursor.execute(_LOTS, (list(with_lots), *columns)):
                account = by_id[account_id]
                account.lots = account.lots or []
                account.lots.append(Lot(*lot))
                found[lot[0], lot[1]] = account.lots[-1]
    for seq, of_command in legs.items():
        books.originals[seq] = Original(
            of_command,
            tuple(Piece(found[lot_seq, n] if lot_seq else None, amount) for lot_seq, n, amount in taken.get(seq, ())),
            tuple(made.get(seq, ())),
            reversed_.get(seq, 0),
        )


def load_holds(connection: psycopg.Connection[Any], books: Books, accounts: Mapping[int, AccountKey]) -> None:
    """These holds, by seq with their account's key; one that is not there was not placed, or not yet."""
    with connection.cursor(binary=True) as cursor:
        for seq, status, amount, remaining, captured, expires_at, held_lots in cursor.execute(
            _HOLDS, (list(accounts),)
        ):
            account = books.accounts[accounts[seq]]
            lots = {(lot.seq, lot.n): lot for lot in account.lots or ()}
            pieces = tuple(
                Piece(lots[lot, n] if lot else None, part) for lot, n, part in _pieces.decode(held_lots or "[]")
            )
            books.holds[seq] = HoldState(seq, accounts[seq], status, amount, remaining, captured, expires_at, pieces)


def hold_row(
    hold: HoldState, account: Account, at: datetime
) -> tuple[int, int, str, int, int, int, datetime, datetime | None, str | None]:
    """A hold as the table has it; one that ended, ended at `at`."""
    names = [(piece.lot.seq, piece.lot.n) if piece.lot else (0, 0) for piece in hold.pieces]
    pieces = [(*name, piece.amount) for name, piece in zip(names, hold.pieces, strict=True)]
    return (
        hold.seq, account.id, hold.status, hold.amount, hold.remaining, hold.captured, hold.expires_at,
        None if hold.status == "open" else at, msgspec.json.encode(pieces).decode() if pieces else None,
    )  # fmt: skip
