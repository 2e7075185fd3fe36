"""Two drains, advanced in random turns: whatever their order, the books are those of one drain after the other."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait

import hypothesis.strategies as some
import pytest
from hypothesis import HealthCheck, given, settings

from ledger.errors import BooksMoved
from tests.books import ALL, Bank
from tests.properties.asking import WALLETS, Ordered, credit, orders, reserve
from tests.properties.sides import EXAMPLES, TIMEOUT_S, Sides

OPENED = list(WALLETS)[:-1]  # the last one is opened by whichever drain comes first
OPENING = ("hold", "hold", "spend", "transfer", "exchange")
STEP_S = 0.05  # a step that takes longer waits for the other drain
END_S = 10.0


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


def run(bank: Bank, waiting: int, turns: list[int]) -> list[int]:
    """Drain all that waits by two sides in these turns, then to the end; the seqs in the order of their commits."""
    committed: list[int] = []
    sides = [Side(bank, committed.extend) for _ in range(2)]
    try:
        for turn in turns:
            sides[turn].advance(STEP_S)
        for _ in range(20 * waiting + 20):
            if len(committed) == waiting:
                return committed
            for side in sides:
                side.advance(STEP_S)
        raise AssertionError("the drains do not come to an end")
    finally:
        for side in sides:
            side.close()


@pytest.mark.timeout(TIMEOUT_S)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    before=some.lists(orders(kinds=OPENING), max_size=6),
    batches=some.lists(some.lists(orders(), min_size=1, max_size=6), min_size=1, max_size=3),
    turns=some.lists(some.integers(0, 1), max_size=30),
)
def test_two_drains_are_as_good_as_one(
    module_database_url: str, before: list[Ordered], batches: list[list[Ordered]], turns: list[int]
) -> None:
    """Commands of every type; the later ones name earlier ones, which may be pending in the other drain."""
    both = Sides(module_database_url)
    try:
        both.accept([credit(wallet, 50, lot) for wallet in OPENED for lot in (None, 3)])
        both.accept([reserve(wallet, 30, ticks) for wallet in OPENED for ticks in (1, 9)] + before)
        both.settle(both.bank.drain(ALL))
        both.tick(2)
        both.look_out()
        for batch in batches:
            both.accept(batch)
        both.settle_raced(run(both.bank, len(both.waiting()), turns))
        both.compare_to_the_end()
        assert both.bank.drain(ALL) == []
    finally:
        both.close()
