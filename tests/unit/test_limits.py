"""Limits: how they are stored, and whose hold where an asset and a wallet have some."""

import pytest

from ledger.commands import REVENUE
from ledger.errors import Code
from ledger.limits import NO_LIMITS, Limits, Velocity, combine, read_limits, write_limits
from tests.unit.staging import Scene

ASSET = Limits(10, 20, Velocity(60, max_count=3), 40, 5)


def test_limits_are_stored_without_what_they_leave_open_and_none_as_nothing() -> None:
    assert write_limits(Limits(max_amount=10, velocity=Velocity(60, max_count=3))) == (
        '{"max_amount":10,"velocity":{"window_s":60,"max_count":3}}'
    )
    assert write_limits(NO_LIMITS) is None
    assert write_limits(Limits()) is None


@pytest.mark.parametrize("limits", [ASSET, Limits(max_balance=0), Limits(velocity=Velocity(1, 2, 3))])
def test_what_is_stored_is_read_again(limits: Limits) -> None:
    text = write_limits(limits)
    assert text is not None
    assert read_limits(text) == limits
    assert read_limits(text.encode()) == limits


@pytest.mark.parametrize(
    ("of_asset", "of_wallet", "hold"),
    [
        (None, None, NO_LIMITS),
        (ASSET, None, ASSET),
        (None, Limits(1, 2), Limits(1, 2)),
        (ASSET, Limits(balance_low_below=0), Limits(10, 20, Velocity(60, max_count=3), 40, 0)),
        (ASSET, NO_LIMITS, ASSET),
        (ASSET, Limits(max_amount=1), Limits(1, 20, Velocity(60, max_count=3), 40, 5)),
        (ASSET, Limits(max_amount=0), Limits(0, 20, Velocity(60, max_count=3), 40, 5)),
        (ASSET, Limits(max_balance=0), Limits(10, 0, Velocity(60, max_count=3), 40, 5)),
        (ASSET, Limits(velocity=Velocity(5, max_amount=6)), Limits(10, 20, Velocity(5, max_amount=6), 40, 5)),
        (Limits(max_supply=40), Limits(max_amount=1), Limits(1, max_supply=40)),
    ],
)
def test_a_wallets_limits_stand_before_the_assets_member_by_member(
    of_asset: Limits | None, of_wallet: Limits | None, hold: Limits
) -> None:
    assert combine(of_asset, of_wallet) == hold


PER_DAY = {"velocity": Velocity(86_400, max_count=1)}


@pytest.mark.parametrize(
    ("kind", "of_asset", "of_wallet", "code"),
    [
        ("spend", {"max_amount": 29}, {}, Code.AMOUNT_LIMIT_EXCEEDED),
        ("spend", {"max_amount": 29}, {"max_amount": 30}, Code.APPLIED),
        ("spend", {"max_amount": 30}, {"max_amount": 29}, Code.AMOUNT_LIMIT_EXCEEDED),
        ("spend", {"max_amount": 29}, {"max_balance": 1}, Code.AMOUNT_LIMIT_EXCEEDED),
        ("spend", PER_DAY, {}, Code.VELOCITY_LIMIT_EXCEEDED),
        ("spend", PER_DAY, {"velocity": Velocity(86_400, max_count=2)}, Code.APPLIED),
        ("top_up", {"max_balance": 129}, {}, Code.BALANCE_LIMIT_EXCEEDED),
        ("top_up", {"max_balance": 129}, {"max_balance": 130}, Code.APPLIED),
        ("top_up", {"max_balance": 130}, {"max_balance": 129}, Code.BALANCE_LIMIT_EXCEEDED),
    ],
)
def test_a_command_is_bound_by_what_holds(
    kind: str, of_asset: dict[str, object], of_wallet: dict[str, object], code: Code
) -> None:
    limits = {("alice", "gold"): of_wallet} if of_wallet else {}
    assert Scene(asset_limits=of_asset, limits=limits, debits=1 if "velocity" in of_asset else 0).code(kind) == code


def test_what_we_have_is_not_bound_by_the_balance_that_a_wallet_may_have() -> None:
    assert Scene(asset_limits={"max_balance": 1}, system={REVENUE: 500}).code("spend") == Code.APPLIED
    assert Scene(asset_limits={"max_balance": 1}, system={REVENUE: 500}).code("capture") == Code.APPLIED
