"""Amounts: integers of minor units, in Python and in PostgreSQL (`bigint`); decimal strings in JSON.

An asset's `scale` says where the point stands when a person reads it (scale 2: `"150"` is 1.50). It never takes part
in arithmetic (docs/decisions/0005-ids-and-amounts.md).
"""

from typing import Literal

# The largest amount of one command: room for nine of them in a balance before BALANCE_MAX, and 18 digits fit any
# client's decimal type.
AMOUNT_MAX = 10**18
# No balance, ours or a player's, goes beyond this on either side. Below 2**63, so that no sum overflows `bigint`.
BALANCE_MAX = 9 * 10**18

# An exchange's rate: minor units of the one asset per minor unit of the other. As many digits as an amount has.
RATE_PATTERN = r"^(?=.*[1-9])[0-9]{1,18}(?:\.[0-9]{1,18})?$(?!\n)"
Rounding = Literal["down", "up", "half_even"]


def canonical_rate(rate: str) -> str:
    """Without zeros that say nothing: `01.50` is `1.5`."""
    whole, _, fraction = rate.partition(".")
    fraction = fraction.rstrip("0")
    return f"{int(whole)}.{fraction}" if fraction else str(int(whole))


def exchanged(amount: int, rate: str, rounding: Rounding) -> int:
    """What `amount` comes to at `rate`, in whole minor units: rounded down unless said, so that we keep the rest."""
    whole, _, fraction = rate.partition(".")
    unit = 10 ** len(fraction)
    result, rest = divmod(amount * int(whole + fraction), unit)
    match rounding:
        case "up":
            return result + (rest > 0)
        case "half_even":
            return result + (2 * rest > unit or (2 * rest == unit and result % 2 == 1))
        case "down":
            return result
