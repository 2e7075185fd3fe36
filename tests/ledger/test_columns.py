"""Columns arrive as psycopg itself would send them, whatever stands in them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from ledger import db
from ledger.errors import Code

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with db.connect(database_url, application="test") as connection:
        yield connection


@pytest.mark.parametrize(
    ("type_", "column"),
    [
        ("bigint", [0, 1, -1, 2**63 - 1, -(2**63)]),
        ("bigint", [7, None, -7]),
        ("bigint", [None, None]),
        ("bigint", []),
        ("int", [1, 2**31 - 1, -(2**31)]),
        ("smallint", [1, 32767, None]),
        ("text", ["", "a", "b" * 2047, "c" * 300]),
        ("text", ["a", "b" * 2048]),
        ("text", ["ä", "€", "a\U0001f600"]),
        ("text", ["a", None, ""]),
        ("text", ["ä", None]),
        ("text", ["b" * 5000, None]),
        ("text", [None]),
        ("text", []),
        ("text", [Code.APPLIED, "x"]),
        ("timestamptz", [AT, None, AT]),
        ("bytea", [b"\x00\xff", b"", bytes(32)]),
        ("bytea", [b"\x00", None]),
        ("boolean", [True, False]),
    ],
)
def test_a_column_arrives_as_it_was(connection: psycopg.Connection[Any], type_: str, column: list[Any]) -> None:
    query = f"SELECT %b::{type_}[]".encode()

    assert connection.execute(query, (column,)).fetchone() == (column,)
    assert connection.execute(query, (column,)).fetchone() == (column,)  # prepared by now


def test_json_arrives_by_way_of_text(connection: psycopg.Connection[Any]) -> None:
    texts = ['{"a": "ü"}', None]

    assert connection.execute("SELECT %b::text[]::json[]", (texts,)).fetchone() == ([{"a": "ü"}, None],)


def test_large_and_small_numbers_share_one_prepared_statement(connection: psycopg.Connection[Any]) -> None:
    for number in (1, 40_000, 2**40):
        connection.execute("SELECT %b::bigint[]", ([number],))

    prepared = connection.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT $1::bigint[]'")
    assert prepared.fetchone() == (1,)


def test_a_nul_is_refused_and_never_stored_as_something_else(connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.DataError):
        connection.execute("SELECT %b::text[]", (["a\x00b"],))
