"""A preview is the outcome of a wallet that nothing else touches; a projection is that of a queue."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import hypothesis.strategies as some
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from ledger import db, inbox, previews
from ledger.commands import TYPES, Options, Precondition, write_options
from ledger.ids import transfer_id
from ledger.inbox import NewCommand
from ledger.limits import Limits, Velocity, write_limits
from ledger.previews import Foreseen, Projection
from tests.books import Bank
from tests.properties.sides import EXAMPLES, TIMEOUT_S

PAST, FAR = datetime(2020, 1, 1, tzinfo=UTC), datetime(2090, 1, 1, tzinfo=UTC)
ASSETS = (
    ("gold",) * 6 + ("diamonds",) * 3 + ("pebbles",)
)  # diamonds are limited in every way, pebbles were never created
LIMITS = Limits(max_amount=30, max_balance=60, velocity=Velocity(3_600, 70, 6), max_supply=100)
AMOUNTS = some.integers(1, 40)
PRECONDITIONS = (*[None] * 6, Precondition(version=3), Precondition(available_gte=50))
REFERRING = ("capture", "release", "reverse")


@dataclass
class Order:
    """A command to be; wallets by number, what it refers to by how long ago that was sent."""

    kind: str
    wallet: int
    to_wallet: int
    asset: str
    amount: int
    ago: int
    options: Options
    late: bool


@some.composite
def orders(draw: some.DrawFn) -> Order:
    kind = draw(some.sampled_from(TYPES))
    first, second, _ = draw(some.permutations([0, 1, 2]))
    lot = kind in ("top_up", "bonus") and draw(some.booleans())
    takes = kind in ("spend", "transfer", "hold", "exchange")
    options = Options(
        precondition=draw(some.sampled_from(PRECONDITIONS)) if kind != "reverse" else None,
        credits_order=draw(some.sampled_from(["soonest_to_expire", "oldest_first"])) if takes else "soonest_to_expire",
        credits_expire_at=draw(some.sampled_from([FAR, FAR, FAR, PAST])) if lot else None,
        source=draw(some.sampled_from(["purchased", "promotional"])) if lot else None,
        hold_expires_at=FAR if kind == "hold" else None,
        final=draw(some.booleans()) if kind == "capture" else True,
        to_asset="gold" if kind == "exchange" else None,
        to_amount=draw(AMOUNTS) if kind == "exchange" else None,
        allow_negative=kind == "reverse" and draw(some.booleans()),
    )
    return Order(
        kind,
        first,
        second,
        draw(some.sampled_from(ASSETS)) if kind != "exchange" else "diamonds",
        draw(some.integers(-40, -1)) if kind == "adjust" and draw(some.booleans()) else draw(AMOUNTS),
        draw(some.integers(1, 6)),
        options,
        draw(some.integers(1, 12)) == 12,
    )


class History:
    """A bank with three wallets of one partition, which have something to begin with, and all that was sent to it."""

    def __init__(self, url: str) -> None:
        self.bank = bank = Bank(url)
        self.reader = db.connect(url, application="test-preview")
        bank.open_asset("diamonds")
        limited = bank.one(
            "UPDATE assets SET limits = %s WHERE tenant_id = %s AND code = 'diamonds' RETURNING id",
            write_limits(LIMITS),
            bank.tenant,
        )
        bank.do("INSERT INTO supply_shares SELECT %s, partition, 12 FROM partitions", limited)
        self.wallets = bank.wallets_in(3, 3)
        self.sent: list[tuple[int, NewCommand]] = []
        for wallet in self.wallets[:2]:
            bank.top_up(wallet, 100)
            bank.bonus(wallet, 20, options=write_options(Options(credits_expire_at=FAR)))
            bank.top_up(wallet, 25, asset="diamonds")

    def __enter__(self) -> "History":
        return self

    def __exit__(self, *_: object) -> None:
        self.bank.sql.execute("DELETE FROM pending")
        self.reader.close()
        self.bank.close()

    def command(self, order: Order) -> NewCommand:
        """As the api would make it: what refers to another command has that one's place."""
        wallet = self.wallets[order.wallet]
        asset, amount, ref_seq = order.asset, order.amount, None
        if order.kind in REFERRING:
            named = [entry for entry in self.sent if entry[1].type == "hold" or order.kind == "reverse"]
            if not named:
                return self.bank.new("top_up", wallet, order.amount)
            ref_seq, original = named[-min(order.ago, len(named))]
            wallet, asset = original.wallet, original.asset
            amount = None if order.kind == "release" or order.amount > 20 else order.amount
        to_wallet = self.wallets[order.to_wallet] if order.kind == "transfer" else None
        if order.kind == "capture" and order.amount % 2 and wallet != self.wallets[order.to_wallet]:
            to_wallet = self.wallets[order.to_wallet]
        return msgspec.structs.replace(
            self.bank.new(order.kind, wallet, 1, asset=asset, to_wallet=to_wallet),
            amount=amount,
            ref_seq=ref_seq,
            options=write_options(order.options),
            expires_at=PAST if order.late else None,
        )

    def send(self, commands: Sequence[NewCommand]) -> list[int]:
        """Accept one command, or a group of them; their seqs."""
        if len(commands) == 1:
            seqs = [answer.seq for answer in self.bank.accept(commands)]
        else:
            answers = self.bank._loop.run(inbox.accept_group(self.bank._intake, commands))
            seqs = [answer.seq for answer in answers if answer]
        self.sent += zip(seqs, commands, strict=True)
        return seqs

    def foresee(self, commands: Sequence[NewCommand]) -> list[Foreseen]:
        foreseen = previews.preview(self.reader, commands)
        return [
            msgspec.structs.replace(each, result=_canonical(msgspec.json.decode(each.result or "null"), ()))
            for each in foreseen
        ]

    def outcomes(self, seqs: Sequence[int]) -> list[Foreseen]:
        """As a preview would tell them: the lots that they made have no ids yet."""
        query = """
            SELECT seq, status, code, detail, accounts::text, result, at FROM outcomes WHERE seq = ANY(%s) ORDER BY seq
        """
        rows = self.bank.rows(query, list(seqs))
        made = tuple(transfer_id(seq, at) for seq, *_, at in rows)
        return [
            Foreseen(status, code, detail, accounts, _canonical(result, made))
            for _, status, code, detail, accounts, result, _ in rows
        ]


