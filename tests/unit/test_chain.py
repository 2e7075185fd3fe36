"""The chain's hash, against bytes put together by hand, and what it tells apart."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from ledger import chain
from ledger.chain import GENESIS, Head

AT = datetime(2026, 11, 21, 5, 17, 43, 615568, tzinfo=UTC)
REQUEST = bytes(range(16))
SPEND = [(12, 3, 41, 1, -30, 70, 5), (7, 90, 41, 1, 30, 930, 0)]


def eight(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, "big", signed=True) for number in numbers)


def test_the_hash_is_of_the_one_before_and_of_the_transfer_with_its_entries_by_account() -> None:
    heads = {3: Head(0, GENESIS)}
    [link] = chain.link(heads, [(41, 2, 3, REQUEST)], SPEND, AT)
    us = 1_795_238_263_615_568
    entries = eight(7, 90, 41, 1, 30, 930, 0) + eight(12, 3, 41, 1, -30, 70, 5)
    expected = sha256(bytes(32) + eight(41, 2, 3, 1, us, 2) + entries + REQUEST).digest()
    assert link == (41, 2, 3, 1, expected)
    assert heads == {3: Head(1, expected)}


def test_each_partition_has_its_own_chain_in_the_order_of_the_batch() -> None:
    heads = {3: Head(8, b"three"), 5: Head(0, GENESIS)}
    transfers = [(9, 1, 3, REQUEST), (10, 1, 5, REQUEST), (4, 1, 3, REQUEST)]
    links = chain.link(heads, transfers, [(1, 1, 9, 1, 0, 0, 0), (1, 2, 4, 1, 0, 0, 0)], AT)
    assert [(seq, partition, position) for seq, _, partition, position, _ in links] == [
        (9, 3, 9),
        (10, 5, 1),
        (4, 3, 10),
    ]
    assert heads[3] == Head(10, links[2][4])
    assert heads[5] == Head(1, links[1][4])
    of_the_last = chain.canonical(4, 1, 3, 10, chain.microseconds(AT), [(1, 2, 4, 1, 0, 0, 0)], REQUEST)
    assert links[2][4] == sha256(links[0][4] + of_the_last).digest()


@pytest.mark.parametrize(
    "other",
    [
        (42, 2, 3, 1, AT, SPEND, REQUEST),
        (41, 3, 3, 1, AT, SPEND, REQUEST),
        (41, 2, 4, 1, AT, SPEND, REQUEST),
        (41, 2, 3, 2, AT, SPEND, REQUEST),
        (41, 2, 3, 1, AT + timedelta(microseconds=1), SPEND, REQUEST),
        (41, 2, 3, 1, AT, SPEND[:1], REQUEST),
        (41, 2, 3, 1, AT, SPEND, REQUEST[:-1]),
        *(
            (41, 2, 3, 1, AT, [(*SPEND[0][:n], SPEND[0][n] + 1, *SPEND[0][n + 1 :]), SPEND[1]], REQUEST)
            for n in range(7)
        ),
    ],
)
def test_whatever_differs_is_another_text(other: tuple) -> None:
    def text(seq, tenant, partition, position, at, entries, request):
        return chain.canonical(seq, tenant, partition, position, chain.microseconds(at), entries, request)

    assert text(*other) != text(41, 2, 3, 1, AT, SPEND, REQUEST)
