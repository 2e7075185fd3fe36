"""Limits as clients write and read them (docs/commands.md, "Limits"): amounts are decimal digits, as everywhere."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from api.problems import invalid
from ledger.limits import WINDOW_MAX_S, Limits, Velocity

# A limit has 18 digits at the most: beyond that no balance comes near it, so it would be none.
LIMIT_AMOUNT_MAX = 10**18 - 1

LimitAmount = (
    Annotated[str, Meta(pattern=r"^[0-9]{1,18}$(?!\n)", description="Minor units of the asset, as decimal digits.")]
    | Annotated[int, Meta(ge=0, le=LIMIT_AMOUNT_MAX)]
)


class VelocityLimit(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """The debits of the last `window_s` seconds: how much together, how many. One of the two at least."""

    window_s: Annotated[int, Meta(ge=1, le=WINDOW_MAX_S)]
    max_amount: LimitAmount | None = None
    max_count: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None


class LimitsOfWallet(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A member that is absent or null is no limit of the wallet's own: the asset's holds."""

    max_amount: LimitAmount | None = None
    max_balance: LimitAmount | None = None
    velocity: VelocityLimit | None = None
    balance_low_below: (
        Annotated[LimitAmount, Meta(description="Bounds nothing: falling below it is told, `wallet.balance_low`.")]
        | None
    ) = None


class LimitsOfAsset(LimitsOfWallet, forbid_unknown_fields=True, omit_defaults=True):
    """A member that is absent or null is no limit."""

    max_supply: LimitAmount | None = None


def limits_from(asked: LimitsOfWallet, pointer: str) -> Limits:
    """What the ledger keeps. `pointer`: of `asked` in the body. Raises Problem, 422."""
    velocity = None
    if (wanted := asked.velocity) is not None:
        if wanted.max_amount is None and wanted.max_count is None:
            raise invalid(f"{pointer}/velocity", "needs max_amount or max_count, or both")
        velocity = Velocity(wanted.window_s, _minor(wanted.max_amount), wanted.max_count)
    max_supply = asked.max_supply if isinstance(asked, LimitsOfAsset) else None
    return Limits(
        _minor(asked.max_amount),
        _minor(asked.max_balance),
        velocity,
        _minor(max_supply),
        _minor(asked.balance_low_below),
    )


def _minor(amount: str | int | None) -> int | None:
    return None if amount is None else int(amount)


def show_limits(limits: Limits | None) -> dict[str, Any] | None:
    """Only the members that limit; None where none does."""
    if limits is None:
        return None
    shown: dict[str, Any] = msgspec.to_builtins(limits)
    for part in (shown, shown.get("velocity", {})):
        part |= {name: str(amount) for name, amount in part.items() if name in _AMOUNTS}
    return shown or None


_AMOUNTS = {"max_amount", "max_balance", "max_supply", "balance_low_below"}