def _canonical(result: dict[str, Any] | None, made: tuple[str, ...]) -> str | None:
    """In one spelling, and without the ids of lots that these transfers made."""
    if result is None:
        return None
    for lot in result.get("lots", ()):
        if made and lot["lot"] is not None and lot["lot"].startswith(made):
            lot["lot"] = None
    return msgspec.json.encode(result, order="deterministic").decode()


LONG = settings(
    max_examples=max(1, EXAMPLES // 3),  # each of them a history of dozens of commands
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.large_base_example,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)


@pytest.mark.timeout(TIMEOUT_S)
@LONG
@given(units=some.lists(some.lists(orders(), min_size=1, max_size=3), min_size=20, max_size=40))
def test_a_preview_is_what_comes_of_the_command_or_the_group(
    module_database_url: str, units: list[list[Order]]
) -> None:
    with History(module_database_url) as history:
        for orders in units:
            commands = [history.command(order) for order in orders if len(orders) == 1 or order.kind not in REFERRING]
            if commands:
                foreseen = history.foresee(commands)
                seqs = history.send(commands)
                history.bank.drain()
                assert foreseen == history.outcomes(seqs)


@pytest.mark.timeout(TIMEOUT_S)
@LONG
@given(orders=some.lists(orders(), min_size=20, max_size=60), drains=some.lists(some.integers(0, 5), min_size=60))
def test_a_projection_is_what_comes_of_the_queue(
    module_database_url: str, orders: list[Order], drains: list[int]
) -> None:
    projected: dict[int, Projection] = {}
    with History(module_database_url) as history:
        for order, drained in zip(orders, [*drains[: len(orders) - 1], 500], strict=True):
            command = history.command(order)
            (seq,) = history.send([command])
            projection = previews.project(history.reader, seq=seq, partition=command.partition)
            assert projection is not None
            assert projection.queued_ahead is not None
            assert projection.queued_ahead <= len(projected)
            projected[seq] = projection
            for seq in history.bank.drain(max_rows=drained) if drained else ():
                (outcome,) = history.outcomes([seq])
                foreseen = projected.pop(seq)
                assert (foreseen.status, foreseen.code) == (outcome.status, outcome.code)
                command = dict(history.sent)[seq]
                balances = msgspec.json.decode(outcome.accounts)
                left = {(balance["wallet"], balance["asset"]): balance["available"] for balance in balances}
                assert str(foreseen.available) == left.get((command.wallet, command.asset), "0")
        assert projected == {}
