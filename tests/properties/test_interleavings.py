"""Two drains, advanced in random turns: whatever their order, the books are those of one drain after the other."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import hypothesis.strategies as some
import pytest
from hypothesis import HealthCheck, given, settings

from ledger.errors import BooksMoved
from tests.books import ALL, Bank
from tests.properties.model import Model

PLAYERS = ("ann", "ben", "cat", "dan", "eve")
STEP_S = 0.05  # a step that takes longer waits for the other drain
END_S = 10.0

Order = tuple[str, str, int]  # from, to, amount

pairs = some.tuples(some.sampled_from(PLAYERS), some.sampled_from([*PLAYERS, "newcomer", "stranger"]))
orders = some.tuples(pairs.filter(lambda pair: pair[0] != pair[1]), some.integers(1, 60))


class Side:
    """One worker, whose every step the schedule takes: claim, apply, commit, and again."""

    def __init__(self, bank: Bank, settled: Callable[[list[int]], None]) -> None:
        self._drain = bank.another_drain()
        self._thread = ThreadPoolExecutor(1)
        self._under_way: Future[None] | None = None
        self._step: Callable[[], None] = self._claim
        self._settled = settled
        self._applied: list[int] = []
        self.idle = False

    def advance(self, wait_s: float) -> None:
        """Take the next step, or go on waiting for the one under way."""
        if self._under_way is None:
            self._under_way = self._thread.submit(self._step)
        if wait([self._under_way], wait_s).done:
            under_way, self._under_way = self._under_way, None
            under_way.result()

    def _claim(self) -> None:
        self.idle = not self._drain.claim(max_rows=3)
        if self.idle:
            self._drain.rollback()
        else:
            self._step = self._apply

    def _apply(self) -> None:
        try:
            self._applied = self._drain.apply()
            self._step = self._commit
        except BooksMoved:
            self._drain.rollback()
            self._step = self._claim

    def _commit(self) -> None:
        self._drain.commit()
        self._settled(self._applied)
        self._step = self._claim

    def close(self) -> None:
        self._thread.shutdown()
        self._drain.connection.close()


def run(bank: Bank, batch: list[tuple[tuple[str, str], int]], turns: list[int]) -> list[int]:
    """Drain the batch by two sides in these turns, then to the end; the seqs in the order of their commits."""
    committed: list[int] = []
    sides = [Side(bank, committed.extend) for _ in range(2)]
    try:
        for turn in turns:
            sides[turn].advance(STEP_S)
        for _ in range(20 * len(batch)):
            if len(committed) == len(batch):
                return committed
            for side in sides:
                side.advance(STEP_S)
        raise AssertionError("the drains do not come to an end")
    finally:
        for side in sides:
            side.close()


@pytest.mark.timeout(120)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batch=some.lists(orders, min_size=2, max_size=14), turns=some.lists(some.integers(0, 1), max_size=30))
def test_two_drains_are_as_good_as_one(
    module_database_url: str, batch: list[tuple[tuple[str, str], int]], turns: list[int]
) -> None:
    bank, model = Bank(module_database_url), Model(assets={"gold"})
    try:
        for player in PLAYERS:
            bank.top_up(player, 50)
            model.settle("top_up", player, None, "gold", 50, bank.partition(player))
        commands = [bank.new("transfer", source, amount, to_wallet=target) for (source, target), amount in batch]
        seqs = [answer.seq for answer in bank.accept(commands)]
        sent = dict(zip(seqs, commands, strict=True))
        expected: dict[int, str] = {}
        for seq in run(bank, batch, turns):
            order = sent[seq]
            assert order.amount is not None
            partition = order.partition
            expected[seq] = model.settle("transfer", order.wallet, order.to_wallet, "gold", order.amount, partition)
        assert dict(zip(seqs, bank.codes(seqs), strict=True)) == expected
        everyone = [*PLAYERS, "newcomer", "stranger"]
        assert {who: bank.available(who) for who in everyone} == {
            who: model.balances.get((who, "gold"), 0) for who in everyone
        }
        bank.assert_settled()
        assert bank.drain(ALL) == []
    finally:
        bank.sql.execute("DELETE FROM pending")
        bank.close()
