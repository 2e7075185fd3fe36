"""Long answers, a chunk at a time: CSV (RFC 4180), or a JSON document written by hand around a list.

Each chunk is a short read of its own, taken when the client has read the one before: no transaction stands open, and
memory holds one chunk, however long the history and however slow the client. A client that leaves stops the reading. An
answer that fails on the way ends without its end: chunked transfer tells the client.
"""

import csv
import io
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from fastapi import Request
from starlette.responses import Response, StreamingResponse

from api.routes.transfers import show_entry
from api.state import autocommit
from ledger import history
from ledger.history import Entry, Filter, Spans

CHUNK_MAX = 250  # entries of one read: some 3 ms, during which the event loop serves nobody else

CSV = "text/csv; charset=utf-8; header=present"
JSON = "application/json"
COLUMNS = (
    "id", "at", "type", "asset", "direction", "amount", "balance_after", "held_after", "version", "reference",
    "metadata", "command", "transfer",
)  # fmt: skip

_NUMBERS = frozenset(("amount", "balance_after", "held_after", "version"))
# What a spreadsheet takes for the beginning of a formula. A cell that begins so gets an apostrophe before it.
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the last four: full-width


def responses(what: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that also answers with CSV."""
    return {
        200: {
            "description": f"As CSV (`Accept: text/csv`): {what}",
            "content": {"text/csv": {"schema": {"type": "string"}}},
        }
    }


def wants_csv(request: Request) -> bool:
    """Whether `Accept` (RFC 9110, 12.5.1) likes CSV better than JSON; of two equals the one it names by name."""
    ranges = [part.split(";") for value in request.headers.getlist("accept") for part in value.split(",")]
    liked = {range.strip().lower(): _quality(parameters) for range, *parameters in ranges}
    csv, json = _rank(liked, "text/csv"), _rank(liked, "application/json")
    return csv > json and csv[0] > 0


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


def _rank(liked: Mapping[str, float], media_type: str) -> tuple[float, int]:
    names = ("*/*", media_type.partition("/")[0] + "/*", media_type)
    return max(
        ((liked[name], names.index(name)) for name in names if name in liked), key=lambda r: r[1], default=(0, 0)
    )


async def chunks(
    request: Request, wallet: str, left: Spans, which: Filter, seqs: Sequence[int] | None = None
) -> AsyncGenerator[list[Entry]]:
    """All of these entries, oldest first."""
    while left:
        async with autocommit(request) as connection:
            found, left = await history.entries(
                connection, wallet, left, which, limit=CHUNK_MAX, seqs=seqs, newest_first=False
            )
        if found:
            yield found


def streamed(parts: AsyncGenerator[bytes], media_type: str, filename: str) -> Response:
    headers = {"Cache-Control": "private, no-cache", "Vary": "Accept"}
    if media_type == CSV:
        headers["Content-Disposition"] = f'attachment; filename="{filename}.csv"'
    return StreamingResponse(parts, headers=headers, media_type=media_type)


async def as_csv(
    found: AsyncGenerator[list[Entry]], *, first: Mapping[str, Any] | None = None, last: Mapping[str, Any] | None = None
) -> AsyncGenerator[bytes]:
    """A header and a line for each entry. `first`, `last`: the lines of a statement's two balances."""
    yield _lines([dict(zip(COLUMNS, COLUMNS, strict=True)), *filter(None, [first])])
    async for entries in found:
        yield _lines({**show_entry(entry), "metadata": entry.metadata} for entry in entries)
    if last is not None:
        yield _lines([last])


async def as_json(
    found: AsyncGenerator[list[Entry]], head: Mapping[str, Any], name: str, tail: Mapping[str, Any]
) -> AsyncGenerator[bytes]:
    """One object: the members of `head`, a list of all entries under `name`, the members of `tail`."""
    encode = msgspec.json.encode
    yield encode(head)[:-1] + b"," + encode(name) + b":["
    separator = b""
    async for entries in found:
        yield separator + encode([show_entry(entry) for entry in entries])[1:-1]
        separator = b","
    yield b"]," + encode(tail)[1:]


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([_cell(name, row.get(name)) for name in COLUMNS] for row in rows)
    return text.getvalue().encode()


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    cell = value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)
    return f"'{cell}" if name not in _NUMBERS and cell.startswith(_FORMULA) else cell
