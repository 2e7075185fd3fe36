"""What can be asked of the ledger: one class per command type, as the drain reads it.

The classes are told apart with `match`; adding one makes the type checker name every place that must know it.
What each of them does is said in docs/commands.md.
"""

import re
from datetime import datetime
from typing import Literal, assert_never

import msgspec

from ledger.money import Rounding

TREASURY = "@treasury"
BONUS = "@bonus"
REVENUE = "@revenue"
ADJUSTMENT = "@adjustment"
EXCHANGE = "@exchange"
EXPIRED = "@expired"
SYSTEM_WALLETS = (TREASURY, BONUS, REVENUE, ADJUSTMENT, EXCHANGE, EXPIRED)

LEDGER_CLIENT = 0  # the client of the commands that the ledger gives itself; no row in `clients`, so no key opens it

Source = Literal["purchased", "promotional"]
CreditsOrder = Literal["soonest_to_expire", "promotional_first", "purchased_first", "oldest_first"]


class Precondition(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What must be so of the command's wallet and asset when it is decided. Absent: not asked."""

    version: int | None = None
    available_gte: int | None = None  # minor units


class Options(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What only some commands have; stored as JSON beside the command. A command without any stores nothing."""

    precondition: Precondition | None = None
    credits_order: CreditsOrder = "soonest_to_expire"  # spend, transfer, hold, exchange
    credits_expire_at: datetime | None = None  # top_up, bonus: the three that make a lot
    priority: int | None = None
    source: Source | None = None
    hold_expires_at: datetime | None = None  # hold
    final: bool = True  # capture
    to_asset: str | None = None  # exchange
    to_amount: int | None = None  # exchange: minor units of `to_asset`, worked out when it was accepted
    rate: str | None = None  # exchange: a decimal without needless zeros (ledger.money)
    rounding: Rounding = "down"  # exchange
    allow_negative: bool = False  # reverse
    reason: str | None = None  # adjust, close
    lot_n: int | None = None  # expire_credits: with ref_seq, the lot
    assets: tuple[str, ...] = ()  # close: every asset of which the wallet has an account
    requeue_of: str | None = None  # any: the id of the failed command whose request this one repeats


NO_OPTIONS = Options()
_options = msgspec.json.Decoder(Options)
_encode = msgspec.json.Encoder().encode


def read_options(text: bytes | str | None) -> Options:
    """The options of a stored command."""
    return NO_OPTIONS if text is None else _options.decode(text)


def write_options(options: Options) -> str | None:
    """As they are stored: JSON without the members that are as in `Options()`; None where all are."""
    return None if options == NO_OPTIONS else _encode(options).decode()


class Order(msgspec.Struct, frozen=True, gc=False):
    """What every command has. Amounts are minor units of `asset`; `wallet` and `asset` are the caller's names.

    `amount` 0: all that is left (capture, release, reverse, expire_hold, expire_credits, close).
    """

    seq: int
    tenant_id: int
    partition: int
    wallet: str
    asset: str
    amount: int
    expires_at: datetime | None = None
    to_wallet: str | None = None
    ref_seq: int = 0  # the hold to capture or release, the command to reverse, the command that made a lot
    group_seq: int | None = None
    request_hash: bytes = b""
    client_id: int = 0  # who is told of the outcome: the sender; of the end of a hold, who placed it
    options: Options = NO_OPTIONS


class TopUp(Order, frozen=True, gc=False):
    """Paid-for credits enter a wallet: `@treasury` → wallet."""


class Bonus(Order, frozen=True, gc=False):
    """Given credits enter a wallet: `@bonus` → wallet."""


class Spend(Order, frozen=True, gc=False):
    """Credits leave a wallet for good: wallet → `@revenue`."""


class Transfer(Order, frozen=True, gc=False):
    """Credits change owner: wallet → `to_wallet`. Ordered among the commands of `wallet`."""


class Hold(Order, frozen=True, gc=False):
    """Credits are reserved until they are captured, released, or expire."""


class Capture(Order, frozen=True, gc=False):
    """Held credits leave for good, or change owner: wallet → `@revenue` or `to_wallet`."""


class Release(Order, frozen=True, gc=False):
    """What is left of a hold becomes available again."""


class Exchange(Order, frozen=True, gc=False):
    """Credits of one asset become credits of another, through `@exchange`."""


class Reverse(Order, frozen=True, gc=False):
    """The opposite of an applied command, or of a part of it."""


class Adjust(Order, frozen=True, gc=False):
    """An operator's correction: `@adjustment` → wallet, or back where `amount` is below zero."""


class ExpireHold(Order, frozen=True, gc=False):
    """The ledger's own: what is left of a hold past its time becomes available again."""


class ExpireCredits(Order, frozen=True, gc=False):
    """The ledger's own: what is left of a lot past its time leaves: wallet → `@expired`."""


class Close(Order, frozen=True, gc=False):
    """The ledger's own: a wallet ends, with all it has going to `to_wallet` if one is named."""


class Unknown(Order, frozen=True, gc=False):
    """A type that this version does not know: a row from a newer one, or a damaged one. Deciding it raises."""


Command = (
    TopUp
    | Bonus
    | Spend
    | Transfer
    | Hold
    | Capture
    | Release
    | Exchange
    | Reverse
    | Adjust
    | ExpireHold
    | ExpireCredits
    | Close
    | Unknown
)


def type_of(command: type[Command]) -> str:
    """As clients write it: `TopUp` is `top_up`."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", command.__name__).lower()


TYPES = (  # that a client can send
    "top_up",
    "bonus",
    "spend",
    "transfer",
    "hold",
    "capture",
    "release",
    "exchange",
    "reverse",
    "adjust",
)
OWN_TYPES = ("expire_hold", "expire_credits", "close")  # that the ledger gives itself
TOMBSTONE = "tombstone"  # of a key that was cancelled before anything arrived under it; it has its outcome at once
# A pending one of these is queued against its wallet's available balance; an adjustment where it is below zero.
DEBIT_TYPES = ("spend", "transfer", "hold", "exchange", "adjust")
REVERSIBLE_TYPES = ("top_up", "bonus", "spend", "transfer", "capture", "exchange", "adjust")


def touched_wallets(command: Command) -> tuple[str, ...]:
    """The wallets whose accounts in `asset` a drain must lock for this command, system wallets among them.

    What a reversal touches beyond its own wallet is known from the command that it reverses (ledger.books).
    """
    match command:
        case TopUp():
            return (command.wallet, TREASURY)
        case Bonus():
            return (command.wallet, BONUS)
        case Spend():
            return (command.wallet, REVENUE)
        case Exchange():
            return (command.wallet, EXCHANGE)
        case Transfer() | Close() | Capture():
            return (command.wallet, command.to_wallet or REVENUE)
        case Adjust():
            return (command.wallet, ADJUSTMENT)
        case ExpireCredits():
            return (command.wallet, EXPIRED)
        case Hold() | Release() | ExpireHold() | Reverse():
            return (command.wallet,)
        case Unknown():
            return ()
        case _:
            assert_never(command)
