"""The dashboard's figures: each command counted once, for its tenant, in a stretch of numbers; at a bounded cost."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import psycopg
import pytest

from ledger import db, sampling
from ledger.sampling import Marks
from tests.books import Bank

T = TypeVar("T")


def ask(bank: Bank, question: Callable[[psycopg.AsyncConnection[Any]], Awaitable[T]]) -> T:
    async def asked() -> T:
        async with await db.connect_async(bank.url, application="test") as connection:
            return await question(connection)

    return asyncio.run(asked())


def marks(bank: Bank) -> Marks:
    return ask(bank, sampling.marks)


def test_a_stretch_has_what_came_in_it_and_nothing_else(bank: Bank) -> None:
    bank.top_up("alice", 100)
    other = Bank(bank.url)
    after = marks(bank)
    for amount in (1, 2, 900):
        bank.spend("alice", amount)
    other.top_up("alice", 1)
    bank.order("spend", "alice", 1)
    upto = marks(bank)
    bank.drain()
    assert ask(bank, lambda to: sampling.accepted(to, bank.tenant, after=after, upto=upto)) == 4
    assert ask(bank, lambda to: sampling.accepted(to, other.tenant, after=after, upto=upto)) == 1
    decided = ask(bank, lambda to: sampling.decided(to, bank.tenant, after=after, upto=upto))
    assert (decided.applied, decided.refused) == (2, {"insufficient_funds": 1})
    assert decided.p50_ms is not None
    assert decided.p99_ms is not None
    assert 0 <= decided.p50_ms <= decided.p99_ms < 60_000
    later = marks(bank)
    rest = ask(bank, lambda to: sampling.decided(to, bank.tenant, after=upto, upto=later))
    assert (rest.applied, rest.refused) == (1, {})
    nothing = ask(bank, lambda to: sampling.decided(to, bank.tenant, after=later, upto=later))
    assert (nothing.applied, nothing.refused, nothing.p50_ms) == (0, {}, None)
    other.close()


def test_the_newest_part_of_a_long_stretch_stands_for_it(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "LOOKED_AT_MAX", 10)
    after = marks(bank)
    for _ in range(40):
        bank.top_up("alice", 1)
    upto = marks(bank)
    assert ask(bank, lambda to: sampling.accepted(to, bank.tenant, after=after, upto=upto)) == 40
    assert ask(bank, lambda to: sampling.decided(to, bank.tenant, after=after, upto=upto)).applied == 40


def test_the_backlog_is_counted_up_to_a_bound(bank: Bank) -> None:
    for _ in range(5):
        bank.order("top_up", "alice", 1)
    queues = ask(bank, lambda to: sampling.queues(to, at_most=3))
    assert sorted(queue.pending for queue in queues) == [0] * 7 + [3]
    assert [queue.oldest_s > 0 for queue in queues if queue.pending] == [True]
    bank.forget()


@pytest.mark.parametrize("question", ["_ACCEPTED", "_DECIDED", "_LATENCY", "_QUEUES", "_WEBHOOKS"])
def test_no_table_is_read_from_end_to_end(bank: Bank, question: str) -> None:
    values = {"_ACCEPTED": (1, 9, 1), "_DECIDED": (1, 9, 1), "_LATENCY": (1, 9, 1, 1), "_QUEUES": (9,)}
    asked = "EXPLAIN " + getattr(sampling, question)

    async def explain(connection: psycopg.AsyncConnection[Any]) -> str:
        rows = await connection.execute(asked.encode(), values.get(question, (1, 9, 9, 9)))
        return "\n".join(line for (line,) in await rows.fetchall())

    plan = ask(bank, explain)
    for table in ("commands", "outcomes", "pending", "deliveries", "attempts"):
        assert f"Seq Scan on {table} " not in plan, plan
