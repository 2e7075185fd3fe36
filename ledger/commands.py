"""What can be asked of the ledger: one class per command type, as the drain reads it.

The classes are told apart with `match`; adding one makes the type checker name every place that must know it.
"""

from datetime import datetime
from typing import assert_never

import msgspec

TREASURY = "@treasury"
BONUS = "@bonus"
REVENUE = "@revenue"
SYSTEM_WALLETS = (TREASURY, BONUS, REVENUE)


class Order(msgspec.Struct, frozen=True, gc=False):
    """What every command has. Amounts are minor units of `asset`; `wallet` and `asset` are the caller's names."""

    seq: int
    tenant_id: int
    partition: int
    wallet: str
    asset: str
    amount: int
    expires_at: datetime | None


class TopUp(Order, frozen=True, gc=False):
    """Paid-for credits enter a wallet: `@treasury` → wallet."""


class Bonus(Order, frozen=True, gc=False):
    """Given credits enter a wallet: `@bonus` → wallet."""


class Spend(Order, frozen=True, gc=False):
    """Credits leave a wallet for good: wallet → `@revenue`."""


class Transfer(Order, frozen=True, gc=False, kw_only=True):
    """Credits change owner: wallet → `to_wallet`. Ordered among the commands of `wallet`."""

    to_wallet: str


class Unknown(Order, frozen=True, gc=False):
    """A type that this version does not know: a row from a newer one, or a damaged one. Deciding it raises."""


Command = TopUp | Bonus | Spend | Transfer | Unknown

TYPES = ("top_up", "bonus", "spend", "transfer")
DEBIT_TYPES = ("spend", "transfer")  # a pending one of these is queued against its wallet's available balance


def touched_wallets(command: Command) -> tuple[str, ...]:
    """The wallets whose accounts a drain must lock for this command, system wallets among them."""
    match command:
        case TopUp():
            return (command.wallet, TREASURY)
        case Bonus():
            return (command.wallet, BONUS)
        case Spend():
            return (command.wallet, REVENUE)
        case Transfer():
            return (command.wallet, command.to_wallet)
        case Unknown():
            return ()
        case _:
            assert_never(command)
