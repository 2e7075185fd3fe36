"""What callers may call things. Each alphabet is anchored: nothing slips in behind the last character."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from ledger.names import (
    ASSET_MAX,
    ASSET_PATTERN,
    METADATA_DEPTH_MAX,
    METADATA_MAX_BYTES,
    NAME_PATTERN,
    TENANT_PATTERN,
    WALLET_MAX,
    WALLET_PATTERN,
    metadata_text,
)

IDS = {
    WALLET_PATTERN: ["a", "A", "0", "player-42", "Az09._:@+=~-", "user@example.com", "w" * WALLET_MAX],
    ASSET_PATTERN: ["g", "gold_coins", "a1", "x" * ASSET_MAX],
    TENANT_PATTERN: ["d", "default", "my-game-2", "t" * 63],
}
NEVER = [
    "",
    " ",
    "a b",
    "a\n",
    "\na",
    "a\x00",
    "a\x00b",
    "a\r",
    "a\u2028",
    "é",
    "aé",
    "\u0661",
    "a\uff11",
    "a/b",
    'a"b',
    "a\\b",
    "\uff21",
]
NOT_THESE = {
    WALLET_PATTERN: ["@treasury", ".a", "-a", "_a", "w" * (WALLET_MAX + 1)],
    ASSET_PATTERN: ["Gold", "1a", "_a", "a-b", "a.b", "x" * (ASSET_MAX + 1)],
    TENANT_PATTERN: ["Default", "1a", "-a", "a_b", "t" * 64],
}


@pytest.mark.parametrize(("pattern", "name"), [(pattern, name) for pattern, names in IDS.items() for name in names])
def test_names_of_the_alphabet_pass(pattern: str, name: str) -> None:
    assert re.search(pattern, name)


@pytest.mark.parametrize(
    ("pattern", "name"), [(pattern, name) for pattern, names in NOT_THESE.items() for name in [*names, *NEVER]]
)
def test_all_else_is_refused(pattern: str, name: str) -> None:
    assert not re.search(pattern, name)


@pytest.mark.parametrize("pattern", [WALLET_PATTERN, ASSET_PATTERN, TENANT_PATTERN])
@given(name=some.text(some.characters(max_codepoint=0xFF), min_size=1, max_size=4))
def test_what_passes_needs_no_escaping_anywhere(pattern: str, name: str) -> None:
    """Outcomes are written as JSON by hand: that is right only while no name needs a backslash."""
    if re.search(pattern, name):
        assert name.isascii()
        assert json.dumps(name) == f'"{name}"'


@pytest.mark.parametrize("name", ["Alice", "Алиса", "李小龙", "O'Neill & Søn", "👩‍🚀", " "])
def test_people_have_names_in_any_script(name: str) -> None:
    assert re.search(NAME_PATTERN, name)


@pytest.mark.parametrize("name", ["", "a\n", "a\x00", "\x1b[31m", "a\x7f", "a\x85", "a\tb", "\r"])
def test_no_name_plays_tricks_in_a_terminal(name: str) -> None:
    assert not re.search(NAME_PATTERN, name)


# --- metadata ----------------------------------------------------------------------------------------------------


def nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"a": 1}
    for _ in range(levels - 1):
        inner = {"a": inner}
    return inner


def test_metadata_is_the_same_text_whatever_the_order_of_its_members() -> None:
    assert metadata_text({"b": 1, "a": {"d": [2, {"z": 1, "y": 0}], "c": "ü"}}) == metadata_text(
        {"a": {"c": "ü", "d": [2, {"y": 0, "z": 1}]}, "b": 1}
    )
    assert json.loads(metadata_text({"b": [1, None, True], "a": "ü"})) == {"a": "ü", "b": [1, None, True]}


def test_metadata_may_be_a_page_and_not_a_byte_more() -> None:
    around = len('{"a":""}')
    assert len(metadata_text({"a": "x" * (METADATA_MAX_BYTES - around)})) == METADATA_MAX_BYTES
    with pytest.raises(ValueError, match=r"^must not be larger than 4096 bytes of JSON$"):
        metadata_text({"a": "x" * (METADATA_MAX_BYTES - around + 1)})


def test_metadata_is_measured_in_bytes_not_characters() -> None:
    with pytest.raises(ValueError, match=r"^must not be larger than 4096 bytes of JSON$"):
        metadata_text({"a": "ü" * (METADATA_MAX_BYTES // 2)})


def test_metadata_may_be_nested_so_deep_and_no_deeper() -> None:
    metadata_text(nested(METADATA_DEPTH_MAX))
    with pytest.raises(ValueError, match=r"^must not be nested deeper than 32 levels$"):
        metadata_text(nested(METADATA_DEPTH_MAX + 1))


@pytest.mark.parametrize("levels", [METADATA_DEPTH_MAX, METADATA_DEPTH_MAX + 1])
def test_an_array_is_a_level_as_an_object_is(levels: int) -> None:
    inner: list[Any] = []
    for _ in range(levels - 2):
        inner = [inner]
    if levels <= METADATA_DEPTH_MAX:
        metadata_text({"a": inner})
    else:
        with pytest.raises(ValueError, match=r"^must not be nested deeper than 32 levels$"):
            metadata_text({"a": inner})


def test_many_brackets_side_by_side_are_not_deep() -> None:
    metadata_text({"a": [[] for _ in range(100)], "b": "{[" * 50})
    metadata_text(nested(METADATA_DEPTH_MAX) | {"b": [[] for _ in range(100)]})


@pytest.mark.parametrize("metadata", [{"a": 1e300}, {"a": [{"b": 1e-7}]}])
def test_metadata_takes_no_number_that_jsonb_would_write_out_in_zeros(metadata: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"^must not hold numbers so large .* exponent; send them as strings$"):
        metadata_text(metadata)


def test_null_and_the_like_have_no_depth_and_no_exponent() -> None:
    crowd: list[Any] = [[] for _ in range(METADATA_DEPTH_MAX)]
    metadata = {"a": [None, True, False, 1, 0.5, "x"], "b": None, "c": "1e300", "d": crowd}
    assert json.loads(metadata_text(metadata)) == metadata


def test_what_only_looks_like_an_exponent_is_taken() -> None:
    assert json.loads(metadata_text({"a": "1e300", "b": 0.5, "c": 10**30})) == {"a": "1e300", "b": 0.5, "c": 10**30}
