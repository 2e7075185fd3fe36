"""Each refusal of each command, and of any two the one that docs/commands.md tells first."""

from collections.abc import Callable

import pytest

from ledger.commands import EXCHANGE, REVENUE, Precondition
from ledger.decisions import Refused
from ledger.errors import Code
from ledger.limits import Velocity
from ledger.lots import LOTS_MAX, Lot
from ledger.money import BALANCE_MAX
from tests.unit.staging import IN_TIME, KINDS, LATE, NOW, OURS, Place, Scene

Spoil = Callable[[Scene], None]
Rank = list[tuple[Spoil, Code]]  # what cannot come together


def put(**values: object) -> Spoil:
    """Fields of the scene."""

    def spoil(scene: Scene) -> None:
        for name, value in values.items():
            setattr(scene, name, value)

    spoil.__name__ = ", ".join(f"{name}={value}" for name, value in values.items())
    return spoil


def option(name: str, value: object) -> Spoil:
    def spoil(scene: Scene) -> None:
        scene.options[name] = value

    spoil.__name__ = f"{name}={value}"
    return spoil


def balance(wallet: str, amount: int) -> Spoil:
    def spoil(scene: Scene) -> None:
        if wallet == "alice's diamonds":
            scene.diamonds = amount
        else:
            (scene.system if wallet.startswith("@") else scene.balances)[wallet] = amount

    spoil.__name__ = f"{wallet} has {amount}"
    return spoil


def limit(place: Place, **limits: object) -> Spoil:
    def spoil(scene: Scene) -> None:
        scene.limits[place] = scene.limits.get(place, {}) | limits

    spoil.__name__ = f"{place} {limits}"
    return spoil


def lots(place: Place, number: int) -> Spoil:
    """So many lots of a unit each; whoever pays has to hand one on."""

    def spoil(scene: Scene) -> None:
        scene.lots[place] = [Lot(n, 1, NOW, "purchased", 50, None, 1) for n in range(number)]
        scene.balances[place[0]] = max(scene.balances.get(place[0], 0), number)

    spoil.__name__ = f"{place} has {number} lots"
    return spoil


def both(*spoils: Spoil) -> Spoil:
    def spoil(scene: Scene) -> None:
        for each in spoils:
            each(scene)

    spoil.__name__ = " and ".join(each.__name__ for each in spoils)
    return spoil


ALICE, BOB, DIAMONDS = ("alice", "gold"), ("bob", "gold"), ("alice", "diamonds")


def frozen(wallet: str) -> Rank:
    return [(put(**{wallet: "frozen"}), Code.WALLET_FROZEN), (put(**{wallet: "closed"}), Code.WALLET_CLOSED)]


def paying(wallet: str) -> Rank:
    """One that was there when what the command names was applied."""
    return [*frozen(wallet), (put(**{wallet: "debits_frozen"}), Code.WALLET_FROZEN)]


def ends(*times: str) -> Rank:
    return [(put(expires_at=LATE), Code.EXPIRED), *((option(name, NOW), Code.EXPIRED) for name in times)]


ASSET: Rank = [(put(asset=None), Code.ASSET_NOT_FOUND), (put(asset="frozen"), Code.ASSET_FROZEN)]
TO_ASSET: Rank = [(put(to_asset=None), Code.ASSET_NOT_FOUND), (put(to_asset="frozen"), Code.ASSET_FROZEN)]
PAYER: Rank = [(put(alice=None), Code.WALLET_NOT_FOUND), *paying("alice")]
EXPECTED: Rank = [
    (option("precondition", Precondition(version=6)), Code.PRECONDITION_FAILED),
    (option("precondition", Precondition(available_gte=BALANCE_MAX + 1)), Code.PRECONDITION_FAILED),
]
NOT_PLACED: Rank = [(put(named=False), Code.COMMAND_NOT_APPLIED)]
ENDED: Rank = [
    *((put(hold_status=status), Code.HOLD_NOT_OPEN) for status in ("captured", "released", "expired")),
    (put(hold_expires_at=NOW), Code.HOLD_NOT_OPEN),
]
AMOUNT: Rank = [(limit(ALICE, max_amount=29), Code.AMOUNT_LIMIT_EXCEEDED)]
VELOCITY: Rank = [
    (both(put(debits=1), limit(ALICE, velocity=Velocity(60, max_count=1))), Code.VELOCITY_LIMIT_EXCEEDED),
    (both(put(debits=1), limit(ALICE, velocity=Velocity(60, max_amount=29))), Code.VELOCITY_LIMIT_EXCEEDED),
]
POOR: Rank = [(balance("alice", 29), Code.INSUFFICIENT_FUNDS)]
SUPPLY: Rank = [(put(headroom=14), Code.SUPPLY_LIMIT_EXCEEDED)]


