"""Which credits a debit takes, and what becomes of them: the arithmetic of lots, without a database."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ledger.commands import CreditsOrder
from ledger.lots import Lot, NewLot, Piece, hand_on, last_first, repay, split, take

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def lot(seq: int, amount: int = 10, *, days: float | None = None, held: int = 0, **more: Any) -> Lot:
    expires_at = None if days is None else NOW + timedelta(days=days)
    fields: dict[str, Any] = {"source": "promotional", "priority": 50, **more}
    return Lot(seq, 1, NOW, expires_at=expires_at, remaining=amount, held=held, **fields)


def took(pieces: tuple[Piece, ...]) -> list[tuple[int | None, int]]:
    return [(piece.lot.seq if piece.lot else None, piece.amount) for piece in pieces]


LATER = lot(1, days=9)
SOON = lot(2, days=2)
NEVER = lot(3)
BOUGHT = lot(4, days=2, source="purchased")
URGENT = lot(5, priority=10)
LAST = lot(6, priority=90, days=1)
ALL = [LATER, SOON, NEVER, BOUGHT, URGENT, LAST]


@pytest.mark.parametrize(
    ("order", "seqs"),
    [
        ("soonest_to_expire", [5, 2, 4, 1, 3, None, 6]),
        ("promotional_first", [5, 2, 1, 3, 6, 4, None]),
        ("purchased_first", [4, None, 5, 2, 1, 3, 6]),
        ("oldest_first", [1, 2, 3, 4, 5, 6, None]),
    ],
)
def test_the_order_of_taking(order: CreditsOrder, seqs: list[int | None]) -> None:
    assert took(take(ALL, 10, 70, order, NOW)) == [(seq, 10) for seq in seqs]


def test_each_is_used_up_before_the_next_and_no_more_is_taken_than_asked_for() -> None:
    assert took(take([LATER, SOON], 10, 15, "soonest_to_expire", NOW)) == [(2, 10), (1, 5)]
    assert took(take([LATER, SOON], 10, 10, "soonest_to_expire", NOW)) == [(2, 10)]


def test_what_is_held_or_past_its_time_is_not_taken() -> None:
    lots = [lot(1, days=0), lot(2, days=-1), lot(3, held=4, days=1), lot(4, held=10)]
    assert took(take(lots, 5, 11, "soonest_to_expire", NOW)) == [(3, 6), (None, 5)]


def test_an_account_without_lots_has_nothing_to_allocate() -> None:
    assert take([], 10, 10, "soonest_to_expire", NOW) == ()


def test_lots_named_first_go_before_all_others_in_the_order_named() -> None:
    first = [(3, 1), (1, 1)]
    assert took(take(ALL, 10, 25, "soonest_to_expire", NOW, first=first)) == [(3, 10), (1, 10), (5, 5)]


def test_only_who_may_owe_takes_more_than_there_is() -> None:
    assert took(take([SOON], 5, 20, "soonest_to_expire", NOW, below_zero=True)) == [(2, 10), (None, 5), (None, 5)]
    assert took(take([SOON], -5, 7, "soonest_to_expire", NOW)) == [(2, 7)]
    assert took(take([SOON], 0, 20, "soonest_to_expire", NOW)) == [(2, 10)]


def test_no_piece_is_of_nothing() -> None:
    assert took(take([SOON], 0, 5, "purchased_first", NOW)) == [(2, 5)]
    assert took(take([SOON], 1, 11, "purchased_first", NOW)) == [(None, 1), (2, 10)]
    assert took(take([SOON], 0, 10, "soonest_to_expire", NOW, below_zero=True)) == [(2, 10)]


PIECES = (Piece(SOON, 10), Piece(None, 5), Piece(LATER, 8))


def test_pieces_are_split_at_an_amount() -> None:
    head, tail = split(PIECES, 12)
    assert (took(head), took(tail)) == ([(2, 10), (None, 2)], [(None, 3), (1, 8)])
    assert split((), 12) == ((), ())
    assert took(split(PIECES, 23)[1]) == []


@pytest.mark.parametrize(
    ("skip", "amount", "back"),
    [
        (0, 23, [(1, 8), (None, 5), (2, 10)]),
        (0, 3, [(1, 3)]),
        (3, 10, [(1, 5), (None, 5)]),
        (13, 10, [(2, 10)]),
        (20, 3, [(2, 3)]),
    ],
)
def test_what_was_taken_last_comes_back_first(skip: int, amount: int, back: list[tuple[int | None, int]]) -> None:
    assert took(last_first(PIECES, skip, amount)) == back


@pytest.mark.parametrize(
    ("owed", "left"),
    [
        (0, [(2, 10), (1, 8)]),
        (5, [(2, 10), (1, 8)]),  # the plain piece repays it
        (6, [(2, 9), (1, 8)]),
        (15, [(1, 8)]),
        (20, [(1, 3)]),
        (99, []),
    ],
)
def test_what_was_owed_is_repaid_first(owed: int, left: list[tuple[int | None, int]]) -> None:
    assert took(repay(PIECES, owed)) == left
    made = hand_on(PIECES, owed)
    sources = {2: SOON, 1: LATER}
    assert made == tuple(
        NewLot(sources[seq].source, sources[seq].priority, sources[seq].expires_at, amount)
        for seq, amount in left
        if seq is not None
    )
