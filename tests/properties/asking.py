"""Random commands of every type, and what they are to both: to the bank and to its model."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import hypothesis.strategies as some

from ledger.commands import Precondition
from ledger.money import AMOUNT_MAX

# Two that are drained in one partition, and two in others; what they are called follows from that (tests.books).
WALLETS = {"alice": 1, "bob": 1, "charlie": 2, "dora": 5}
ASSETS = ("gold", "diamonds")
NOBODYS = "pebbles"  # an asset that nobody created
TICK = timedelta(seconds=10)  # times are whole ticks, so that they meet

Ordered = dict[str, Any]

# Small amounts meet balances, the largest ones meet the limits.
amounts = some.one_of(*[some.integers(1, 40)] * 7, some.sampled_from([AMOUNT_MAX, AMOUNT_MAX - 1, 1, 100]))
parts = some.one_of(some.none(), some.none(), some.integers(1, 30))
ticks = some.sampled_from([3, 4, 2, 1, 5, 6, 9, 0])  # from now: 0 is past, by then
orders_of_credits = some.sampled_from(
    ["soonest_to_expire", "soonest_to_expire", "promotional_first", "purchased_first", "oldest_first"]
)
preconditions = some.one_of(
    some.builds(Precondition, version=some.integers(0, 4)),
    some.builds(Precondition, available_gte=some.integers(0, 60)),
)
KINDS = (
    ["top_up"] * 3 + ["bonus"] * 3 + ["spend"] * 3 + ["transfer"] * 3 + ["hold"] * 4 + ["capture"] * 4
    + ["release"] * 2 + ["reverse"] * 5 + ["exchange"] * 2 + ["adjust"]
)  # fmt: skip


def _rarely(draw: some.DrawFn) -> bool:
    return draw(some.integers(0, 19)) == 13


@some.composite
def orders(draw: some.DrawFn, kinds: Sequence[str] = KINDS) -> Ordered:
    """A command before it has a number. Times are ticks from when it is accepted, `of` counts what it could name."""
    kind = draw(some.sampled_from(kinds))
    wallet = draw(some.sampled_from(list(WALLETS)))
    order: Ordered = {"kind": kind, "wallet": wallet, "amount": draw(amounts), "to_wallet": None, "of": None}
    order["asset"] = NOBODYS if _rarely(draw) else draw(some.sampled_from(["gold"] * 3 + ["diamonds"]))
    order["expires_at"] = draw(ticks) if _rarely(draw) else None
    options: dict[str, Any] = {"precondition": draw(preconditions) if _rarely(draw) else None}
    order["options"] = options
    others = some.sampled_from([other for other in WALLETS if other != wallet])
    if kind in ("spend", "transfer", "hold", "exchange"):
        options["credits_order"] = draw(orders_of_credits)
    if kind in ("top_up", "bonus") and draw(some.booleans()):
        options["credits_expire_at"] = draw(some.one_of(some.none(), ticks))
        options["priority"] = draw(some.one_of(some.none(), some.sampled_from([0, 49, 50, 51])))
        options["source"] = draw(some.sampled_from([None, "purchased", "promotional"]))
    match kind:
        case "transfer":
            order["to_wallet"] = draw(others)
        case "hold":
            options["hold_expires_at"] = draw(ticks)
        case "exchange":
            others = some.sampled_from([asset for asset in ASSETS if asset != order["asset"]])
            options["to_asset"] = NOBODYS if _rarely(draw) else draw(others)
            options["to_amount"] = draw(some.integers(1, 50))
        case "adjust":
            order["amount"] *= draw(some.sampled_from([1, -1]))
            options["reason"] = "counted wrong"
        case "capture" | "release" | "reverse":
            order["of"] = draw(some.integers(0, 30))
            order["amount"] = None if kind == "release" else draw(parts)
            if kind == "capture":
                order["to_wallet"] = draw(some.one_of(some.none(), some.sampled_from(list(WALLETS))))
                options["final"] = draw(some.booleans())
            if kind == "reverse":
                options["allow_negative"] = draw(some.booleans())
        case _:
            pass
    return order


bounds = some.one_of(some.none(), some.none(), some.integers(1, 40), some.integers(41, 300))
velocities = some.one_of(
    some.none(),
    some.fixed_dictionaries(
        {"window_s": some.sampled_from([10, 20, 40])},
        optional={"max_amount": some.integers(1, 100), "max_count": some.integers(1, 4)},
    ),
)
limits = some.fixed_dictionaries({"max_amount": bounds, "max_balance": bounds, "velocity": velocities})
limits_of_assets = some.fixed_dictionaries(
    {"max_amount": bounds, "max_balance": bounds, "velocity": velocities, "max_supply": some.integers(0, 1_000)}
)


def credit(wallet: str, amount: int, expires_in: int | None = None, **more: Any) -> Ordered:
    """Plain credits, or a lot that ends so many ticks from now."""
    order: Ordered = {"kind": "top_up", "wallet": wallet, "asset": "gold", "amount": amount, "to_wallet": None}
    return order | {"of": None, "expires_at": None, "options": {"credits_expire_at": expires_in, **more}}


def reserve(wallet: str, amount: int, expires_in: int) -> Ordered:
    """A hold that ends so many ticks from now."""
    return credit(wallet, amount) | {"kind": "hold", "options": {"hold_expires_at": expires_in}}