def full(*wallets: str) -> Rank:
    return [(balance(wallet, BALANCE_MAX), Code.LIMIT_EXCEEDED) for wallet in wallets]


def spent(wallet: str) -> Rank:
    return [(balance(wallet, -BALANCE_MAX), Code.LIMIT_EXCEEDED)]


def credit(kind: str) -> list[Rank]:
    crowded = both(option("priority", 1), lots(ALICE, LOTS_MAX))
    return [
        ends("credits_expire_at"), ASSET, frozen("alice"), EXPECTED, AMOUNT,
        [(limit(ALICE, max_balance=129), Code.BALANCE_LIMIT_EXCEEDED)], SUPPLY,
        [(crowded, Code.TOO_MANY_LOTS)], [*full("alice"), *spent(OURS[kind])],
    ]  # fmt: skip


REVERSED: Rank = [(put(left=0), Code.ALREADY_REVERSED)]
REVERSED_IN_PART: Rank = [(put(left=29), Code.REVERSAL_EXCEEDED)]
RICH: Rank = [(limit(BOB, max_balance=129), Code.BALANCE_LIMIT_EXCEEDED)]
CROWDED: Rank = [(both(lots(ALICE, 1), lots(BOB, LOTS_MAX)), Code.TOO_MANY_LOTS)]

# By kind, rank after rank, as they are told.
REFUSALS: dict[str, list[Rank]] = {
    "top_up": credit("top_up"),
    "bonus": credit("bonus"),
    "spend": [ends(), ASSET, PAYER, EXPECTED, AMOUNT, VELOCITY, POOR, full(REVENUE)],
    "transfer": [
        ends(), ASSET, PAYER, frozen("bob"), EXPECTED, AMOUNT, VELOCITY, POOR, RICH, CROWDED, full("bob"),
    ],
    "hold": [ends("hold_expires_at"), ASSET, PAYER, EXPECTED, AMOUNT, VELOCITY, POOR],
    "capture": [
        ends(), ASSET, NOT_PLACED, ENDED, paying("alice"), EXPECTED, [(put(left=29), Code.HOLD_EXCEEDED)],
        full(REVENUE),
    ],
    "capture to bob": [
        ends(), ASSET, NOT_PLACED, ENDED, paying("alice"), frozen("bob"), EXPECTED,
        [(put(left=29), Code.HOLD_EXCEEDED)], RICH, CROWDED, full("bob"),
    ],
    "release": [ends(), ASSET, NOT_PLACED, ENDED, frozen("alice"), EXPECTED],
    "exchange": [
        ends(), ASSET, TO_ASSET, PAYER, EXPECTED, AMOUNT, VELOCITY, POOR,
        [(limit(DIAMONDS, max_balance=114), Code.BALANCE_LIMIT_EXCEEDED)], SUPPLY,
        [*full(EXCHANGE, "alice's diamonds"), *spent(EXCHANGE)],
    ],
    "adjust": [ends(), ASSET, frozen("alice"), EXPECTED, [*full("alice"), *spent("@adjustment")]],
    "adjust down": [ends(), ASSET, PAYER, EXPECTED, POOR, full("@adjustment")],
    "reverse spend": [
        ends(), ASSET, NOT_PLACED, REVERSED, frozen("alice"), EXPECTED, REVERSED_IN_PART,
        [*full("alice"), *spent(REVENUE)],
    ],
    "reverse top_up": [
        ends(), ASSET, NOT_PLACED, REVERSED, paying("alice"), EXPECTED, REVERSED_IN_PART, POOR, full("@treasury"),
    ],
    "reverse transfer": [
        ends(), ASSET, NOT_PLACED, REVERSED, frozen("alice"), paying("bob"), EXPECTED, REVERSED_IN_PART,
        [(balance("bob", 29), Code.INSUFFICIENT_FUNDS)], full("alice"),
    ],
    "reverse exchange": [
        ends(), ASSET, NOT_PLACED, REVERSED, TO_ASSET, paying("alice"), EXPECTED, REVERSED_IN_PART,
        [(balance("alice's diamonds", 14), Code.INSUFFICIENT_FUNDS)], [*full("alice"), *spent(EXCHANGE)],
    ],
    "close to bob": [
        [(put(asset="frozen"), Code.ASSET_FROZEN), (put(to_asset="frozen"), Code.ASSET_FROZEN)],
        [(put(bob=None), Code.WALLET_NOT_FOUND), *frozen("bob")],
        [
            (put(held={"alice": 1}), Code.WALLET_NOT_EMPTY), (balance("alice", -1), Code.WALLET_NOT_EMPTY),
            (put(lots={ALICE: [Lot(50, 1, NOW, "purchased", 50, NOW, 1)]}), Code.WALLET_NOT_EMPTY),
        ],
        CROWDED, full("bob"),
    ],
}  # fmt: skip
SINGLES = [(kind, spoil, code) for kind, ranks in REFUSALS.items() for rank in ranks for spoil, code in rank]
PAIRS = [
    (kind, first, second, code)
    for kind, ranks in REFUSALS.items()
    for number, rank in enumerate(ranks)
    for first, code in rank
    for later in ranks[number + 1 :]
    for second, _ in later
]


