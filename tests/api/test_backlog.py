"""The intake's pace: slower while drains are behind, as fast as ever when none is at work."""

import asyncio

import pytest

import api.backlog
from api.backlog import PACE_MAX_S, Backlog
from ledger import db, inbox
from tests.books import Bank


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.backlog, "PACE_FROM", 10)


def pile_up(bank: Bank, number: int) -> None:
    bank.accept([bank.new("top_up", "alice", 1) for _ in range(number)])


def paces(bank: Bank, *, drained: list[int]) -> list[float]:
    """The pace at a first look, and after each of these drains."""

    async def looks() -> list[float]:
        backlog = Backlog(bank.url, max_backlog=1_000)
        connection = await db.connect_async(bank.url, application="test-backlog")
        seen: list[float] = []
        for rows in [0, *drained]:
            if rows:
                bank.drain(max_rows=rows)
            await backlog.look(connection)
            seen.append(backlog.pace_s)
        await connection.close()
        return seen

    return asyncio.run(looks())


def test_a_small_backlog_slows_nobody(bank: Bank) -> None:
    pile_up(bank, 11)
    assert paces(bank, drained=[1, 1]) == pytest.approx([PACE_MAX_S * 0.1, 0.0, 0.0])


def test_the_further_behind_the_drains_are_the_slower_the_pace_and_it_has_a_bound(bank: Bank) -> None:
    pile_up(bank, 50)
    assert paces(bank, drained=[25, 10, 5]) == pytest.approx([PACE_MAX_S, PACE_MAX_S, PACE_MAX_S * 0.5, 0.0])


def test_without_drains_nobody_is_slowed(bank: Bank) -> None:
    pile_up(bank, 50)
    assert paces(bank, drained=[0, 0]) == pytest.approx([PACE_MAX_S, 0.0, 0.0])


def test_the_backlog_is_counted_no_further_than_told(bank: Bank) -> None:
    pile_up(bank, 30)
    first = bank.pending()[0]

    async def look(at_most: int) -> tuple[int, int | None]:
        connection = await db.connect_async(bank.url, application="test-backlog")
        answer = await inbox.backlog(connection, at_most=at_most)
        await connection.close()
        return answer

    assert asyncio.run(look(20)) == (20, first)
    assert asyncio.run(look(100)) == (30, first)
