"""The rules, without a database. What is refused, and in which order, is in test_precedence."""

import pytest

from ledger.commands import BONUS, REVENUE, SYSTEM_WALLETS, TREASURY, Spend
from ledger.decide import decide
from ledger.decisions import Account, Applied, Asset, ChangedHold, Refused
from ledger.errors import BrokenInvariant, Code
from ledger.money import AMOUNT_MAX, BALANCE_MAX
from tests.unit.staging import ASSETS, IN_TIME, LATE, NOW, PARTITION, TENANT, Scene

GOLD = ASSETS["gold"]
ALL_KINDS = ("top_up", "bonus", "spend", "transfer")
CREDITS = ("top_up", "bonus")
DEBITS = ("spend", "transfer")


# --- what applies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "source", "target"),
    [
        ("top_up", (TREASURY, PARTITION), ("alice", 0)),
        ("bonus", (BONUS, PARTITION), ("alice", 0)),
        ("spend", ("alice", 0), (REVENUE, PARTITION)),
        ("transfer", ("alice", 0), ("bob", 0)),
    ],
)
def test_an_applied_command_moves_its_amount(kind: str, source: tuple[str, int], target: tuple[str, int]) -> None:
    decision = Scene().decide(kind)
    assert isinstance(decision, Applied)
    (payer, paid, _), (taker, received, _) = decision.postings
    assert (payer.key[1], payer.key[3]) == source
    assert (taker.key[1], taker.key[3]) == target
    assert (paid, received) == (-30, 30)
    assert not decision.effects


@pytest.mark.parametrize("kind", CREDITS)
def test_the_first_credit_opens_the_wallet(kind: str) -> None:
    decision = Scene(alice=None).decide(kind)
    assert isinstance(decision, Applied)
    assert decision.postings[1][0] == Account((TENANT, "alice", "gold", 0), 0, GOLD)


def test_a_transfer_opens_its_target() -> None:
    decision = Scene(bob=None).decide("transfer")
    assert isinstance(decision, Applied)
    assert decision.postings[1][0] == Account((TENANT, "bob", "gold", 0), 0, GOLD)


def test_a_known_wallet_without_an_account_in_the_asset_is_opened_too() -> None:
    decision = Scene(balances={}).decide("top_up")
    assert isinstance(decision, Applied)
    assert decision.postings[1][0].id == 0


@pytest.mark.parametrize("kind", DEBITS)
def test_a_wallet_may_spend_all_it_has_and_not_one_more(kind: str) -> None:
    assert Scene().code(kind, 100) == Code.APPLIED
    assert Scene().code(kind, 101) == Code.INSUFFICIENT_FUNDS


@pytest.mark.parametrize("kind", DEBITS)
def test_held_credits_cannot_be_spent(kind: str) -> None:
    scene = Scene(held={"alice": 60})
    assert scene.code(kind, 40) == Code.APPLIED
    decision = scene.decide(kind, 41)
    assert decision == Refused(Code.INSUFFICIENT_FUNDS, "available 40, needed 41")


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_command_applies_until_it_expires_and_not_at_that_time(kind: str) -> None:
    assert Scene(expires_at=IN_TIME).code(kind) == Code.APPLIED
    assert Scene(expires_at=NOW).code(kind) == Code.EXPIRED
    assert Scene(expires_at=LATE).code(kind) == Code.EXPIRED


@pytest.mark.parametrize(
    ("amount", "final", "left"),
    [(10, False, ("open", 30, 10)), (10, True, ("captured", 0, 10)), (40, False, ("captured", 0, 40))],
)
def test_a_capture_leaves_what_it_is_told_to_leave(amount: int, final: bool, left: tuple[str, int, int]) -> None:
    decision = Scene(options={"final": final}).decide("capture", amount)
    assert isinstance(decision, Applied)
    (changed,) = decision.effects
    assert isinstance(changed, ChangedHold)
    assert (changed.status, changed.remaining, changed.captured) == left
    assert decision.postings[0][1:] == (-amount, left[1] - 40)


# --- whose books they are ---------------------------------------------------------------------------------------------


def test_a_wallet_of_another_tenant_is_no_wallet() -> None:
    books = Scene().books()
    stranger = Spend(1, TENANT + 1, PARTITION, "alice", "gold", 30, None)
    books.assets[TENANT + 1, "gold"] = Asset(9, "active")
    decision = decide(books, stranger)
    assert isinstance(decision, Refused)
    assert decision.code == Code.WALLET_NOT_FOUND


# --- limits ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "full"), [("top_up", "alice"), ("bonus", "alice"), ("transfer", "bob"), ("spend", REVENUE)]
)
@pytest.mark.parametrize("amount", [1, AMOUNT_MAX])
def test_a_balance_may_reach_its_limit_and_not_pass_it(kind: str, full: str, amount: int) -> None:
    for over, code in ((0, Code.APPLIED), (1, Code.LIMIT_EXCEEDED)):
        scene = Scene(balances={"alice": 0 if kind in CREDITS else amount, "bob": 0})
        balances = scene.system if full.startswith("@") else scene.balances
        balances[full] = BALANCE_MAX - amount + over
        assert scene.code(kind, amount) == code


@pytest.mark.parametrize(("kind", "source"), [("top_up", TREASURY), ("bonus", BONUS)])
@pytest.mark.parametrize("amount", [1, AMOUNT_MAX])
def test_our_side_may_reach_its_limit_below_zero_and_not_pass_it(kind: str, source: str, amount: int) -> None:
    for over, code in ((0, Code.APPLIED), (1, Code.LIMIT_EXCEEDED)):
        scene = Scene(system={source: -BALANCE_MAX + amount - over})
        assert scene.code(kind, amount) == code


def test_no_sum_within_the_limits_leaves_bigint() -> None:
    assert BALANCE_MAX + AMOUNT_MAX < 2**63 + AMOUNT_MAX
    assert BALANCE_MAX < 2**63
    assert AMOUNT_MAX <= BALANCE_MAX


# --- what no client can have sent --------------------------------------------------------------------------------


def test_an_unknown_type_is_a_broken_invariant_not_a_refusal() -> None:
    scene = Scene()
    with pytest.raises(BrokenInvariant, match=r"^command 1 is of a type that this version does not know$"):
        decide(scene.books(), scene.command("conjure"))


@pytest.mark.parametrize("kind", CREDITS)
def test_a_missing_shard_of_a_system_wallet_breaks_instead_of_opening_one(kind: str) -> None:
    books = Scene().books()
    for wallet in SYSTEM_WALLETS:
        del books.accounts[TENANT, wallet, "gold", PARTITION]
    with pytest.raises((BrokenInvariant, KeyError)):
        decide(books, Scene().command(kind))