def name(value: object) -> str:
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_command_applies_when_nothing_is_in_its_way(kind: str) -> None:
    assert Scene().code(kind) == Code.APPLIED


@pytest.mark.parametrize(("kind", "spoil", "code"), SINGLES, ids=name)
def test_each_refusal_has_its_code_and_a_detail_for_a_person(kind: str, spoil: Spoil, code: Code) -> None:
    scene = Scene()
    spoil(scene)
    decision = scene.decide(kind)
    assert isinstance(decision, Refused)
    assert decision.code == code
    assert decision.detail


@pytest.mark.parametrize("kind", REFUSALS)
def test_of_two_refusals_the_client_gets_the_first(kind: str) -> None:
    told: list[str] = []
    for of, first, second, code in PAIRS:
        if of == kind:
            scene = Scene()
            second(scene)
            first(scene)
            if (got := scene.code(kind)) != code:
                told.append(f"{got}, not {code}: {first.__name__}; {second.__name__}")
    assert not told


@pytest.mark.parametrize("kind", ["top_up", "bonus", "release", "adjust", "reverse spend", "reverse transfer"])
def test_frozen_debits_take_credits(kind: str) -> None:
    assert Scene(alice="debits_frozen").code(kind) == Code.APPLIED


@pytest.mark.parametrize("kind", ["transfer", "capture to bob"])
def test_frozen_debits_take_what_another_wallet_gives(kind: str) -> None:
    assert Scene(bob="debits_frozen").code(kind) == Code.APPLIED


@pytest.mark.parametrize("kind", ["reverse top_up", "reverse transfer", "reverse exchange"])
def test_a_reversal_that_may_take_a_wallet_below_zero_does_not_ask_for_funds(kind: str) -> None:
    scene = Scene(balances={"alice": 0, "bob": 0}, diamonds=0, options={"allow_negative": True})
    assert scene.code(kind) == Code.APPLIED


@pytest.mark.parametrize("kind", ["adjust", "adjust down", "reverse spend", "reverse transfer", "reverse exchange"])
def test_limits_do_not_bind_corrections(kind: str) -> None:
    tight = {"max_amount": 1, "max_balance": 1, "velocity": Velocity(60, max_count=1)}
    limits = {place: dict[str, object](tight) for place in (ALICE, BOB, DIAMONDS)}
    assert Scene(debits=1, headroom=0, limits=limits).code(kind) == Code.APPLIED


