"""Exchanges: integers only, exact to the last of the digits that may be sent."""

import re
from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.money import AMOUNT_MAX, RATE_PATTERN, Rounding, canonical_rate, exchanged

digits = st.text("0123456789", min_size=1, max_size=18)
rates = st.one_of(digits, st.builds("{}.{}".format, digits, digits))


@given(amount=st.integers(1, AMOUNT_MAX), rate=rates)
def test_what_an_amount_comes_to(amount: int, rate: str) -> None:
    exactly = amount * Fraction(rate)
    assert exchanged(amount, rate, "down") == floor(exactly)
    assert exchanged(amount, rate, "up") == ceil(exactly)
    assert exchanged(amount, rate, "half_even") == round(exactly)


@pytest.mark.parametrize(
    ("amount", "rate", "rounding", "to_amount"),
    [
        (5, "0.5", "down", 2),
        (5, "0.5", "up", 3),
        (5, "0.5", "half_even", 2),
        (7, "0.5", "half_even", 4),
        (5, "0.50000000000000001", "half_even", 3),
        (1, "0.999999999999999999", "down", 0),
        (1, "0.000000000000000001", "up", 1),
        (AMOUNT_MAX, "999999999999999999.999999999999999999", "down", 10**36 - 1),
        (3, "2", "up", 6),
    ],
)
def test_roundings(amount: int, rate: str, rounding: Rounding, to_amount: int) -> None:
    assert exchanged(amount, rate, rounding) == to_amount


@given(rate=rates)
def test_a_rate_without_needless_zeros_is_the_same_rate(rate: str) -> None:
    canonical = canonical_rate(rate)
    assert Fraction(canonical) == Fraction(rate)
    assert not canonical.endswith(".")
    assert "." not in canonical or not canonical.endswith("0")


@pytest.mark.parametrize(
    ("rate", "canonical"),
    [
        ("1.50", "1.5"),
        ("01.5", "1.5"),
        ("10", "10"),
        ("10.00", "10"),
        ("0.10", "0.1"),
        ("000", "0"),
        ("100.010", "100.01"),
    ],
)
def test_canonical_rates(rate: str, canonical: str) -> None:
    assert canonical_rate(rate) == canonical


@pytest.mark.parametrize("rate", ["1", "0.5", "000.1", "9" * 18, "9" * 18 + "." + "9" * 18, "0." + "0" * 17 + "1"])
def test_a_rate_has_up_to_eighteen_digits_on_either_side_of_its_point(rate: str) -> None:
    assert re.search(RATE_PATTERN, rate)


@pytest.mark.parametrize(
    "rate",
    [
        "", "0", "0.0", "000", ".", ".5", "1.", "1..5", "1.5.", "-1", "+1", "1e5", "1,5", " 1", "1 ", "1\n", "1.5\n",
        "\n1", "0\n1", "1" * 19, "1." + "1" * 19, "\u0661", "1_0", "1x5",
    ],
)  # fmt: skip
def test_all_else_is_no_rate(rate: str) -> None:
    assert not re.search(RATE_PATTERN, rate)
