"""The only writer of money: transfers, entries, balances, holds, lots and outcomes, in set-based statements.

`Journal.record` takes one decision at a time, in order, and keeps running balances in memory; `Journal.write` puts the
whole batch into the database. Nothing else in Bursar writes these tables.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, LiteralString, NamedTuple, assert_never
from uuid import UUID

import msgspec
import psycopg

from ledger import chain, deliveries, supply
from ledger.books import open_accounts
from ledger.commands import Command
from ledger.decisions import (
    Account,
    AccountKey,
    Applied,
    Books,
    ChangedHold,
    ChangedLot,
    Counted,
    Decision,
    GivenLot,
    HoldState,
    Leg,
    OpenedHold,
    Original,
    Posting,
    Refused,
    Reversed,
)
from ledger.errors import BrokenInvariant, Code
from ledger.events import Low, Outcome, outcome_type
from ledger.ids import lot_id
from ledger.limits import combine
from ledger.lots import Lot, Piece
from ledger.references import hold_row

# An unnest() for each column, which PostgreSQL steps through row by row; one for all of them in FROM keeps each column
# in a store of its own first: a sixth of what inserting the entries takes.
_TRANSFERS: LiteralString = """
INSERT INTO transfers (seq, tenant_id, partition, position, hash, at)
SELECT unnest(%b::bigint[]), unnest(%b::int[]), unnest(%b::smallint[]), unnest(%b::bigint[]), unnest(%b::bytea[]), %b
"""
_ENTRIES: LiteralString = """
INSERT INTO entries (account_id, version, seq, asset_id, amount, balance_after, held_after, at)
SELECT unnest(%b::bigint[]), unnest(%b::bigint[]), unnest(%b::bigint[]), unnest(%b::int[]), unnest(%b::bigint[]),
       unnest(%b::bigint[]), unnest(%b::bigint[]), %b
"""
# The last locks of a drain, in the order of the partitions. A second worker on a partition waits here, and goes on from
# where the first one ended.
_HEADS: LiteralString = """
SELECT partition, position, hash FROM chain_heads WHERE partition = ANY(%b::smallint[]) ORDER BY partition FOR UPDATE
"""
_MOVE_HEADS: LiteralString = """
UPDATE chain_heads h SET position = n.position, hash = n.hash
FROM unnest(%b::smallint[], %b::bigint[], %b::bytea[]) AS n (partition, position, hash) WHERE h.partition = n.partition
"""
_BALANCES: LiteralString = """
UPDATE accounts a
SET posted = n.posted, held = n.held, version = n.version, floor = n.floor, lots = n.lots, changed_at = %b
FROM unnest(%b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::smallint[])
AS n (id, posted, held, version, floor, lots) WHERE a.id = n.id
"""
_OUTCOMES: LiteralString = """
INSERT INTO outcomes (seq, status, code, detail, accounts, result, client_id, stream, at, task_id)
SELECT unnest(%b::bigint[]), unnest(%b::text[]), unnest(%b::text[]), unnest(%b::text[]), unnest(%b::text[])::json,
       unnest(%b::text[])::json, unnest(%b::int[]), unnest(%b::smallint[]), %b, %b::uuid
"""
_HOLDS: LiteralString = """
INSERT INTO holds (
    seq, account_id, status, amount, remaining, captured, expires_at, ended_at, lots
)
SELECT unnest(%b::bigint[]), unnest(%b::bigint[]), unnest(%b::text[]), unnest(%b::bigint[]), unnest(%b::bigint[]),
       unnest(%b::bigint[]), unnest(%b::timestamptz[]), unnest(%b::timestamptz[]), unnest(%b::text[])::json
ON CONFLICT (seq) DO UPDATE SET
    status = EXCLUDED.status, remaining = EXCLUDED.remaining, captured = EXCLUDED.captured,
    ended_at = EXCLUDED.ended_at, lots = EXCLUDED.lots
"""
_LOTS: LiteralString = """
INSERT INTO lots (
    seq, n, account_id, source, priority, expires_at, created_at, remaining, held, sweeps
)
SELECT unnest(%b::bigint[]), unnest(%b::smallint[]), unnest(%b::bigint[]), unnest(%b::text[]), unnest(%b::smallint[]),
       unnest(%b::timestamptz[]), unnest(%b::timestamptz[]), unnest(%b::bigint[]), unnest(%b::bigint[]),
       unnest(%b::int[])
ON CONFLICT (seq, n) DO UPDATE SET
    remaining = EXCLUDED.remaining, held = EXCLUDED.held, sweeps = EXCLUDED.sweeps
