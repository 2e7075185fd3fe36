"""What a decision depends on, and what it says: plain data between the books, the rules and the journal."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from msgspec import Struct

from ledger import lots
from ledger.errors import Code
from ledger.limits import Limits
from ledger.lots import Lot, NewLot, Piece

AccountKey = tuple[int, str, str, int]  # tenant id, wallet, asset, shard


# --- what it depends on ----------------------------------------------------------------------------------------------


@dataclass(slots=True)  # whose fields are faster to read and write than a Struct's
class Account:
    """One wallet's balance of one asset, as locked by this drain. `id` is 0 until the account is opened."""

    key: AccountKey
    id: int
    asset_id: int
    posted: int = 0
    held: int = 0
    version: int = 0
    floor: int = 0
    limits: Limits | None = None
    lots: list[Lot] | None = None  # None: it has none; some of these may be used up

    def available(self, now: datetime) -> int:
        """Without what is past its lot's time."""
        free = self.posted - self.held
        return free - lots.past(self.lots, now) if self.lots else free

    @property
    def plain(self) -> int:
        """What is available of the plain rest. Below zero: owed."""
        free = self.posted - self.held
        return free - lots.free(self.lots) if self.lots else free

    @property
    def owed(self) -> int:
        return max(0, -self.plain)

    @property
    def open_lots(self) -> int:
        return sum(lot.remaining > 0 for lot in self.lots) if self.lots else 0


class Asset(Struct, frozen=True, gc=False):
    id: int
    status: str
    limits: Limits | None = None


class HoldState(Struct, gc=False):
    """A hold as it stands. `pieces`: what is still held, by lot, in the order of taking; empty: plain credits only."""

    seq: int
    account: AccountKey
    status: str
    amount: int
    remaining: int
    captured: int
    expires_at: datetime
    pieces: tuple[Piece, ...] = ()


class Leg(Struct, frozen=True, gc=False):
    """One asset's part of an applied command: `amount` went from `source` to `target`."""

    source: AccountKey
    target: AccountKey
    amount: int


class Original(Struct, gc=False):
    """An applied command that a reversal names.

    `legs`: the first one is of the command's own asset. `taken`: the pieces that it took, in order, empty where its
    payer had no lots. `made`: the lots that it made. `reversed`: how much of the first leg's amount so far.
    """

    legs: tuple[Leg, ...]
    taken: tuple[Piece, ...]
    made: tuple[tuple[int, int], ...]
    reversed: int = 0


class Window(Struct, gc=False):
    """The debits of an account in the velocity window that ends now."""

    count: int
    total: int


class Share(Struct, gc=False):
    """What may still be issued of a capped asset, to one partition, or to all of them together."""

    headroom: int


@dataclass(slots=True)
class Books:
    """All that a drain's decisions may depend on, read under its locks."""

    now: datetime
    assets: dict[tuple[int, str], Asset] = field(default_factory=dict[tuple[int, str], Asset])
    wallets: dict[tuple[int, str], str] = field(default_factory=dict[tuple[int, str], str])  # → status
    accounts: dict[AccountKey, Account] = field(default_factory=dict[AccountKey, Account])
    holds: dict[int, HoldState] = field(default_factory=dict[int, HoldState])
    originals: dict[int, Original] = field(default_factory=dict[int, Original])
    wanted: set[int] = field(default_factory=set[int])  # what this batch reverses
    windows: dict[AccountKey, Window] = field(default_factory=dict[AccountKey, Window])
    shares: dict[tuple[int, int], Share] = field(default_factory=dict[tuple[int, int], Share])  # asset id, partition
    limited: bool = False  # an asset or an account among them has limits

    def legs(self) -> dict[int, tuple[Leg, ...]]:
        """The legs of the commands that this batch reverses, as far as they are applied by now."""
        return {seq: original.legs for seq, original in self.originals.items()}

    def trial(self, keys: Iterable[AccountKey], refs: Iterable[int]) -> "Books":
        """A copy of the part that concerns these accounts, holds and originals: to try a group's commands on."""
        keys, refs = set(keys), set(refs)
        return copy.deepcopy(
            Books(
                self.now,
                self.assets,
                {key[:2]: self.wallets[key[:2]] for key in keys if key[:2] in self.wallets},
                {key: self.accounts[key] for key in keys if key in self.accounts},
                {seq: self.holds[seq] for seq in refs if seq in self.holds},
                {seq: self.originals[seq] for seq in refs if seq in self.originals},
                self.wanted,
                {key: self.windows[key] for key in keys if key in self.windows},
                self.shares,
            )
        )


# --- what it says ----------------------------------------------------------------------------------------------------

Posting = tuple[Account, int, int]  # the account, the signed change of `posted`, that of `held`
Moved = tuple[str, int]  # asset, amount


class ChangedLot(Struct, frozen=True, gc=False):
    """Signed changes of a lot of `account`. `lot` None: of its plain rest, noted beside its lots."""

    account: Account
    lot: Lot | None
    amount: int
    held: int = 0
    swept: bool = False  # it expired


class GivenLot(Struct, frozen=True, gc=False):
    """A lot that comes to be."""

    account: Account
    lot: NewLot


class OpenedHold(Struct, frozen=True, gc=False):
    account: Account
    amount: int
    expires_at: datetime
    pieces: tuple[Piece, ...]


class ChangedHold(Struct, frozen=True, gc=False):
    """Where a hold stands from now on."""

    hold: HoldState
    status: str
    remaining: int
    captured: int
    pieces: tuple[Piece, ...]


class Reversed(Struct, frozen=True, gc=False):
    """How much of a command is reversed from now on."""

    seq: int
    original: Original
    reversed: int


class Counted(Struct, frozen=True, gc=False):
    """A debit that counts in its account's velocity window."""

    window: Window
    amount: int


Effect = ChangedLot | GivenLot | OpenedHold | ChangedHold | Reversed | Counted


class Applied(Struct, frozen=True, gc=False):
    """What to post, one posting an account, and what else changes. An account may be not opened yet (`id` 0)."""

    postings: tuple[Posting, ...]
    effects: tuple[Effect, ...] = ()
    moved: tuple[Moved, ...] = ()  # where the command itself did not say it all
    below_zero: bool = False  # available may end below zero

    @property
    def moves(self) -> bool:
        """Whether credits change hands; a hold sets them aside and a release gives them back."""
        return any(amount for _, amount, _ in self.postings)


class Refused(Struct, frozen=True, gc=False):
    code: Code
    detail: str  # for a person; never parsed


Decision = Applied | Refused
