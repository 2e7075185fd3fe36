"""A bank and its model side by side: what is sent to one is sent to both, and what came of it is compared."""

import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from datetime import datetime
from itertools import combinations
from typing import Any

from hypothesis import HealthCheck, settings

from ledger import cancelling, closing
from ledger.commands import REVERSIBLE_TYPES
from ledger.inbox import NewCommand
from ledger.limits import Velocity
from tests.books import Bank
from tests.properties.asking import ASSETS, TICK, WALLETS, Ordered
from tests.properties.model import Ask, Model, Where

# `BURSAR_EXAMPLES=2000 pytest tests/properties` looks longer.
EXAMPLES = int(os.environ.get("BURSAR_EXAMPLES", "40"))
TIMEOUT_S = 120 + 4 * EXAMPLES
SETTINGS = settings(
    max_examples=EXAMPLES, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TIMES = ("credits_expire_at", "hold_expires_at")

_BALANCES = """
SELECT w.code, s.code, a.posted, a.held, a.version FROM accounts a
JOIN wallets w ON w.id = a.wallet_id JOIN assets s ON s.id = a.asset_id
WHERE w.tenant_id = %s AND w.code NOT LIKE '@%%' AND a.version > 0
"""
_LOTS = """
SELECT w.code, s.code, l.seq, l.n, l.source, l.priority, l.expires_at, l.remaining, l.held FROM lots l
JOIN accounts a ON a.id = l.account_id JOIN wallets w ON w.id = a.wallet_id JOIN assets s ON s.id = a.asset_id
WHERE w.tenant_id = %s AND l.remaining > 0
"""
_HOLDS = "SELECT h.seq, h.status, h.remaining, h.captured FROM holds h JOIN commands USING (seq) WHERE tenant_id = %s"
_OURS = """
SELECT w.code, s.code, a.shard, a.posted FROM accounts a
JOIN wallets w ON w.id = a.wallet_id JOIN assets s ON s.id = a.asset_id
WHERE w.tenant_id = %s AND w.code LIKE '@%%' AND a.posted <> 0
"""
_OWN = """
SELECT seq, type, ref_seq, (options->>'lot_n')::int, wallet, asset, partition FROM commands
WHERE tenant_id = %s AND client_id = 0 AND type LIKE 'expire%%' AND seq > %s ORDER BY seq
"""


class Sides:
    """The bank has a clock of its own, which `now` says."""

    def __init__(self, url: str) -> None:
        self.bank = Bank(url)
        self.bank.open_asset("diamonds")
        self.model = Model(assets=set(ASSETS))
        wanted = [
            (place, WALLETS[place], list(WALLETS.values())[:at].count(WALLETS[place]))
            for at, place in enumerate(WALLETS)
        ]
        self.names = {who: self.bank.wallets_in(partition, nth + 1)[nth] for who, partition, nth in wanted}
        self.now: datetime = self.bank.in_seconds(3600)
        self.bank.set_clock(self.now)
        self.sent: dict[int, Ask] = {}
        self.group_of: dict[int, list[Ask]] = {}
        self.expected: dict[int, str] = {}
        self.commands: dict[int, NewCommand] = {}

    def close(self) -> None:
        self.bank.forget()
        self.bank.close()

    # --- to both ---------------------------------------------------------------------------------------------------

    def tick(self, number: int) -> None:
        self.now += number * TICK
        self.bank.set_clock(self.now)

    def commands_of(self, batch: Sequence[Ordered]) -> list[tuple[NewCommand, Ordered]]:
        """As they are sent now. What names a hold or a command where there is none yet is left out."""
        return [(command, order) for order in batch if (command := self._command(dict(order))) is not None]

    def _command(self, order: Ordered) -> NewCommand | None:
        options = {name: value for name, value in order["options"].items() if value is not None}
        options |= {name: self.now + options[name] * TICK for name in TIMES if name in options}
        to_wallet = self.names[order["to_wallet"]] if order["to_wallet"] else None
        more: dict[str, Any] = {"to_wallet": to_wallet, **options}
        if order["expires_at"] is not None:
            more["expires_at"] = self.now + order["expires_at"] * TICK
        if order["of"] is None:
            return self.bank.new(
                order["kind"], self.names[order["wallet"]], order["amount"], asset=order["asset"], **more
            )
        kinds = REVERSIBLE_TYPES if order["kind"] == "reverse" else ("hold",)
        candidates = [ask for ask in self.sent.values() if ask.kind in kinds]
        if not candidates:
            return None
        applied = [ask for ask in candidates if ask.seq in self.model.holds or ask.seq in self.model.done]
        if applied and order["of"] % 4:  # mostly what can be captured, or reversed
            candidates = applied
        about = candidates[-1 - order["of"] % len(candidates)]  # rather the last ones
        if to_wallet == about.wallet:
            more["to_wallet"] = None
        where = {"asset": about.asset, "partition": about.partition, "ref_seq": about.seq}
        return self.bank.new(order["kind"], about.wallet, order["amount"], **where, **more)

    def accept(self, batch: Sequence[Ordered]) -> list[int]:
        """One by one; their numbers."""
        sent = self.commands_of(batch)
        if not sent:
            return []
        answers = self.bank.accept([command for command, _ in sent])
        for answer, (command, order) in zip(answers, sent, strict=True):
            self._note(answer.seq, command, order)
        return [answer.seq for answer in answers]

    def accept_group(self, batch: Sequence[Ordered]) -> list[int]:
        """As one group."""
        sent = self.commands_of(batch)
        if len(sent) < 2:
            return []
        answers = [answer for answer in self.bank.accept_group([command for command, _ in sent]) if answer]
        assert len(answers) == len(sent)
        group: list[Ask] = []
        for answer, (command, order) in zip(answers, sent, strict=True):
            self._note(answer.seq, command, order)
            group.append(self.sent[answer.seq])
            self.group_of[answer.seq] = group
        return [answer.seq for answer in answers]

    def _note(self, seq: int, command: NewCommand, order: Ordered) -> None:
        options: dict[str, Any] = dict(order["options"])
        options |= {name: self.now + options[name] * TICK for name in TIMES if options.get(name) is not None}
        self.commands[seq] = command
        self.sent[seq] = Ask(
            seq,
            command.type,
            command.wallet,
            command.asset,
            command.amount,
            command.partition,
            command.to_wallet,
            command.ref_seq or 0,
            command.expires_at,
            options,
        )

    def limit(self, whom: str | Where, limits: dict[str, Any]) -> None:
        """An asset, or a wallet in an asset."""
        self.model.limits[whom] = limits
        said = {
            name: Velocity(**limit) if name == "velocity" else limit
            for name, limit in limits.items()
            if limit is not None
        }
        if isinstance(whom, str):
            self.bank.limit_asset(whom, **said)
        else:
            self.bank.limit_wallet(*whom, **said)

    def close_wallet(self, wallet: str, to_wallet: str | None) -> None:
        """Whatever its status; with a sweep to another one."""
        bank = self.bank
        assets = [asset for asset in sorted(ASSETS) if (wallet, asset) in self.model.purses]
        try:
            closing.close(bank.drains, bank.tenant, wallet, sweep_to=to_wallet, by=bank.by)
            told = "applied"
        except closing.Refusal as refusal:
            told = str(refusal.code)
        seq = bank.one("SELECT max(seq) FROM commands WHERE tenant_id = %s AND type = 'close'", bank.tenant)
        options = {"assets": assets}
        ask = Ask(seq or 0, "close", wallet, "", None, bank.partition(wallet), to_wallet, options=options)
        wanted = self.model.settle(ask, self.now)
        assert told == wanted, f"{ask} came to {told}, not to {wanted}"

    def cancel(self, number: int) -> None:
        """One of the commands that wait, and its whole group with it."""
        waiting = [seq for seq in self.waiting() if seq in self.commands]
        if waiting:
            seq = waiting[number % len(waiting)]
            with self.bank.drains.transaction():
                cancelled = cancelling.cancel(self.bank.drains, seq).seqs
            assert cancelled == [ask.seq for ask in self.group_of.get(seq, [self.sent[seq]])]
            self.expected |= dict.fromkeys(cancelled, "cancelled")

    def look_out(self) -> None:
        """The ledger finds the very things that are due, and asks itself once for each of them."""
        waiting = {_name(ask) for seq, ask in self.sent.items() if seq not in self.expected}
        self.bank.enqueue_due()
        found = self.bank.rows(_OWN, self.bank.tenant, max(self.sent, default=0))
        for seq, kind, of, lot_n, wallet, asset, partition in found:
            options = {"lot_n": lot_n}
            self.sent[seq] = Ask(seq, kind, wallet, asset, None, partition, of=of, options=options)
        assert {_name(self.sent[row[0]]) for row in found} == self.model.due(self.now) - waiting

    def settle(self, seqs: Sequence[int]) -> None:
        """A drain gave these their outcomes: they are the model's."""
        assert list(seqs) == sorted(seqs)
        self._settle(seqs, lambda _group: None)

    def settle_raced(self, seqs: Sequence[int]) -> None:
        """Several drains gave them, in the order of their commits, and that is the model's order, but for one thing: an
        account that is not there cannot be locked. Who was refused for want of one may commit after the credit that
        opened it."""
        opened = set(self.model.purses)

        def without_new_accounts(group: list[Ask]) -> list[str] | None:
            wallets = {ask.wallet for ask in group}
            fresh = [where for where in self.model.purses.keys() - opened if where[0] in wallets]
            told = [self.bank.outcome(ask.seq) for ask in group] if fresh else []
            if not fresh or any(outcome.status == "applied" for outcome in told):
                return None
            for unseen in (some for size in range(1, len(fresh) + 1) for some in combinations(fresh, size)):
                trial = deepcopy(self.model)
                for where in unseen:
                    del trial.purses[where]
                trial.known = {wallet for wallet, _ in trial.purses}
                if (codes := trial.settle_group(group, self.now)) == [outcome.code for outcome in told]:
                    return codes
            return None

        self._settle(seqs, without_new_accounts)

    def _settle(self, seqs: Sequence[int], otherwise: Callable[[list[Ask]], list[str] | None]) -> None:
        for seq in seqs:
            if seq in self.expected:
                continue
            group = self.group_of.get(seq, [self.sent[seq]])
            codes = otherwise(group)
            if codes is None:
                codes = (
                    self.model.settle_group(group, self.now)
                    if seq in self.group_of
                    else [self.model.settle(group[0], self.now)]
                )
            self.expected |= {ask.seq: code for ask, code in zip(group, codes, strict=True)}
        for seq, told in zip(seqs, self.bank.codes(seqs), strict=True):
            wanted = self.expected[seq]
            assert told == wanted, f"{self.sent[seq]} came to {told}, not to {wanted}: {self.bank.outcome(seq)}"

    def waiting(self) -> list[int]:
        return sorted(set(self.sent) - set(self.expected))

    # --- are they the same? ----------------------------------------------------------------------------------------

    def compare(self) -> None:
        bank, model = self.bank, self.model
        purses = {where: purse for where, purse in model.purses.items() if purse.version}
        _same(
            {(w, a): tuple(more) for w, a, *more in bank.rows(_BALANCES, bank.tenant)},
            {where: (purse.posted, purse.held, purse.version) for where, purse in purses.items()},
        )
        _same(
            {(w, a, seq, n): tuple(more) for w, a, seq, n, *more in bank.rows(_LOTS, bank.tenant)},
            {
                (*where, *lot.key): (*lot.kind, lot.free + lot.held, lot.held)
                for where, purse in purses.items()
                for lot in purse.lots.values()
                if lot.free + lot.held
            },
        )
        _same(
            {seq: tuple(more) for seq, *more in bank.rows(_HOLDS, bank.tenant)},
            {seq: (hold.status, hold.remaining, hold.captured) for seq, hold in model.holds.items()},
        )
        assert bank.pending() == self.waiting()

    def compare_to_the_end(self) -> None:
        """Nothing waits, the books balance, and all that players have came from us."""
        self.compare()
        self.bank.assert_settled()
        ours = {(w, a, shard): posted for w, a, shard, posted in self.bank.rows(_OURS, self.bank.tenant)}
        assert ours == {place: balance for place, balance in self.model.ours.items() if balance}
        for asset in ASSETS:
            circulating = sum(self.model.purse((wallet, asset)).posted for wallet in self.names.values())
            assert circulating == -sum(posted for (_, of, _), posted in ours.items() if of == asset)


def _name(ask: Ask) -> tuple[str, int, int | None]:
    return ask.kind, ask.of, ask["lot_n"]


def _same(banks: dict[Any, Any], models: dict[Any, Any]) -> None:
    wrong = {
        name: (banks.get(name), models.get(name))
        for name in banks.keys() | models.keys()
        if banks.get(name) != models.get(name)
    }
    assert not wrong, f"the bank's and the model's: {wrong}"
