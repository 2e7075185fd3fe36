"""The rules, without a database: every command, every refusal, in the order in which a client is told."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from ledger.commands import BONUS, REVENUE, SYSTEM_WALLETS, TREASURY, Bonus, Command, Spend, TopUp, Transfer, Unknown
from ledger.decide import decide
from ledger.decisions import Account, Applied, Asset, Books, Refused
from ledger.errors import BrokenInvariant, Code
from ledger.money import AMOUNT_MAX, BALANCE_MAX

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATE = NOW - timedelta(microseconds=1)
IN_TIME = NOW + timedelta(microseconds=1)
TENANT, PARTITION, GOLD = 1, 3, 7


@dataclass
class Scene:
    """The books as one command meets them: alice and bob have 100 gold each, and all is well."""

    asset: str | None = "active"
    alice: str | None = "active"
    bob: str | None = "active"
    balances: dict[str, int] = field(default_factory=lambda: {"alice": 100, "bob": 100})
    held: dict[str, int] = field(default_factory=dict[str, int])
    system: dict[str, int] = field(default_factory=dict[str, int])
    expires_at: datetime | None = None

    def books(self) -> Books:
        books = Books(NOW)
        if self.asset:
            books.assets[TENANT, "gold"] = Asset(GOLD, self.asset)
        for number, wallet in enumerate(SYSTEM_WALLETS):
            key = (TENANT, wallet, "gold", PARTITION)
            books.accounts[key] = Account(key, 900 + number, GOLD, posted=self.system.get(wallet, 0))
            books.wallets[TENANT, wallet] = "active"
        for number, (wallet, status) in enumerate({"alice": self.alice, "bob": self.bob}.items()):
            if status:
                books.wallets[TENANT, wallet] = status
                if wallet in self.balances:
                    key = (TENANT, wallet, "gold", 0)
                    held = self.held.get(wallet, 0)
                    books.accounts[key] = Account(key, 10 + number, GOLD, self.balances[wallet], held, version=5)
        return books

    def command(self, kind: str, amount: int = 30) -> Command:
        order = (1, TENANT, PARTITION, "alice", "gold", amount, self.expires_at)
        match kind:
            case "top_up":
                return TopUp(*order)
            case "bonus":
                return Bonus(*order)
            case "spend":
                return Spend(*order)
            case "transfer":
                return Transfer(*order, to_wallet="bob")
            case _:
                return Unknown(*order)

    def decide(self, kind: str, amount: int = 30) -> Applied | Refused:
        """The decision; the books must be as they were."""
        books, command = self.books(), self.command(kind, amount)
        before = copy.deepcopy(books)
        decision = decide(books, command)
        assert books == before, "deciding changes nothing"
        assert decide(books, command) == decision, "and says the same again"
        return decision

    def code(self, kind: str, amount: int = 30) -> Code:
        decision = self.decide(kind, amount)
        return decision.code if isinstance(decision, Refused) else Code.APPLIED


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


# --- what is refused, and which refusal comes first --------------------------------------------------------------

Spoil = Callable[[Scene], None]


def expired(scene: Scene) -> None:
    scene.expires_at = LATE


def no_asset(scene: Scene) -> None:
    scene.asset = None


def frozen_asset(scene: Scene) -> None:
    scene.asset = "frozen"


def no_wallet(scene: Scene) -> None:
    scene.alice = None


def frozen_wallet(scene: Scene) -> None:
    scene.alice = "frozen"


def closed_wallet(scene: Scene) -> None:
    scene.alice = "closed"


def frozen_target(scene: Scene) -> None:
    scene.bob = "frozen"


def closed_target(scene: Scene) -> None:
    scene.bob = "closed"


def too_little(scene: Scene) -> None:
    scene.balances["alice"] = 29


def full_wallet(scene: Scene) -> None:
    scene.balances["alice"] = BALANCE_MAX


def full_target(scene: Scene) -> None:
    scene.balances["bob"] = BALANCE_MAX


def full_revenue(scene: Scene) -> None:
    scene.system[REVENUE] = BALANCE_MAX


def empty_treasury(scene: Scene) -> None:
    scene.system[TREASURY] = -BALANCE_MAX


def empty_bonus(scene: Scene) -> None:
    scene.system[BONUS] = -BALANCE_MAX


# Each list is the order of precedence: too late, no such asset, asset frozen, no such wallet, wallet not open, not
# enough, too much. What stands in one bracket cannot come together.
FIRST: list[list[tuple[Spoil, Code]]] = [
    [(expired, Code.EXPIRED)],
    [(no_asset, Code.ASSET_NOT_FOUND), (frozen_asset, Code.ASSET_FROZEN)],
]
CLOSED: list[tuple[Spoil, Code]] = [(frozen_wallet, Code.WALLET_FROZEN), (closed_wallet, Code.WALLET_CLOSED)]
REFUSALS: dict[str, list[list[tuple[Spoil, Code]]]] = {
    "top_up": [*FIRST, CLOSED, [(full_wallet, Code.LIMIT_EXCEEDED), (empty_treasury, Code.LIMIT_EXCEEDED)]],
    "bonus": [*FIRST, CLOSED, [(full_wallet, Code.LIMIT_EXCEEDED), (empty_bonus, Code.LIMIT_EXCEEDED)]],
    "spend": [
        *FIRST,
        [(no_wallet, Code.WALLET_NOT_FOUND), *CLOSED],
        [(too_little, Code.INSUFFICIENT_FUNDS)],
        [(full_revenue, Code.LIMIT_EXCEEDED)],
    ],
    "transfer": [
        *FIRST,
        [(no_wallet, Code.WALLET_NOT_FOUND), *CLOSED],
        [(frozen_target, Code.WALLET_FROZEN), (closed_target, Code.WALLET_CLOSED)],
        [(too_little, Code.INSUFFICIENT_FUNDS)],
        [(full_target, Code.LIMIT_EXCEEDED)],
    ],
}
SINGLES = [(kind, spoil, code) for kind, ranks in REFUSALS.items() for rank in ranks for spoil, code in rank]
PAIRS = [
    (kind, first, second, code)
    for kind, ranks in REFUSALS.items()
    for number, rank in enumerate(ranks)
    for first, code in rank
    for later in ranks[number + 1 :]
    for second, _ in later
]


@pytest.mark.parametrize(("kind", "spoil", "code"), SINGLES)
def test_each_refusal_has_its_code_and_a_detail_for_a_person(kind: str, spoil: Spoil, code: Code) -> None:
    scene = Scene()
    spoil(scene)
    decision = scene.decide(kind)
    assert isinstance(decision, Refused)
    assert decision.code == code
    assert decision.detail


@pytest.mark.parametrize(("kind", "first", "second", "code"), PAIRS)
def test_of_two_refusals_the_client_gets_the_first(kind: str, first: Spoil, second: Spoil, code: Code) -> None:
    scene = Scene()
    second(scene)
    first(scene)
    assert scene.code(kind) == code


@pytest.mark.parametrize(
    ("spoil", "kind", "says"),
    [
        (no_wallet, "spend", "no wallet alice"),
        (frozen_wallet, "spend", "wallet alice is frozen"),
        (closed_target, "transfer", "wallet bob is closed"),
        (frozen_asset, "top_up", "asset gold is frozen"),
        (no_asset, "top_up", "no asset gold"),
        (too_little, "spend", "available 29, needed 30"),
        (full_target, "transfer", str(BALANCE_MAX)),
        (expired, "spend", "2026-11-21T11:59:59.999999+00:00"),
    ],
)
def test_a_detail_names_what_stands_in_the_way(spoil: Spoil, kind: str, says: str) -> None:
    scene = Scene()
    spoil(scene)
    decision = scene.decide(kind)
    assert isinstance(decision, Refused)
    assert says in decision.detail


def test_a_wallet_of_another_tenant_is_no_wallet() -> None:
    books = Scene().books()
    stranger = Spend(1, TENANT + 1, PARTITION, "alice", "gold", 30, None)
    books.assets[TENANT + 1, "gold"] = Asset(8, "active")
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
    with pytest.raises(BrokenInvariant):
        decide(scene.books(), scene.command("conjure"))


@pytest.mark.parametrize("kind", CREDITS)
def test_a_missing_shard_of_a_system_wallet_breaks_instead_of_opening_one(kind: str) -> None:
    books = Scene().books()
    for wallet in SYSTEM_WALLETS:
        del books.accounts[TENANT, wallet, "gold", PARTITION]
    with pytest.raises((BrokenInvariant, KeyError)):
        decide(books, Scene().command(kind))