@pytest.mark.parametrize(
    ("kind", "just"),
    [
        ("spend", option("precondition", Precondition(version=5, available_gte=100))),
        ("spend", limit(ALICE, max_amount=30)),
        ("spend", both(put(debits=1), limit(ALICE, velocity=Velocity(60, max_count=2, max_amount=30)))),
        ("spend", balance("alice", 30)),
        ("top_up", limit(ALICE, max_balance=130)),
        ("transfer", limit(BOB, max_balance=130)),
        ("exchange", both(limit(DIAMONDS, max_balance=115), put(headroom=15))),
        ("top_up", put(headroom=30)),
        ("top_up", both(option("priority", 1), lots(ALICE, LOTS_MAX - 1))),
        ("top_up", lots(ALICE, LOTS_MAX)),  # a plain one makes no lot
        ("capture", put(left=30)),
        ("reverse spend", put(left=30)),
        ("reverse top_up", balance("alice", 30)),
        ("adjust down", balance("alice", 30)),
    ],
    ids=name,
)
def test_what_is_just_enough_is_enough(kind: str, just: Spoil) -> None:
    scene = Scene()
    just(scene)
    assert scene.code(kind) == Code.APPLIED


@pytest.mark.parametrize("kind", ["expire_hold", "expire_credits"])
@pytest.mark.parametrize(
    "spoil",
    [
        put(asset="frozen"), put(alice="frozen"), put(alice="closed"), put(alice="debits_frozen"),
        put(expires_at=IN_TIME), option("precondition", Precondition(version=6)),
        limit(ALICE, max_amount=1, max_balance=1), put(headroom=0),
    ],
    ids=name,
)  # fmt: skip
def test_nothing_stops_the_clock(kind: str, spoil: Spoil) -> None:
    scene = Scene(lots={ALICE: [Lot(50, 1, NOW, "purchased", 50, NOW, 30)]})
    spoil(scene)
    assert scene.code(kind) == Code.APPLIED


@pytest.mark.parametrize("status", ["captured", "released", "expired"])
def test_a_hold_ends_once(status: str) -> None:
    assert Scene(hold_status=status).code("expire_hold") == Code.HOLD_NOT_OPEN


def test_credits_that_are_gone_do_not_expire() -> None:
    assert Scene(lots={ALICE: [Lot(50, 1, NOW, "purchased", 50, NOW, 0)]}).code("expire_credits") == Code.EXPIRED
    assert Scene(lots={ALICE: [Lot(50, 1, NOW, "purchased", 50, NOW, 9, 9)]}).code("expire_credits") == Code.EXPIRED
    assert Scene(lots={ALICE: [Lot(50, 2, NOW, "purchased", 50, NOW, 9)]}).code("expire_credits") == Code.EXPIRED


def test_credits_stay_where_expired_ones_would_be_too_many() -> None:
    scene = Scene(lots={ALICE: [Lot(50, 1, NOW, "purchased", 50, NOW, 1)]}, system={"@expired": BALANCE_MAX - 1})
    assert scene.code("expire_credits") == Code.APPLIED
    scene.system["@expired"] = BALANCE_MAX
    assert scene.code("expire_credits") == Code.LIMIT_EXCEEDED


@pytest.mark.parametrize("status", ["active", "frozen", "debits_frozen"])
def test_an_empty_wallet_closes_whatever_its_status(status: str) -> None:
    assert Scene(alice=status, balances={"alice": 0}, diamonds=0).code("close") == Code.APPLIED
    assert Scene(alice=status, balances={"alice": 1}, diamonds=0).code("close") == Code.WALLET_NOT_EMPTY
    assert Scene(alice=status, balances={"alice": 0}, diamonds=1).code("close") == Code.WALLET_NOT_EMPTY
    assert Scene(alice=status).code("close to bob") == Code.APPLIED


def test_every_kind_of_command_has_its_refusals_here() -> None:
    assert set(REFUSALS) == set(KINDS) - {"expire_hold", "expire_credits", "close"}
