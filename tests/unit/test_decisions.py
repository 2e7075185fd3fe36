"""What an account says of its balance, and the copy of the books that a group's commands are tried on."""

import copy

import pytest

from ledger.decisions import Account, Books, Window
from ledger.lots import Lot
from tests.unit.staging import IN_TIME, NAMED, NOW, PARTITION, TENANT, Scene, key

ALICE, BOB = key("alice", "gold"), key("bob", "gold")

# 10 of 12 are free, 20 of 23 past their time, 1 is held and nothing free, 0 are left.
LOTS = [
    Lot(1, 1, NOW, "purchased", 50, IN_TIME, 12, held=2),
    Lot(2, 1, NOW, "purchased", 50, NOW, 23, held=3),
    Lot(3, 1, NOW, "purchased", 50, None, 1, held=1),
    Lot(4, 1, NOW, "purchased", 50, None, 0),
]


@pytest.mark.parametrize(
    ("posted", "lots", "available", "plain", "owed"),
    [
        (106, None, 100, 100, 0),
        (106, LOTS, 80, 70, 0),
        (36, LOTS, 10, 0, 0),
        (35, LOTS, 9, -1, 1),
        (0, LOTS, -26, -36, 36),
        (-4, [], -10, -10, 10),
    ],
)
def test_a_balance_is_its_lots_and_a_plain_rest(
    posted: int, lots: list[Lot] | None, available: int, plain: int, owed: int
) -> None:
    account = Account(ALICE, 1, 7, posted, held=6, lots=lots)
    assert (account.available(NOW), account.plain, account.owed) == (available, plain, owed)
    assert account.open_lots == (3 if lots else 0)


def full() -> Books:
    """Books with something of each kind, of alice, of bob and of two partitions."""
    books = Scene(headroom=60, debits=2).books("capture")
    books.holds[NAMED + 1] = copy.copy(books.holds[NAMED])
    for seq in (NAMED, NAMED + 1):
        books.originals[seq] = copy.copy(Scene().books("reverse spend").originals[NAMED])
    books.windows[BOB] = Window(3, 40)
    books.wanted = {NAMED, NAMED + 1}
    return books


def test_a_trial_has_what_its_accounts_holds_and_originals_are_and_nothing_of_others() -> None:
    books = full()
    trial = books.trial([ALICE, key("nobody", "gold")], [NAMED, 99])
    assert trial == Books(
        NOW,
        books.assets,
        {(TENANT, "alice"): "active"},
        {ALICE: books.accounts[ALICE]},
        {NAMED: books.holds[NAMED]},
        {NAMED: books.originals[NAMED]},
        {NAMED, NAMED + 1},
        {ALICE: Window(2, 0)},
        books.shares,
    )


def test_a_trial_may_be_asked_for_with_what_is_read_once() -> None:
    books = full()
    assert books.trial(iter([ALICE, BOB]), iter([NAMED])) == books.trial([BOB, ALICE], [NAMED])


def test_what_happens_in_a_trial_stays_there() -> None:
    books = full()
    before = copy.deepcopy(books)
    trial = books.trial([ALICE], [NAMED])
    trial.accounts[ALICE].posted += 1
    trial.holds[NAMED].captured += 1
    trial.originals[NAMED].reversed += 1
    trial.windows[ALICE].count += 1
    trial.shares[7, PARTITION].headroom -= 1
    trial.wallets[TENANT, "alice"] = "frozen"
    trial.wanted.clear()
    trial.assets.clear()
    assert books == before


def test_the_legs_of_what_is_applied_by_now() -> None:
    books = full()
    assert books.legs() == {seq: books.originals[seq].legs for seq in (NAMED, NAMED + 1)}
    assert Books(NOW).legs() == {}
