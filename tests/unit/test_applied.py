"""What an applied command comes to, whole: every posting, every effect, and what it says that it moved."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from ledger.commands import ADJUSTMENT, EXCHANGE, EXPIRED, REVENUE, SYSTEM_WALLETS
from ledger.decide import decide
from ledger.decisions import (
    Account,
    Applied,
    Books,
    ChangedHold,
    ChangedLot,
    Counted,
    Decision,
    Effect,
    GivenLot,
    Leg,
    OpenedHold,
    Original,
    Refused,
    Reversed,
)
from ledger.errors import Code
from ledger.limits import Velocity
from ledger.lots import Lot, NewLot, Piece
from tests.unit.staging import ASSETS, IN_TIME, LATE, NAMED, NOW, OURS, TENANT, Scene, key

ALICE, BOB, DIAMONDS = ("alice", "gold"), ("bob", "gold"), ("alice", "diamonds")
END = NOW + timedelta(days=9)
GIVEN = Lot(1, 1, NOW, "promotional", 50, None, 10)
BOUGHT = Lot(2, 1, NOW, "purchased", 50, END, 10)
GONE = Lot(5, 1, NOW, "purchased", 0, NOW, 10)  # past its time
# An account that counts its debits.
COUNTED: dict[str, Any] = {"debits": 1, "limits": {ALICE: {"velocity": Velocity(60, max_count=9)}}}


def at(books: Books, wallet: str, asset: str = "gold") -> Account:
    return books.accounts[key(wallet, asset)]


def decided(scene: Scene, kind: str, amount: int = 30) -> tuple[Books, Decision]:
    books = scene.books(kind)
    return books, decide(books, scene.command(kind, amount))


# --- credits come ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options", "lot"),
    [
        ("top_up", {"priority": 1}, NewLot("purchased", 1, None, 30)),
        ("top_up", {"priority": 0}, NewLot("purchased", 0, None, 30)),
        ("top_up", {"credits_expire_at": END}, NewLot("purchased", 50, END, 30)),
        ("top_up", {"source": "promotional"}, NewLot("promotional", 50, None, 30)),
        ("bonus", {"priority": 1}, NewLot("promotional", 1, None, 30)),
        ("bonus", {"source": "purchased", "priority": 2, "credits_expire_at": END}, NewLot("purchased", 2, END, 30)),
    ],
)
def test_a_credit_with_an_end_a_priority_or_a_source_is_a_lot(kind: str, options: dict[str, Any], lot: NewLot) -> None:
    books, decision = decided(Scene(options=options), kind)
    alice = at(books, "alice")
    assert decision == Applied(((at(books, OURS[kind]), -30, 0), (alice, 30, 0)), (GivenLot(alice, lot),))


@pytest.mark.parametrize(("owed", "left"), [(0, 30), (1, 29), (29, 1), (30, 0), (31, 0)])
def test_a_lot_is_smaller_by_what_the_wallet_owed(owed: int, left: int) -> None:
    books, decision = decided(Scene(balances={"alice": -owed}, options={"priority": 1}), "top_up")
    assert isinstance(decision, Applied)
    lot = GivenLot(at(books, "alice"), NewLot("purchased", 1, None, left))
    assert decision.effects == ((lot,) if left else ())
    assert [amount for _, amount, _ in decision.postings] == [-30, 30]


# --- and go ----------------------------------------------------------------------------------------------------------


def test_a_spend_counts_and_takes_from_lots_in_the_order_it_names() -> None:
    scene = Scene(lots={ALICE: [GONE, GIVEN, BOUGHT]}, options={"credits_order": "purchased_first"}, **COUNTED)
    books, decision = decided(scene, "spend")
    alice = at(books, "alice")
    counted = Counted(books.windows[alice.key], 30)
    taken = ChangedLot(alice, BOUGHT, -10), ChangedLot(alice, None, -20)
    assert decision == Applied(((alice, -30, 0), (at(books, REVENUE), 30, 0)), (counted, *taken))


@pytest.mark.parametrize(("owed", "given"), [(0, [10, 10]), (14, [6, 10]), (99, [])])
def test_a_transfer_hands_lots_on_smaller_by_what_their_new_owner_owed(owed: int, given: list[int]) -> None:
    scene = Scene(balances={"alice": 100, "bob": -owed}, lots={ALICE: [GIVEN, BOUGHT]})
    books, decision = decided(scene, "transfer")
    alice, bob = at(books, "alice"), at(books, "bob")
    taken = [ChangedLot(alice, lot, -10) for lot in (BOUGHT, GIVEN, None)]
    lots = [NewLot("purchased", 50, END, given[0]), NewLot("promotional", 50, None, given[1])] if given else []
    assert decision == Applied(((alice, -30, 0), (bob, 30, 0)), (*taken, *(GivenLot(bob, lot) for lot in lots)))


def test_an_adjustment_down_takes_from_lots_and_one_up_makes_none() -> None:
    scene = Scene(lots={ALICE: [GIVEN]})
    books, decision = decided(scene, "adjust down")
    alice, ours = at(books, "alice"), at(books, ADJUSTMENT)
    taken = ChangedLot(alice, GIVEN, -10), ChangedLot(alice, None, -20)
    assert decision == Applied(((alice, -30, 0), (ours, 30, 0)), taken)
    books, decision = decided(scene, "adjust")
    assert decision == Applied(((at(books, ADJUSTMENT), -30, 0), (at(books, "alice"), 30, 0)))


def test_an_adjustment_up_asks_for_no_funds() -> None:
    assert Scene(balances={"alice": -50}).code("adjust") == Code.APPLIED


def test_an_exchange_moves_both_assets_through_ours() -> None:
    scene = Scene(lots={ALICE: [GIVEN, BOUGHT]}, options={"credits_order": "purchased_first"}, **COUNTED)
    books, decision = decided(scene, "exchange")
    alice = at(books, "alice")
    gold = (alice, -30, 0), (at(books, EXCHANGE), 30, 0)
    diamonds = (at(books, EXCHANGE, "diamonds"), -15, 0), (at(books, "alice", "diamonds"), 15, 0)
    taken = ChangedLot(alice, BOUGHT, -10), ChangedLot(alice, None, -20)
    moved = ("gold", 30), ("diamonds", 15)
    assert decision == Applied((*gold, *diamonds), (Counted(books.windows[alice.key], 30), *taken), moved)


# --- holds -----------------------------------------------------------------------------------------------------------


def test_a_hold_counts_reserves_its_lots_and_remembers_them() -> None:
    options = {"credits_order": "purchased_first", "hold_expires_at": END}
    books, decision = decided(Scene(lots={ALICE: [GIVEN, BOUGHT]}, options=options, **COUNTED), "hold")
    alice = at(books, "alice")
    reserved = ChangedLot(alice, BOUGHT, 0, 10), ChangedLot(alice, None, 0, 20)
    opened = OpenedHold(alice, 30, END, (Piece(BOUGHT, 10), Piece(None, 20)))
    assert decision == Applied(((alice, 0, 30),), (Counted(books.windows[alice.key], 30), *reserved, opened))


SOON = Lot(3, 1, NOW, "promotional", 50, IN_TIME, 10, held=10)
LATER = Lot(4, 1, NOW, "promotional", 50, END, 20, held=20)


def with_hold(scene: Scene, kind: str) -> Books:
    """A hold of which 7 are captured and 40 left: 10 of SOON, 10 plain ones, 20 of LATER."""
    books = scene.books(kind)
    at(books, "alice").lots = [SOON, LATER]
    hold = books.holds[NAMED]
    hold.amount, hold.captured, hold.pieces = 47, 7, (Piece(SOON, 10), Piece(None, 10), Piece(LATER, 20))
    return books


@pytest.mark.parametrize("final", [True, False])
def test_a_capture_takes_the_first_pieces_and_gives_back_or_keeps_the_others(final: bool) -> None:
    scene = Scene(options={"final": final})
    books = with_hold(scene, "capture")
    alice, hold = at(books, "alice"), books.holds[NAMED]
    effects: list[Effect] = [ChangedLot(alice, SOON, -10, -10), ChangedLot(alice, None, -5, -5)]
    if final:
        effects += [ChangedLot(alice, None, 0, -5), ChangedLot(alice, LATER, 0, -20)]
        effects.append(ChangedHold(hold, "captured", 0, 22, ()))
    else:
        effects.append(ChangedHold(hold, "open", 25, 22, (Piece(None, 5), Piece(LATER, 20))))
    postings = (alice, -15, -40 if final else -15), (at(books, REVENUE), 15, 0)
    assert decide(books, scene.command("capture", 15)) == Applied(postings, tuple(effects), (("gold", 15),))


def test_a_capture_of_all_that_is_left_ends_the_hold() -> None:
    scene = Scene(options={"final": False})
    books = with_hold(scene, "capture")
    decision = decide(books, scene.command("capture", 0))
    assert isinstance(decision, Applied)
    assert decision.effects[-1] == ChangedHold(books.holds[NAMED], "captured", 0, 47, ())
    assert decision.moved == (("gold", 40),)


@pytest.mark.parametrize(("owed", "given"), [(0, 10), (12, 3)])
def test_a_capture_to_a_wallet_hands_lots_on(owed: int, given: int) -> None:
    scene = Scene(balances={"alice": 100, "bob": -owed})
    books = with_hold(scene, "capture to bob")
    decision = decide(books, scene.command("capture to bob", 15))
    assert isinstance(decision, Applied)
    assert decision.effects[4] == GivenLot(at(books, "bob"), NewLot("promotional", 50, IN_TIME, given))
    assert decision.postings[1] == (at(books, "bob"), 15, 0)


@pytest.mark.parametrize(("kind", "status"), [("release", "released"), ("expire_hold", "expired")])
@pytest.mark.parametrize(
    ("owed", "repaid"),
    [(0, (0, 0)), (10, (0, 0)), (14, (4, 0)), (25, (10, 5))],  # of SOON, of LATER; the plain piece goes first
)
def test_what_a_hold_gives_back_repays_what_is_owed(kind: str, status: str, owed: int, repaid: tuple[int, int]) -> None:
    scene = Scene(balances={"alice": -owed})
    books = with_hold(scene, kind)
    alice = at(books, "alice")
    back = (
        ChangedLot(alice, SOON, -repaid[0], -10),
        ChangedLot(alice, None, 0, -10),
        ChangedLot(alice, LATER, -repaid[1], -20),
    )
    ended = ChangedHold(books.holds[NAMED], status, 0, 7, ())
    assert decide(books, scene.command(kind)) == Applied(((alice, 0, -40),), (*back, ended), (("gold", 40),))


# --- reversals -------------------------------------------------------------------------------------------------------


def original(books: Books, **fields: Any) -> Original:
    """What is reversed, spoiled."""
    for name, value in fields.items():
        setattr(books.originals[NAMED], name, value)
    return books.originals[NAMED]


@pytest.mark.parametrize(
    ("owed", "done", "amount", "returned"),
    [
        (0, 0, 30, [(LATER, 20)]),  # and ten plain ones
        (0, 5, 30, [(LATER, 15), (SOON, 5)]),
        (12, 5, 30, [(LATER, 13), (SOON, 5)]),
        (0, 5, 0, [(LATER, 15), (SOON, 10)]),
        (99, 0, 40, []),
    ],
)
def test_a_reversed_spend_fills_its_lots_again_those_taken_last_first(
    owed: int, done: int, amount: int, returned: list[tuple[Lot, int]]
) -> None:
    scene = Scene(balances={"alice": -owed})
    books = scene.books("reverse spend")
    of = original(books, taken=(Piece(SOON, 10), Piece(None, 10), Piece(LATER, 20)), reversed=done)
    alice, back = at(books, "alice"), amount or 40 - done
    effects = *(ChangedLot(alice, lot, part) for lot, part in returned), Reversed(NAMED, of, done + back)
    postings = (at(books, REVENUE), -back, 0), (alice, back, 0)
    assert decide(books, scene.command("reverse spend", amount)) == Applied(postings, effects, (("gold", back),))


def test_a_reversed_top_up_takes_its_own_lot_first() -> None:
    made = replace(GIVEN, seq=NAMED, remaining=20)
    scene = Scene(lots={ALICE: [GIVEN, made, BOUGHT]})
    books = scene.books("reverse top_up")
    of = original(books, made=((NAMED, 1),))
    alice = at(books, "alice")
    taken = ChangedLot(alice, made, -20), ChangedLot(alice, BOUGHT, -10)
    postings = (alice, -30, 0), (at(books, "@treasury"), 30, 0)
    moved = (("gold", 30),)
    assert decide(books, scene.command("reverse top_up")) == Applied(postings, (*taken, Reversed(NAMED, of, 30)), moved)


def test_a_reversal_that_may_owes_what_the_lots_do_not_have() -> None:
    scene = Scene(balances={"alice": 10}, lots={ALICE: [GIVEN]}, options={"allow_negative": True})
    books, decision = decided(scene, "reverse top_up")
    alice = at(books, "alice")
    taken = ChangedLot(alice, GIVEN, -10), ChangedLot(alice, None, -20)
    postings = (alice, -30, 0), (at(books, "@treasury"), 30, 0)
    done = Reversed(NAMED, books.originals[NAMED], 30)
    assert decision == Applied(postings, (*taken, done), (("gold", 30),), below_zero=True)


def test_a_reversed_transfer_takes_the_lots_that_it_made_and_fills_those_that_it_took() -> None:
    made = replace(GIVEN, seq=NAMED, remaining=40)
    scene = Scene(lots={BOB: [made]})
    books = scene.books("reverse transfer")
    of = original(books, taken=(Piece(LATER, 40),), made=((NAMED, 1),))
    alice, bob = at(books, "alice"), at(books, "bob")
    effects = ChangedLot(bob, made, -30), ChangedLot(alice, LATER, 30), Reversed(NAMED, of, 30)
    postings = (bob, -30, 0), (alice, 30, 0)
    assert decide(books, scene.command("reverse transfer")) == Applied(postings, effects, (("gold", 30),))


def test_a_part_of_an_exchange_takes_back_the_same_part_of_the_other_asset() -> None:
    scene = Scene(lots={DIAMONDS: [replace(GIVEN, remaining=9)]})
    books = scene.books("reverse exchange")
    of = original(books, taken=(Piece(LATER, 40),))
    alice, diamonds = at(books, "alice"), at(books, "alice", "diamonds")
    gold = (at(books, EXCHANGE), -30, 0), (alice, 30, 0)
    others = (diamonds, -15, 0), (at(books, EXCHANGE, "diamonds"), 15, 0)
    assert diamonds.lots
    effects = (
        ChangedLot(alice, LATER, 30),
        ChangedLot(diamonds, diamonds.lots[0], -9),
        ChangedLot(diamonds, None, -6),
        Reversed(NAMED, of, 30),
    )
    moved = ("gold", 30), ("diamonds", 15)
    assert decide(books, scene.command("reverse exchange")) == Applied((*gold, *others), effects, moved)


def test_parts_of_an_exchange_are_rounded_up_together_and_make_the_whole() -> None:
    """40 gold became 20 diamonds: of single gold coins, each second one takes back no diamond."""
    back: list[list[int]] = []
    for done in range(40):
        scene = Scene(left=40 - done)
        decision = scene.decide("reverse exchange", 1)
        assert isinstance(decision, Applied)
        back.append([amount for _, amount, _ in decision.postings])
        assert decision.moved == (("gold", 1), ("diamonds", 1))[: 2 - done % 2]
    assert back == [[-1, 1, -1, 1], [-1, 1]] * 20


@pytest.mark.parametrize(("kind", "side"), [("reverse spend", 1), ("reverse top_up", 0)])
def test_a_reversal_opens_an_account_that_is_not_there(kind: str, side: int) -> None:
    decision = Scene(balances={}, options={"allow_negative": True}).decide(kind)
    assert isinstance(decision, Applied)
    assert decision.postings[side][0] == Account((TENANT, "alice", "gold", 0), 0, ASSETS["gold"])
    assert Scene(balances={}).code("reverse top_up") == Code.INSUFFICIENT_FUNDS


def test_a_reversal_asks_nothing_of_our_own_wallets() -> None:
    for kind in ("reverse spend", "reverse top_up", "reverse exchange"):
        books = Scene().books(kind)
        for wallet in SYSTEM_WALLETS:
            del books.wallets[TENANT, wallet]
        assert isinstance(decide(books, Scene().command(kind)), Applied)


def test_a_wallet_that_a_reversal_takes_from_must_be_open_for_debits_whichever_leg_comes_first() -> None:
    scene = Scene(alice="debits_frozen")
    books = scene.books("reverse exchange")
    frozen = Refused(Code.WALLET_FROZEN, "the debits of wallet alice are frozen")
    assert decide(books, scene.command("reverse exchange")) == frozen
    original(books, legs=books.originals[NAMED].legs[::-1])
    assert decide(books, scene.command("reverse exchange", 15)) == frozen


@pytest.mark.parametrize(("own", "other"), [("alice", "bob"), ("bob", "alice")])
@pytest.mark.parametrize("pays", [True, False])
def test_of_two_wallets_a_reversal_asks_for_the_commands_own_first(own: str, other: str, pays: bool) -> None:
    scene = Scene(alice="frozen", bob="frozen")
    books = scene.books("reverse transfer")
    source, target = (own, other) if pays else (other, own)
    original(books, legs=(Leg(key(source, "gold"), key(target, "gold"), 40),))
    command = replace(scene.command("reverse transfer"), wallet=own)
    assert decide(books, command) == Refused(Code.WALLET_FROZEN, f"wallet {own} is frozen")


# --- the end of credits, and of wallets ------------------------------------------------------------------------------


def test_credits_that_expire_leave_but_for_what_is_held() -> None:
    lot = Lot(NAMED, 1, NOW, "purchased", 50, LATE, 30, held=4)
    books, decision = decided(Scene(lots={ALICE: [GIVEN, lot]}), "expire_credits")
    alice = at(books, "alice")
    swept = ChangedLot(alice, lot, -26, swept=True)
    assert decision == Applied(((alice, -26, 0), (at(books, EXPIRED), 26, 0)), (swept,), (("gold", 26),))
    assert not ChangedLot(alice, lot, -26).swept, "what is taken in any other way has not expired"


def test_a_sweep_takes_every_asset_lots_as_lots() -> None:
    books, decision = decided(Scene(lots={ALICE: [GIVEN], DIAMONDS: [BOUGHT]}), "close to bob")
    gold, diamonds = at(books, "alice"), at(books, "alice", "diamonds")
    takers = Account(key("bob", "diamonds"), 0, ASSETS["diamonds"]), at(books, "bob")
    postings = (diamonds, -100, 0), (takers[0], 100, 0), (gold, -100, 0), (takers[1], 100, 0)
    effects = (
        ChangedLot(diamonds, BOUGHT, -10),
        ChangedLot(diamonds, None, -90),
        GivenLot(takers[0], NewLot("purchased", 50, END, 10)),
        ChangedLot(gold, GIVEN, -10),
        ChangedLot(gold, None, -90),
        GivenLot(takers[1], NewLot("promotional", 50, None, 10)),
    )
    assert decision == Applied(postings, effects, (("diamonds", 100), ("gold", 100)))


def test_an_empty_wallet_closes_without_a_posting() -> None:
    decision = Scene(balances={"alice": 0}, diamonds=0).decide("close to bob")
    assert decision == Applied(())
    assert isinstance(decision, Applied)
    assert not decision.moves


def test_a_close_without_a_sweep_asks_nothing_of_the_assets() -> None:
    assert Scene(asset="frozen").code("close") == Code.WALLET_NOT_EMPTY
    assert Scene(asset="frozen", balances={"alice": 0}, diamonds=0).code("close") == Code.APPLIED


# --- what a decision says of itself ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "moves"), [("spend", True), ("top_up", True), ("hold", False), ("release", False)])
def test_a_hold_and_its_release_move_nothing(kind: str, moves: bool) -> None:
    decision = Scene().decide(kind)
    assert isinstance(decision, Applied)
    assert decision.moves == moves