"""
_LOT_ENTRIES: LiteralString = """
INSERT INTO lot_entries (seq, position, lot_seq, lot_n, amount, held)
SELECT unnest(%b::bigint[]), unnest(%b::smallint[]), unnest(%b::bigint[]), unnest(%b::smallint[]), unnest(%b::bigint[]),
       unnest(%b::bigint[])
"""
_REVERSALS: LiteralString = """
INSERT INTO reversals (seq, reversed) SELECT unnest(%b::bigint[]), unnest(%b::bigint[])
ON CONFLICT (seq) DO UPDATE SET reversed = EXCLUDED.reversed WHERE reversals.reversed < EXCLUDED.reversed
"""

_encode = msgspec.json.Encoder().encode


class Written(NamedTuple):
    """The seqs that now have their outcome; the number of webhook deliveries that they owe; how many outcomes there
    are by type, status and code."""

    seqs: list[int]
    deliveries: int
    tally: Counter[tuple[type[Command], str, str]]


class Journal:
    """What one drain has decided and not yet written."""

    def __init__(self, books: Books) -> None:
        self._books = books
        # seq, status, code, detail; what it left of accounts, and what else it came to, as JSON
        self.outcomes: list[tuple[int, str, str, str | None, str | None, str | None]] = []
        self._transfers: list[chain.Written] = []
        self._entries: list[tuple[Account, int, int, int, int, int]] = []  # …, version, seq, amount, posted, held
        self._changed: dict[int, Account] = {}  # by identity: an account that is being opened has no id yet
        self._holds: dict[int, HoldState] = {}
        self._lots: dict[tuple[int, int], tuple[Lot, Account]] = {}
        self._lot_entries: list[tuple[int, int, int, int, int, int]] = []  # as the table's columns
        self._reversals: dict[int, int] = {}
        self._decided: list[Command] = []  # what the outcomes are of
        self._low: list[Low] = []

    def record(self, command: Command, decision: Decision) -> None:
        """Post a decision to the running balances, so that the next one sees it."""
        self._decided.append(command)
        match decision:
            case Applied():
                seq = command.seq
                self._transfers.append((seq, command.tenant_id, command.partition, command.request_hash))
                for posting in decision.postings:
                    self._post(seq, posting)
                result = None
                if decision.effects or decision.moved:
                    result = self._effect(command, decision)
                left: list[str] = []
                for account, amount, held in decision.postings:
                    if account.key[1][0] != "@":
                        left.append(_balance(account))
                        if account.floor or decision.below_zero:
                            _lower_floor(account, decision.below_zero)
                        if self._books.limited:
                            self._look_for_low(command, account, amount - held)
                self.outcomes.append((seq, "applied", Code.APPLIED, None, f"[{','.join(left)}]", result))
                if self._books.wanted and seq in self._books.wanted and decision.moves:
                    self._books.originals[seq] = _original(command, decision, self._lots)
            case Refused(code, detail):
                account = self._books.accounts.get((command.tenant_id, command.wallet, command.asset, 0))
                balance = f"[{_balance(account)}]" if account else "[]"
                self.outcomes.append((command.seq, "rejected", code, detail, balance, None))

    def _post(self, seq: int, posting: Posting) -> None:
        account, amount, held = posting
        account.posted += amount
        account.held += held
        account.version += 1
        self._entries.append((account, account.version, seq, amount, account.posted, account.held))
        if id(account) not in self._changed:
            self._changed[id(account)] = account
            self._books.accounts[account.key] = account
            self._books.wallets.setdefault(account.key[:2], "active")
        if self._books.shares and account.key[1][0] == "@":
            share = self._books.shares.get((account.asset_id, account.key[3]))
            if share is not None:
                share.headroom += amount

    def _look_for_low(self, command: Command, account: Account, change: int) -> None:
        """Whether this change of what is available took it below its threshold."""
        tenant, wallet, asset, _ = account.key
        below = combine(self._books.assets[tenant, asset].limits, account.limits).balance_low_below
        available = account.posted - account.held
        if below is not None and available < below <= available - change:
            self._low.append(Low(command.seq, tenant, wallet, _balance(account), below))

    def _effect(self, command: Command, decision: Applied) -> str | None:
        """Carry out what a decision does beyond its postings; that part of the outcome, as JSON."""
        result: dict[str, Any] = {}
        position = made = 0
        for effect in decision.effects:
            match effect:
                case ChangedLot(account, lot, amount, held, swept):
                    position += 1
                    self._note(command.seq, position, account, lot, amount, held)
                    if lot is not None:
                        lot.remaining += amount
                        lot.held += held
                        lot.sweeps += swept
                    result.setdefault("lots", []).append(_lot_shown(account, lot, amount, held))
                case GivenLot(account, new):
                    position, made = position + 1, made + 1
                    lot = Lot(command.seq, made, self._books.now, new.source, new.priority, new.expires_at, new.amount)
                    account.lots = [*(account.lots or ()), lot]
                    self._note(command.seq, position, account, lot, new.amount, 0)
                    result.setdefault("lots", []).append(_lot_shown(account, lot, new.amount, 0))
                case OpenedHold(account, amount, expires_at, pieces):
                    hold = HoldState(command.seq, account.key, "open", amount, amount, 0, expires_at, pieces)
                    self._books.holds[command.seq] = hold
                    self._holds[command.seq] = hold
                    result["hold"] = _hold_shown(hold)
                case ChangedHold(hold, status, remaining, captured, pieces):
                    hold.status, hold.remaining, hold.captured, hold.pieces = status, remaining, captured, pieces
                    self._holds[hold.seq] = hold
                    result["hold"] = _hold_shown(hold)
                case Reversed(seq, original, amount):
                    original.reversed = self._reversals[seq] = amount
                case Counted(window, amount):
                    window.count += 1
                    window.total += amount
                case _:
                    assert_never(effect)
        if decision.moved:
            result["moved"] = [{"asset": asset, "amount": str(amount)} for asset, amount in decision.moved]
        return _encode(result).decode() if result else None

    def _note(self, seq: int, position: int, account: Account, lot: Lot | None, amount: int, held: int) -> None:
        if lot is not None:
            self._lots[lot.seq, lot.n] = (lot, account)
        lot_seq, lot_n = (lot.seq, lot.n) if lot is not None else (0, 0)
        self._lot_entries.append((seq, position, lot_seq, lot_n, amount, held))

    def write(self, connection: psycopg.Connection[Any], *, task_id: UUID | None) -> Written:
        """Write it all in the caller's transaction.

        Raises BooksMoved (drain again), or BrokenInvariant or a psycopg error where the books refuse.
        """
        at: datetime = self._books.now
        open_accounts(connection, (account for account in self._changed.values() if account.id == 0))
        # Never closed: a closed cursor forgets its count, and how early the counts come is up to the server.
        balances, reversals, listening = connection.cursor(), connection.cursor(), connection.cursor(binary=True)
        with connection.pipeline():
            if self._transfers:
                heads = _lock_heads(connection, {partition for _, _, partition, _ in self._transfers})
                entries: list[chain.Line] = [
                    (account.id, version, seq, account.asset_id, amount, posted, held)
                    for account, version, seq, amount, posted, held in self._entries
                ]
                connection.execute(_ENTRIES, (*_columns(entries), at))
                changed = [
                    (account.id, account.posted, account.held, account.version, account.floor, account.open_lots)
                    for account in self._changed.values()
                ]
                balances.execute(_BALANCES, (at, *_columns(changed)))
                links = chain.link(heads, self._transfers, entries, at)
                connection.execute(_TRANSFERS, (*_columns(links), at))
                ends = [(partition, head.position, head.hash) for partition, head in heads.items()]
                connection.execute(_MOVE_HEADS, _columns(ends))
            connection.execute(_OUTCOMES, (*_columns(self.outcomes), *_places(self._decided), at, task_id))
            deliveries.ask_listeners(listening, (command.tenant_id for command in self._decided))
            if self._holds:
                holds = [hold_row(hold, self._books.accounts[hold.account], at) for hold in self._holds.values()]
                connection.execute(_HOLDS, _columns(holds))
            if self._lots:
                connection.execute(_LOTS, _columns([_lot_row(*changed) for changed in self._lots.values()]))
            if self._lot_entries:
                connection.execute(_LOT_ENTRIES, _columns(self._lot_entries))
            if self._reversals:
                reversals.execute(_REVERSALS, _columns(list(self._reversals.items())))
            if self._books.shares:
                supply.store(connection, self._books)
        if balances.rowcount != len(self._changed) and self._changed:
            raise BrokenInvariant(f"{len(self._changed)} balances changed, {balances.rowcount} were written")
        if reversals.rowcount != len(self._reversals) and self._reversals:
            raise BrokenInvariant(f"{len(self._reversals)} reversals, {reversals.rowcount} were written")
        owed = 0
        if listeners := deliveries.listeners(listening):
            owed = deliveries.owe(connection, listeners, _told(self._decided, self.outcomes), at)
            if self._low:
                owed += deliveries.owe_low(connection, listeners, self._low, at)
        return Written([outcome[0] for outcome in self.outcomes], owed, _tally(self._decided, self.outcomes))


def _lock_heads(connection: psycopg.Connection[Any], partitions: set[int]) -> dict[int, chain.Head]:
    """Where the chains of these partitions end; nobody else adds to them until the transaction ends."""
    with connection.cursor(binary=True) as cursor:
        rows = cursor.execute(_HEADS, (list(partitions),))
        heads = {partition: chain.Head(position, hash_) for partition, position, hash_ in rows}
    if len(heads) != len(partitions):
        raise BrokenInvariant(f"of the chains of partitions {sorted(partitions)} only {sorted(heads)} have a head")
    return heads


def quarantine(
    connection: psycopg.Connection[Any], commands: Sequence[Command], at: datetime, *, task_id: UUID | None
) -> Written:
    """Give commands that break every drain their outcome, `failed`, so that those behind them move on. More than one:
    a group."""
    detail = "could not be decided; an operator has been told"
    outcomes = [(command.seq, "failed", str(Code.INTERNAL_ERROR), detail, None, None) for command in commands]
    connection.execute(_OUTCOMES, (*_columns(outcomes), *_places(commands), at, task_id))
    with connection.cursor(binary=True) as listening:
        deliveries.ask_listeners(listening, (command.tenant_id for command in commands))
        listeners = deliveries.listeners(listening)
    owed = deliveries.owe(connection, listeners, _told(commands, outcomes), at)
    return Written([command.seq for command in commands], owed, _tally(commands, outcomes))


def _tally(
    commands: Sequence[Command], outcomes: Sequence[tuple[int, str, str, Any, Any, Any]]
) -> Counter[tuple[type[Command], str, str]]:
    return Counter((type(command), outcome[1], outcome[2]) for command, outcome in zip(commands, outcomes, strict=True))


def _places(commands: Sequence[Command]) -> tuple[list[int], list[int]]:
    """Whose feed the outcomes are in, and in which stream."""
    return [command.client_id for command in commands], [command.partition for command in commands]


def _told(commands: Sequence[Command], outcomes: Sequence[tuple[int, str, str, Any, Any, Any]]) -> list[Outcome]:
    """The outcomes, as far as it decides who is told of them."""
    return [
        Outcome(command.seq, command.tenant_id, outcome_type(status, code), command.wallet, command.to_wallet)
        for command, (_, status, code, *_) in zip(commands, outcomes, strict=True)
    ]


def _lower_floor(account: Account, below_zero: bool) -> None:
    """What may be owed from now on: as little as there is, and more than before only where the decision says so."""
    account.floor = min(0, account.plain if below_zero else max(account.floor, account.plain))


def _original(command: Command, decision: Applied, changed: dict[tuple[int, int], tuple[Lot, Account]]) -> Original:
    """What a later command of the same batch reverses, as it would be read once it is stored (ledger.references)."""
    ends: dict[tuple[bool, str], dict[bool, tuple[AccountKey, int]]] = {}
    for account, amount, _ in decision.postings:
        asset = account.key[2]
        ends.setdefault((asset != command.asset, asset), {})[amount > 0] = (account.key, amount)
    legs = tuple(Leg(leg[False][0], *leg[True]) for _, leg in sorted(ends.items(), key=lambda entry: entry[0]))
    taken = tuple(
        Piece(effect.lot, -effect.amount)
        for effect in decision.effects
        if isinstance(effect, ChangedLot) and effect.amount < 0
    )
    made = tuple(name for name in changed if name[0] == command.seq)
    return Original(legs, taken, made)


def _lot_row(lot: Lot, account: Account) -> tuple[int, int, int, str, int, datetime | None, datetime, int, int, int]:
    return (
        lot.seq, lot.n, account.id, lot.source, lot.priority, lot.expires_at, lot.at, lot.remaining, lot.held,
        lot.sweeps,
    )  # fmt: skip


def _lot_shown(account: Account, lot: Lot | None, amount: int, held: int) -> dict[str, Any]:
    """A part of an outcome's allocation. `lot` null: the plain rest."""
    shown: dict[str, Any] = {"lot": None, "wallet": account.key[1], "asset": account.key[2], "amount": str(amount)}
    if held:
        shown["held"] = str(held)
    if lot is not None:
        shown["lot"] = lot_id(lot.seq, lot.n, lot.at)
        shown |= {"source": lot.source, "priority": lot.priority, "expires_at": lot.expires_at}
    return shown


def _hold_shown(hold: HoldState) -> dict[str, str]:
    return {"status": hold.status, "remaining": str(hold.remaining), "captured": str(hold.captured)}


def _balance(account: Account) -> str:
    """JSON by hand, the hottest line of a drain: the alphabet of wallet and asset names needs no escaping."""
    _, wallet, asset, _ = account.key
    return (
        f'{{"wallet":"{wallet}","asset":"{asset}","posted":"{account.posted}","held":"{account.held}",'
        f'"available":"{account.posted - account.held}","version":{account.version}}}'
    )


def _columns(rows: Sequence[Any]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
