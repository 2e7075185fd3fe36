"""The hash chain: every transfer carries the hash of what it is and of the transfer before it. Pure.

Each partition has a chain of its own, since one drain at a time writes it. Whoever changes, removes or inserts a
transfer behind our back must forge every later one of its partition, and every receipt that was given out since.

Hashed, with SHA-256, are: the hash before (32 bytes; zeros for the first transfer); then as 8-byte big-endian signed
integers seq, tenant, partition, position, microseconds since 1970 and the number of entries; seven such integers for
each entry, in the order of account ids: account, version, seq, asset, amount, balance after, held after; last the
hash of the request. PostgreSQL makes the same bytes with int8send() (ledger.audit); docs/decisions/0017-a-hash-chain.md
says why so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from struct import pack

GENESIS = bytes(32)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

Written = tuple[int, int, int, bytes]  # a transfer: seq, tenant id, partition, the command's request hash
Line = tuple[int, int, int, int, int, int, int]  # an entry: account id, version, seq, asset id, amount, balance, held
Link = tuple[int, int, int, int, bytes]  # a transfer in its place: seq, tenant id, partition, position, hash


@dataclass(slots=True)
class Head:
    """The last transfer of a partition's chain. Position 0: there is none yet."""

    position: int
    hash: bytes


def microseconds(at: datetime) -> int:
    """Since 1970, exactly."""
    return (at - _EPOCH) // _MICROSECOND


def canonical(
    seq: int, tenant_id: int, partition: int, position: int, at_us: int, entries: Sequence[Line], request_hash: bytes
) -> bytes:
    """What is hashed of a transfer, after the hash before. `entries`: in the order of account ids."""
    numbers = [seq, tenant_id, partition, position, at_us, len(entries)]
    for entry in entries:
        numbers += entry
    return pack(f">{len(numbers)}q", *numbers) + request_hash


def link(heads: Mapping[int, Head], transfers: Sequence[Written], entries: Sequence[Line], at: datetime) -> list[Link]:
    """Put transfers at the end of their partitions' chains, in order, and move the heads.

    `entries`: theirs, transfer by transfer.
    """
    at_us = microseconds(at)
    links: list[Link] = []
    start, last = 0, len(entries)
    for seq, tenant_id, partition, request_hash in transfers:
        end = start
        while end < last and entries[end][2] == seq:
            end += 1
        head = heads[partition]
        head.position += 1
        text = canonical(seq, tenant_id, partition, head.position, at_us, sorted(entries[start:end]), request_hash)
        head.hash = sha256(head.hash + text).digest()
        links.append((seq, tenant_id, partition, head.position, head.hash))
        start = end
    return links
