"""What callers may choose: the alphabets and lengths of ids, names and texts. One place, for every door.

The patterns are for `re.search` and for JSON Schema alike: anchored, and the look-ahead refuses the newline that
Python's `$` would let pass behind the last character.
"""

import re
from collections.abc import Iterator
from types import NoneType
from typing import Any, cast

import msgspec

WALLET_MAX = 128
WALLET_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@+=~-]{0,127}$(?!\n)"  # no leading @: those are the system's own
is_wallet_id = re.compile(WALLET_PATTERN).search
ASSET_MAX = 64
ASSET_PATTERN = r"^[a-z][a-z0-9_]{0,63}$(?!\n)"
is_asset_code = re.compile(ASSET_PATTERN).search
TENANT_PATTERN = r"^[a-z][a-z0-9-]{0,62}$(?!\n)"

# Names are for people: any script, no control characters (C0, DEL, C1), which would play tricks in logs and tables.
NAME_MAX = 200
NAME_PATTERN = r"^[^\x00-\x1f\x7f-\x9f]+$(?!\n)"
REFERENCE_MAX = 200  # the caller's own: an order, a match

# A command's metadata travels with its entries, events and webhooks: a page of memory, never a store for documents.
METADATA_MAX_BYTES = 4096
METADATA_DEPTH_MAX = 32  # deeper than any real document; far below what JSON readers recurse into


def metadata_text(metadata: dict[str, Any]) -> str:
    """Metadata as JSON text with sorted members. Raises ValueError, with a detail for the caller, past a limit."""
    encoded = _sorted.encode(metadata)
    if len(encoded) > METADATA_MAX_BYTES:
        raise ValueError(f"must not be larger than {METADATA_MAX_BYTES} bytes of JSON")
    # Counting brackets is cheap and errs on the safe side; only what might be too deep is measured.
    if encoded.count(b"{") + encoded.count(b"[") > METADATA_DEPTH_MAX and _depth(metadata) > METADATA_DEPTH_MAX:
        raise ValueError(f"must not be nested deeper than {METADATA_DEPTH_MAX} levels")
    if _EXPONENT.search(encoded) and any("e" in repr(value) for value in _floats(metadata)):
        raise ValueError("must not hold numbers so large or small that they need an exponent; send them as strings")
    return encoded.decode()


_EXPONENT = re.compile(rb"[0-9]e[+-]?[0-9]")  # such a number, or a text that looks like one; jsonb writes out its zeros
_sorted = msgspec.json.Encoder(order="sorted")


def _depth(root: object) -> int:
    """Levels of objects and arrays, counted level by level: no recursion to exhaust."""
    depth, level = 0, [root]
    while level := [value for value in level if not isinstance(value, _SCALARS)]:
        depth, level = depth + 1, [inner for value in level for inner in _inside(value)]
    return depth


def _floats(root: object) -> Iterator[float]:
    level = [root]
    while level := [inner for value in level if not isinstance(value, _SCALARS) for inner in _inside(value)]:
        yield from (value for value in level if isinstance(value, float))


def _inside(value: object) -> list[object]:
    return list(cast(dict[str, object], value).values()) if isinstance(value, dict) else cast(list[object], value)


_SCALARS = (str, int, float, NoneType)
