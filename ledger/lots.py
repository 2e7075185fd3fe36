"""Lots: which credits a debit takes, and what becomes of them where they go. Pure, as `ledger.decide` is.

An account's balance is the sum of its lots and of its *plain* rest. Few accounts have lots; for one without, every
function here returns at once, and nothing is written. The rules are those of docs/commands.md, "Lots".
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from ledger.commands import CreditsOrder, Source

# Lots of one account that are not used up. A debit sorts them all: half a millisecond for so many; players have tens.
LOTS_MAX = 500
PRIORITY_DEFAULT = 50
PRIORITY_MAX = 100

_NEVER = datetime.max.replace(tzinfo=UTC)
_NEWEST = 2**63


class Lot(Struct, gc=False):
    """Credits that came together. `seq` and `n` name it: the command that made it, and which of its lots it is."""

    seq: int
    n: int
    at: datetime  # of the transfer that made it
    source: Source
    priority: int
    expires_at: datetime | None
    remaining: int
    held: int = 0  # of `remaining`, by open holds
    sweeps: int = 0  # how often it expired

    @property
    def free(self) -> int:
        return self.remaining - self.held

    def past(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class Piece(Struct, frozen=True, gc=False):
    """A part of an amount: out of or into a lot; `lot` None: of the plain rest."""

    lot: Lot | None
    amount: int


class NewLot(Struct, frozen=True, gc=False):
    """A lot to be made."""

    source: Source
    priority: int
    expires_at: datetime | None
    amount: int


def free(lots: Iterable[Lot]) -> int:
    """What the lots have that no hold has taken, past their time or not."""
    return sum(lot.free for lot in lots)


def past(lots: Iterable[Lot], now: datetime) -> int:
    """What has expired, and not yet left."""
    return sum(lot.free for lot in lots if lot.past(now))


def take(
    lots: Sequence[Lot],
    plain: int,
    amount: int,
    order: CreditsOrder,
    now: datetime,
    *,
    first: Sequence[tuple[int, int]] = (),
    below_zero: bool = False,
) -> tuple[Piece, ...]:
    """The pieces that a debit of `amount` takes, in order. `plain`: what is available of the plain rest.

    `first`: names of lots to take from before all others. The caller has checked that there is enough; `below_zero`:
    there is not, and the plain rest is to owe it.
    """
    if not lots:
        return ()
    candidates = [lot for lot in lots if lot.free > 0 and not lot.past(now)]
    ranked: list[tuple[tuple[object, ...], Lot | None, int]] = [
        ((_rank_first(lot, first), *_rank(lot, order)), lot, lot.free) for lot in candidates
    ]
    if plain > 0:
        ranked.append(((len(first), *_rank(None, order)), None, plain))
    ranked.sort(key=lambda entry: entry[0])
    pieces: list[Piece] = []
    left = amount
    for _, lot, available in ranked:
        if left == 0:
            break
        taken = min(left, available)
        pieces.append(Piece(lot, taken))
        left -= taken
    if left and below_zero:
        pieces.append(Piece(None, left))
    return tuple(pieces)


def _rank_first(lot: Lot, first: Sequence[tuple[int, int]]) -> int:
    name = (lot.seq, lot.n)
    return first.index(name) if name in first else len(first)


def _rank(lot: Lot | None, order: CreditsOrder) -> tuple[object, ...]:
    """The plain rest ranks as purchased, of the usual priority, without end, and as the newest."""
    if lot is None:
        age: tuple[int, int] = (_NEWEST, 0)
        purchased, usual = True, (PRIORITY_DEFAULT, _NEVER, True)
    else:
        age, purchased = (lot.seq, lot.n), lot.source == "purchased"
        usual = (lot.priority, lot.expires_at or _NEVER, purchased)
    match order:
        case "soonest_to_expire":
            return (*usual, *age)
        case "promotional_first":
            return (purchased, *usual, *age)
        case "purchased_first":
            return (not purchased, *usual, *age)
        case "oldest_first":
            return age


def repay(pieces: Sequence[Piece], owed: int) -> tuple[Piece, ...]:
    """What is left of these pieces, plain ones left out, once the owner has repaid what he owes."""
    owed -= sum(piece.amount for piece in pieces if piece.lot is None)
    left: list[Piece] = []
    for piece in pieces:
        if piece.lot is not None:
            repaid = max(0, min(owed, piece.amount))
            owed -= repaid
            if piece.amount > repaid:
                left.append(Piece(piece.lot, piece.amount - repaid))
    return tuple(left)


def hand_on(pieces: Sequence[Piece], owed: int) -> tuple[NewLot, ...]:
    """The lots that these pieces make with their new owner, once he has repaid what he owes."""
    made = [(piece.lot, piece.amount) for piece in repay(pieces, owed)]
    return tuple(NewLot(lot.source, lot.priority, lot.expires_at, amount) for lot, amount in made if lot is not None)


def split(pieces: Sequence[Piece], amount: int) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """The first `amount` of these pieces, and the others."""
    head: list[Piece] = []
    tail: list[Piece] = []
    for piece in pieces:
        part = min(amount, piece.amount)
        amount -= part
        if part:
            head.append(Piece(piece.lot, part))
        if piece.amount > part:
            tail.append(Piece(piece.lot, piece.amount - part))
    return tuple(head), tuple(tail)


def last_first(pieces: Sequence[Piece], skip: int, amount: int) -> tuple[Piece, ...]:
    """The pieces of which `amount` is made, from the end, after the last `skip` units: what a reversal gives back."""
    back: list[Piece] = []
    for piece in reversed(pieces):
        skipped = min(skip, piece.amount)
        skip -= skipped
        given = min(amount, piece.amount - skipped)
        amount -= given
        if given:
            back.append(Piece(piece.lot, given))
    return tuple(back)
