"""Random commands in random batches, against a model that knows no database."""

from typing import Any, ClassVar

import hypothesis.strategies as some
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ledger.money import AMOUNT_MAX
from tests.books import ALL, Bank
from tests.properties.model import Model

WALLETS = ("alice", "bob", "charlie", "dora")
ASSETS = ("gold", "diamonds", "pebbles")  # pebbles: nobody created them

# Small amounts meet balances, the largest ones meet the limits.
AMOUNTS = some.one_of(some.integers(1, 40), some.sampled_from([AMOUNT_MAX, AMOUNT_MAX - 1, 1]))


@some.composite
def orders(draw: some.DrawFn) -> dict[str, Any]:
    kind = draw(some.sampled_from(["top_up", "bonus", "spend", "spend", "transfer", "transfer"]))
    wallet = draw(some.sampled_from(WALLETS))
    to_wallet = draw(some.sampled_from([other for other in WALLETS if other != wallet])) if kind == "transfer" else None
    asset = draw(some.sampled_from(["gold"] * 6 + list(ASSETS)))
    return {"kind": kind, "wallet": wallet, "to_wallet": to_wallet, "asset": asset, "amount": draw(AMOUNTS)}


class Comparison(RuleBasedStateMachine):
    """A bank and its model, given the same commands."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.bank = Bank(self.url)
        self.bank.open_asset("diamonds")
        self.model = Model(assets={"gold", "diamonds"})
        self.sent: dict[int, dict[str, Any]] = {}
        self.expected: dict[int, str] = {}
        self.keys: list[Any] = []

    @initialize(amount=AMOUNTS)
    def begin(self, amount: int) -> None:
        self.accept([{"kind": "top_up", "wallet": "alice", "to_wallet": None, "asset": "gold", "amount": amount}])

    @rule(batch=some.lists(orders(), min_size=1, max_size=12))
    def accept(self, batch: list[dict[str, Any]]) -> None:
        commands = [
            self.bank.new(
                order["kind"], order["wallet"], order["amount"], to_wallet=order["to_wallet"], asset=order["asset"]
            )
            for order in batch
        ]
        for answer, order, command in zip(self.bank.accept(commands), batch, commands, strict=True):
            assert not answer.replayed
            self.sent[answer.seq] = {**order, "partition": command.partition}
            self.keys.append((command, answer.seq))

    @rule(choice=some.randoms(use_true_random=False))
    def retry(self, choice: Any) -> None:
        command, seq = choice.choice(self.keys)
        (answer,) = self.bank.accept([command])
        assert (answer.seq, answer.replayed, answer.same_request) == (seq, True, True)

    @rule(max_rows=some.integers(1, 9), partitions=some.permutations(ALL), number=some.integers(1, 8))
    def drain(self, max_rows: int, partitions: list[int], number: int) -> None:
        self.settle(self.bank.drain(partitions[:number], max_rows=max_rows))

    @rule()
    def drain_all(self) -> None:
        self.settle(self.bank.drain())

    @rule(max_rows=some.integers(1, 9))
    def give_up(self, max_rows: int) -> None:
        """A drain that rolls back, as in a crash: as if it had never been."""
        with self.bank.another_drain() as drain:
            if drain.claim(max_rows=max_rows):
                drain.apply()

    @rule(wallet=some.sampled_from(WALLETS))
    def freeze(self, wallet: str) -> None:
        if wallet in self.model.known:
            self.bank.freeze(wallet)
            self.model.frozen.add(wallet)

    @rule(wallet=some.sampled_from(WALLETS))
    def unfreeze(self, wallet: str) -> None:
        if wallet in self.model.known:
            self.bank.unfreeze(wallet)
            self.model.frozen.discard(wallet)

    @rule(frozen=some.booleans())
    def turn_gold(self, frozen: bool) -> None:
        if frozen:
            self.bank.freeze_asset("gold")
            self.model.frozen.add("gold")
        else:
            self.bank.unfreeze_asset("gold")
            self.model.frozen.discard("gold")

    def settle(self, seqs: list[int]) -> None:
        assert seqs == sorted(seqs)
        for seq in seqs:
            self.expected[seq] = self.model.settle(**self.sent[seq])
        assert self.bank.codes(seqs) == [self.expected[seq] for seq in seqs]

    @invariant()
    def each_command_waits_or_is_settled(self) -> None:
        assert self.bank.pending() == sorted(set(self.sent) - set(self.expected))

    @invariant()
    def balances_are_the_models(self) -> None:
        for wallet in WALLETS:
            for asset in ("gold", "diamonds"):
                assert self.bank.available(wallet, asset) == self.model.balances.get((wallet, asset), 0)

    def teardown(self) -> None:
        try:
            while seqs := self.bank.drain():
                self.settle(seqs)
            self.balances_are_the_models()
            self.bank.assert_settled()
            for asset in ("gold", "diamonds"):
                ours = sum(self.bank.system(wallet, asset) for wallet in ("@treasury", "@bonus", "@revenue"))
                assert ours + sum(self.bank.available(wallet, asset) for wallet in WALLETS) == 0
        finally:
            self.bank.sql.execute("DELETE FROM pending")
            self.bank.close()


@pytest.mark.timeout(120)
def test_the_bank_does_what_the_model_does(module_database_url: str) -> None:
    Comparison.url = module_database_url
    run_state_machine_as_test(
        Comparison,
        settings=settings(
            max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
