"""Public ids of commands and transfers: a UUID that carries the row's own key.

    unix time in ms (48 bits) | version 8 | kind (12 bits) | variant | seq (62 bits)

The time is the row's, so ids sort by it and look like UUIDv7; the version says 8, "custom", as RFC 9562 wants of a
layout of one's own. Reading a row by id is reading it by primary key: no second unique index on the hottest tables.
An id is an address, not a secret: reads check the tenant, and the time must match the row's
(docs/decisions/0005-ids-and-amounts.md).
"""

import re
from datetime import UTC, datetime
from enum import IntEnum

_VERSION_AND_VARIANT = (0x8 << 76) | (0b10 << 62)
_FIXED_BITS = (0xF << 76) | (0b11 << 62)
_SEQ_MAX = 2**62 - 1
_SPELLING = re.compile("[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")  # as RFC 9562 writes it
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Kind(IntEnum):
    """Which table an id points into, so that a transfer's id is never taken for a command's."""

    COMMAND = 0xC0D
    TRANSFER = 0x7A4
    EVENT = 0xE7E
    ENDPOINT = 0xE4D


def unix_ms(at: datetime) -> int:
    """Milliseconds since 1970, rounded down. Integer arithmetic: a float would round some up."""
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000 + since.microseconds // 1_000


def public_id(kind: Kind, seq: int, at: datetime) -> str:
    """The id that clients see for row `seq`, which came to be at `at`."""
    bits = (unix_ms(at) << 80) | (kind << 64) | _VERSION_AND_VARIANT | seq
    text = f"{bits:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def command_id(seq: int, accepted_at: datetime) -> str:
    return public_id(Kind.COMMAND, seq, accepted_at)


def requeue_key(failed_id: str) -> str:
    """The key under which a failed command is asked again. The spaces keep clients out: their keys have none."""
    return f"requeue of {failed_id}"


def transfer_id(seq: int, at: datetime) -> str:
    return public_id(Kind.TRANSFER, seq, at)


def event_id(seq: int, at: datetime) -> str:
    """The outcome of command `seq`, or other news: what a receiver knows it by, however often it comes."""
    return public_id(Kind.EVENT, seq, at)


def endpoint_id(id_: int, created_at: datetime) -> str:
    return public_id(Kind.ENDPOINT, id_, created_at)


def lot_id(seq: int, n: int, at: datetime) -> str:
    """The lot that transfer `seq`, of time `at`, made as its n-th."""
    return f"{transfer_id(seq, at)}.{n}"


def parse_id(kind: Kind, text: str) -> tuple[int, int] | None:
    """(seq, unix ms) of an id of this kind; None where it can name no such row."""
    if not _SPELLING.fullmatch(text):
        return None
    bits = int(text.replace("-", ""), 16)
    if bits & _FIXED_BITS != _VERSION_AND_VARIANT or (bits >> 64) & 0xFFF != kind:
        return None
    return bits & _SEQ_MAX, bits >> 80
