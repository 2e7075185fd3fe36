"""The intake: what is stored together, and what becomes of the others when one cannot be stored."""

import asyncio
from collections.abc import Sequence
from typing import Any

from api.intake import Intake, Unavailable
from ledger.inbox import Accepted, NewCommand
from tests.api.serving import Served
from tests.books import Bank

Answer = list[Accepted | None] | BaseException


def submit_at_once(api: Served, batches: Sequence[tuple[list[NewCommand], bool]]) -> list[Answer]:
    """Each batch, atomic or not, in the api's own event loop; all are there before the first is stored."""
    intake: Intake = api.app.state.intake

    async def together() -> list[Any]:
        submissions = (intake.submit(commands, atomic=atomic) for commands, atomic in batches)
        return await asyncio.gather(*submissions, return_exceptions=True)

    return asyncio.run_coroutine_threadsafe(together(), intake._tasks[0].get_loop()).result(timeout=30)


def test_what_postgresql_cannot_store_harms_nobody_else(api: Served, bank: Bank) -> None:
    """No request gets so far with a NUL in it; if one did, its neighbours would not notice."""

    def good(*amounts: int) -> list[NewCommand]:
        return [bank.new("top_up", "alice", amount) for amount in amounts]

    bad = bank.new("top_up", "alice", 1, metadata='{"no": "\\u0000"}')
    batches = [
        (good(1), False),
        ([bad], False),
        (good(2, 3), True),
        ([*good(4), bad, *good(5)], True),
        (good(6), False),
        ([bad], False),
        (good(7, 8), True),
        (good(9), False),
    ]
    answers = submit_at_once(api, batches)
    for (commands, atomic), answer in zip(batches, answers, strict=True):
        if bad in commands:
            assert isinstance(answer, Unavailable)
            continue
        assert not isinstance(answer, BaseException)
        seqs = [accepted.seq for accepted in answer if accepted is not None]
        assert len(seqs) == len(commands)
        queued = bank.rows("SELECT seq, size FROM pending WHERE seq = ANY(%s) ORDER BY seq", seqs)
        assert queued == ([(seqs[0], len(seqs))] if atomic else [(seq, 1) for seq in seqs])
    stored = bank.rows("SELECT amount FROM commands WHERE tenant_id = %s ORDER BY amount", bank.tenant)
    assert [amount for (amount,) in stored] == [1, 2, 3, 6, 7, 8, 9]


def test_the_same_group_many_times_at_once_is_one(api: Served, bank: Bank) -> None:
    """In both orders of its keys: one of the two is stored, whole; the other finds its keys used."""
    group = [bank.new("top_up", "alice", amount) for amount in range(1, 21)]
    turned = [bank.new("top_up", "alice", command.amount, key=command.idempotency_key) for command in group[::-1]]
    answers = submit_at_once(api, [(group if n % 2 else turned, True) for n in range(12)])
    firsts = 0
    for answer in answers:
        assert not isinstance(answer, BaseException)
        assert all(answer), "a key is there and another is not"
        firsts += not any(accepted.replayed for accepted in answer if accepted is not None)
    assert firsts == 1
    assert bank.one("SELECT count(*) FROM commands WHERE tenant_id = %s", bank.tenant) == 20
