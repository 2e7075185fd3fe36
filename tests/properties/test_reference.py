"""Random commands of every type in random batches and groups, against a model that knows no database."""

from typing import Any, ClassVar

import hypothesis.strategies as some
import pytest
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ledger.registers import WalletStatus
from tests.books import ALL
from tests.properties.asking import ASSETS, WALLETS, Ordered, credit, limits, limits_of_assets, orders, reserve
from tests.properties.sides import SETTINGS, TIMEOUT_S, Sides

wallets = some.sampled_from(list(WALLETS))

batches = some.lists(orders(), min_size=1, max_size=8)


class Comparison(RuleBasedStateMachine):
    """A bank and its model, given the same commands at the same times."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.both = Sides(self.url)

    @initialize(amount=some.integers(1, 200), lots=some.lists(some.integers(1, 4), max_size=3))
    def begin(self, amount: int, lots: list[int]) -> None:
        """All but one wallet are open and have something, some of it held."""
        opened = list(WALLETS)[:-1]
        self.accept([credit(wallet, amount) for wallet in opened])
        self.accept([credit(wallet, 50, ticks) for wallet in opened for ticks in lots])
        self.accept([reserve(wallet, 40, ticks) for wallet in opened for ticks in (4, 9)])
        self.drain_all()

    # --- commands ------------------------------------------------------------------------------------------------

    @rule(batch=some.lists(orders(), min_size=1, max_size=12))
    def accept(self, batch: list[Ordered]) -> None:
        self.both.accept(batch)

    @rule(batch=batches)
    def accept_and_drain(self, batch: list[Ordered]) -> None:
        self.both.accept(batch)
        self.drain_all()

    @rule(batch=some.lists(orders(), min_size=2, max_size=4), wallet=wallets)
    def accept_group(self, batch: list[Ordered], wallet: str) -> None:
        """Of one wallet, as the api has it; what a command names can be another's, and is left out."""
        mine = [order | {"wallet": wallet} for order in batch if order["to_wallet"] != wallet]
        partition = WALLETS[wallet]
        sent = self.both.commands_of(mine)
        self.both.accept_group([order for command, order in sent if command.partition == partition])

    @rule(number=some.integers(0, 100))
    def retry(self, number: int) -> None:
        seqs = sorted(self.both.commands)
        seq = seqs[-1 - number % len(seqs)]
        if seq not in self.both.group_of:
            (answer,) = self.both.bank.accept([self.both.commands[seq]])
            assert (answer.seq, answer.replayed, answer.same_request) == (seq, True, True)

    @rule(number=some.integers(0, 100))
    def cancel(self, number: int) -> None:
        self.both.cancel(number)

    # --- drains --------------------------------------------------------------------------------------------------

    @rule(max_rows=some.integers(1, 9), partitions=some.permutations(ALL), number=some.integers(1, 8))
    def drain(self, max_rows: int, partitions: list[int], number: int) -> None:
        self.both.settle(self.both.bank.drain(partitions[:number], max_rows=max_rows))

    @rule()
    def drain_all(self) -> None:
        while seqs := self.both.bank.drain():
            self.both.settle(seqs)

    @rule(max_rows=some.integers(1, 9))
    def give_up(self, max_rows: int) -> None:
        """A drain that rolls back, as in a crash: as if it had never been."""
        with self.both.bank.another_drain() as drain:
            if drain.claim(max_rows=max_rows):
                drain.apply()

    # --- time ----------------------------------------------------------------------------------------------------

    @rule(ticks=some.integers(1, 4))
    def tick(self, ticks: int) -> None:
        self.both.tick(ticks)

    @rule()
    def look_out(self) -> None:
        self.both.look_out()

    # --- registers -----------------------------------------------------------------------------------------------

    @rule(
        wallet=wallets,
        status=some.sampled_from(["debits_frozen", "frozen"]),
        batch=batches,
        max_rows=some.integers(1, 9),
    )
    def freeze_wallet(self, wallet: str, status: WalletStatus, batch: list[Ordered], max_rows: int) -> None:
        """For the length of a drain."""
        bank, model, name = self.both.bank, self.both.model, self.both.names[wallet]
        frozen = "frozen" if status == "frozen" else "debits_frozen"
        if name in model.known - model.closed:
            self.both.accept(batch)
            bank.freeze(name, status)
            getattr(model, frozen).add(name)
            self.both.settle(bank.drain(max_rows=max_rows))
            bank.unfreeze(name)
            getattr(model, frozen).discard(name)

    @rule(asset=some.sampled_from(ASSETS), batch=batches, max_rows=some.integers(1, 9))
    def freeze_asset(self, asset: str, batch: list[Ordered], max_rows: int) -> None:
        bank, model = self.both.bank, self.both.model
        self.both.accept(batch)
        bank.freeze_asset(asset)
        model.frozen.add(asset)
        self.both.settle(bank.drain(max_rows=max_rows))
        bank.unfreeze_asset(asset)
        model.frozen.discard(asset)

    @rule(wallet=wallets, asset=some.sampled_from(ASSETS), limits=limits)
    def limit_wallet(self, wallet: str, asset: str, limits: dict[str, Any]) -> None:
        name = self.both.names[wallet]
        if name in self.both.model.known - self.both.model.closed:
            self.both.limit((name, asset), limits)

    @rule(asset=some.sampled_from(ASSETS), limits=limits_of_assets)
    def limit_asset(self, asset: str, limits: dict[str, Any]) -> None:
        self.both.limit(asset, limits)

    @rule(asset=some.sampled_from(ASSETS))
    def lift_limits(self, asset: str) -> None:
        self.both.limit(asset, {})

    @rule(wallet=wallets, heir=some.one_of(some.none(), wallets), rarely=some.integers(0, 3))
    def close_wallet(self, wallet: str, heir: str | None, rarely: int) -> None:
        name = self.both.names[wallet]
        if rarely == 2 and name in self.both.model.known - self.both.model.closed:
            self.both.close_wallet(name, self.both.names[heir] if heir and heir != wallet else None)

    # --- and after each step -------------------------------------------------------------------------------------

    @invariant()
    def both_are_the_same(self) -> None:
        self.both.compare()

    def teardown(self) -> None:
        try:
            self.drain_all()
            self.both.look_out()
            self.drain_all()
            self.both.compare_to_the_end()
        finally:
            self.both.close()


@pytest.mark.timeout(TIMEOUT_S)
def test_the_bank_does_what_the_model_does(module_database_url: str) -> None:
    Comparison.url = module_database_url
    run_state_machine_as_test(Comparison, settings=SETTINGS)
