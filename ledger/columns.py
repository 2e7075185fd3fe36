"""Lists as PostgreSQL arrays, for the statements that carry a whole batch in a few columns.

psycopg dumps a list at 125 ns an element, and takes the smallest integer type that the values of the day fit in: a
column of balances is now int4[], now int8[], and each mix of them a prepared statement of its own. Here integers are
always bigint[], at 30 ns an element, texts take 45, a column of NULLs nothing. Of other types (times) and of lists in
lists psycopg takes care as before.
"""

import struct
import sys
from array import array
from types import NoneType
from typing import Any

import psycopg
from psycopg.abc import AdaptContext, Buffer, DumperKey
from psycopg.adapt import PyFormat
from psycopg.pq import Format
from psycopg.types.array import BaseListDumper, ListBinaryDumper
from psycopg.types.string import StrBinaryDumper

_BIGINT, _BIGINT_ARRAY = 20, 1016  # OIDs of PostgreSQL's own types never change
_TEXT, _TEXT_ARRAY = 25, 1009
_BYTEA, _BYTEA_ARRAY = 17, 1001

_head = struct.Struct("!5i").pack  # dimensions, whether there are NULLs, element type; size, lower bound
_bigint = struct.Struct("!iq").pack  # an element: its length in bytes, then itself
_length = struct.Struct("!i").pack
_NULL = _length(-1)
_NULL_CHARACTERS = _NULL.decode("latin-1")
# The four bytes of a text's length as characters: one join and one encoding do the rest. Longer texts are psycopg's.
_LENGTHS = [_length(length).decode("latin-1") for length in range(2048)]


class _Bigints(ListBinaryDumper):
    oid = _BIGINT_ARRAY

    def dump(self, obj: list[Any]) -> Buffer | None:
        """Written byte by byte of all numbers at once, which takes no step of Python's for each of them."""
        numbers = array("q", obj)  # OverflowError beyond 64 bits, which no column of ours holds
        if sys.byteorder == "little":
            numbers.byteswap()
        packed = numbers.tobytes()
        elements = bytearray(_bigint(8, 0) * len(obj))
        for byte in range(8):
            elements[4 + byte :: 12] = packed[byte::8]
        return _head(1, 0, _BIGINT, len(obj), 1) + elements


class _BigintsAndNulls(ListBinaryDumper):
    oid = _BIGINT_ARRAY

    def dump(self, obj: list[Any]) -> Buffer | None:
        elements = [_NULL if number is None else _bigint(8, number) for number in obj]
        return _head(1, 1, _BIGINT, len(obj), 1) + b"".join(elements)


class _Texts(ListBinaryDumper):
    oid = _TEXT_ARRAY

    def __init__(self, cls: type, context: AdaptContext | None = None) -> None:
        super().__init__(cls, context)
        self.sub_dumper = StrBinaryDumper(str, context)

    def dump(self, obj: list[Any]) -> Buffer | None:
        if max(map(len, obj)) >= len(_LENGTHS) or not "".join(obj).isascii():
            return super().dump(obj)
        elements = "".join([_LENGTHS[len(text)] + text for text in obj])
        return _head(1, 0, _TEXT, len(obj), 1) + elements.encode("latin-1")


class _TextsAndNulls(_Texts):
    def dump(self, obj: list[Any]) -> Buffer | None:
        texts: list[str] = [text for text in obj if text is not None]
        if max(map(len, texts), default=0) >= len(_LENGTHS) or not "".join(texts).isascii():
            return ListBinaryDumper.dump(self, obj)
        elements = "".join([_NULL_CHARACTERS if text is None else _LENGTHS[len(text)] + text for text in obj])
        return _head(1, 1, _TEXT, len(obj), 1) + elements.encode("latin-1")


class _Byteas(ListBinaryDumper):
    oid = _BYTEA_ARRAY

    def dump(self, obj: list[Any]) -> Buffer | None:
        return _head(1, 0, _BYTEA, len(obj), 1) + b"".join([_length(len(value)) + value for value in obj])


class _Nulls(BaseListDumper):
    """In text, so that PostgreSQL takes their type from where they stand."""

    format = Format.TEXT

    def dump(self, obj: list[Any]) -> Buffer | None:
        return b"{NULL" + b",NULL" * (len(obj) - 1) + b"}"


class _Columns(ListBinaryDumper):
    """Chooses one of the above by the types of the elements."""

    def get_key(self, obj: list[Any], format: PyFormat) -> DumperKey:
        chosen = _choose(obj)
        return (self.cls, chosen) if chosen else super().get_key(obj, format)

    def upgrade(self, obj: list[Any], format: PyFormat) -> BaseListDumper:
        chosen = _choose(obj)
        return chosen(self.cls, self._tx) if chosen else super().upgrade(obj, format)


def _choose(column: list[Any]) -> type[BaseListDumper] | None:
    kinds = set(map(type, column))
    nulls = NoneType in kinds
    kinds.discard(NoneType)
    if not kinds:
        return _Nulls if nulls else None
    if kinds == {int}:
        return _BigintsAndNulls if nulls else _Bigints
    if kinds == {bytes} and not nulls:
        return _Byteas
    if all(issubclass(kind, str) for kind in kinds):  # an enum of codes is text, too
        return _TextsAndNulls if nulls else _Texts
    return None


def register(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Have this connection send its lists so."""
    connection.adapters.register_dumper(list, _Columns)
