"""Amounts: integers of minor units, in Python and in PostgreSQL (`bigint`); decimal strings in JSON.

An asset's `scale` says where the point stands when a person reads it (scale 2: `"150"` is 1.50). It never takes part
in arithmetic (docs/decisions/0005-ids-and-amounts.md).
"""

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from typing import Literal

Rounding = Literal["down", "up", "half_even"]

# The largest amount of one command: room for nine of them in a balance before BALANCE_MAX, and 18 digits fit any
# client's decimal type.
AMOUNT_MAX = 10**18
# No balance, ours or a player's, goes beyond this on either side. Below 2**63, so that no sum overflows `bigint`.
BALANCE_MAX = 9 * 10**18

# A product of an amount (19 digits) and a rate (18 before the point, 18 after it) is exact in so many digits.
_exact = Context(prec=64)
_ROUNDINGS = {"down": ROUND_FLOOR, "up": ROUND_CEILING, "half_even": ROUND_HALF_EVEN}


def exchanged(amount: int, rate: str, rounding: Rounding) -> int:
    """What `amount` minor units make at `rate`, a decimal string, in minor units of the other asset.

    `down` leaves what is less than a unit to the house, `up` gives it to the player; `half_even` is fair on average.
    """
    product = _exact.multiply(Decimal(amount), Decimal(rate))
    return int(product.quantize(Decimal(1), _ROUNDINGS[rounding], _exact))
