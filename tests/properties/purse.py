"""What a player has of one asset, for the reference model: plain credits and lots, and what holds have set aside."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

Key = tuple[int, int]  # of a lot: the command that made it, and which of that command's


class Kind(NamedTuple):
    """What one lot has in common with those that are handed on from it."""

    source: str
    priority: int
    expires: datetime | None


PLAIN = Kind("purchased", 50, None)


class Piece(NamedTuple):
    """Some credits of one lot, or plain ones."""

    key: Key | None
    kind: Kind
    amount: int


@dataclass
class Lot:
    key: Key
    kind: Kind
    free: int = 0
    held: int = 0

    def expired(self, now: datetime) -> bool:
        return self.kind.expires is not None and self.kind.expires <= now


@dataclass
class Purse:
    plain: int = 0  # not held; below zero: owed
    plain_held: int = 0
    lots: dict[Key, Lot] = field(default_factory=dict[Key, Lot])
    version: int = 0

    @property
    def held(self) -> int:
        return self.plain_held + sum(lot.held for lot in self.lots.values())

    @property
    def posted(self) -> int:
        return self.plain + self.held + sum(lot.free for lot in self.lots.values())

    @property
    def lots_in_use(self) -> int:
        return sum(lot.free + lot.held > 0 for lot in self.lots.values())

    def available(self, now: datetime) -> int:
        return self.plain + sum(lot.free for lot in self.lots.values() if not lot.expired(now))

    def in_order(self, order: str, now: datetime) -> list[Piece]:
        """What can be spent, first things first."""
        found = [Piece(None, PLAIN, self.plain)]
        found += [Piece(lot.key, lot.kind, lot.free) for lot in self.lots.values() if not lot.expired(now)]

        def rank(piece: Piece) -> tuple[object, ...]:
            kind = piece.kind
            age = (piece.key is None, piece.key or (0, 0))  # as they were accepted
            expiry = (kind.expires is None, kind.expires or 0)
            soonest = (kind.priority, expiry, kind.source == "purchased", age)
            return {
                "soonest_to_expire": soonest,
                "promotional_first": (kind.source == "purchased", *soonest),
                "purchased_first": (kind.source == "promotional", *soonest),
                "oldest_first": age,
            }[order]

        return sorted((piece for piece in found if piece.amount > 0), key=rank)

    def take(self, amount: int, *, order: str, now: datetime, first: Iterable[Key] = ()) -> list[Piece]:
        """Take credits out; what is not there is owed from now on."""
        preferred = list(first)
        spendable = self.in_order(order, now)
        spendable.sort(key=lambda found: preferred.index(found.key) if found.key in preferred else len(preferred))
        pieces: list[Piece] = []
        for found in spendable:
            if part := min(found.amount, amount):
                self.put(found._replace(amount=-part))
                pieces.append(found._replace(amount=part))
                amount -= part
        if amount:
            self.put(Piece(None, PLAIN, -amount))
            pieces.append(Piece(None, PLAIN, amount))
        return pieces

    def put(self, piece: Piece) -> None:
        if piece.key is None:
            self.plain += piece.amount
        else:
            self.lots[piece.key].free += piece.amount

    def give(self, pieces: Iterable[Piece]) -> None:
        """Put credits in; what is owed is repaid first, by plain ones before others."""
        for piece in sorted(pieces, key=lambda piece: piece.key is not None):
            repaid = min(piece.amount, max(0, -self.plain))
            self.plain += repaid
            self.put(piece._replace(amount=piece.amount - repaid))

    def new_lot(self, key: Key, kind: Kind, amount: int) -> bool:
        """Whether there is one: all of it may be owed."""
        if amount <= -self.plain:
            self.plain += amount
            return False
        self.lots[key] = Lot(key, kind)
        self.give([Piece(key, kind, amount)])
        return True

    def set_aside(self, piece: Piece) -> None:
        """Count what was taken as held."""
        if piece.key is None:
            self.plain_held += piece.amount
        else:
            self.lots[piece.key].held += piece.amount
