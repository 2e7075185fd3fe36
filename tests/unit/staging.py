"""The books as one command meets them, without a database: all is well until a test spoils something."""

import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from ledger.commands import (
    BONUS,
    EXCHANGE,
    REVENUE,
    SYSTEM_WALLETS,
    TREASURY,
    Adjust,
    Bonus,
    Capture,
    Close,
    Command,
    Exchange,
    ExpireCredits,
    ExpireHold,
    Hold,
    Options,
    Release,
    Reverse,
    Spend,
    TopUp,
    Transfer,
    Unknown,
)
from ledger.decide import decide
from ledger.decisions import Account, Applied, Asset, Books, HoldState, Leg, Original, Refused, Share, Window
from ledger.errors import Code
from ledger.limits import Limits
from ledger.lots import Lot, Piece

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATE = NOW - timedelta(microseconds=1)
IN_TIME = NOW + timedelta(microseconds=1)
TENANT, PARTITION = 1, 3
ASSETS = {"gold": 7, "diamonds": 8}
NAMED = 50  # the hold to capture, or the command to reverse

Place = tuple[str, str]  # (wallet, asset)

# What each kind is about; a reversal's says of what.
KINDS: dict[str, tuple[type[Command], dict[str, Any]]] = {
    "top_up": (TopUp, {}),
    "bonus": (Bonus, {}),
    "spend": (Spend, {}),
    "transfer": (Transfer, {"to_wallet": "bob"}),
    "hold": (Hold, {}),
    "capture": (Capture, {"ref_seq": NAMED}),
    "capture to bob": (Capture, {"ref_seq": NAMED, "to_wallet": "bob"}),
    "release": (Release, {"ref_seq": NAMED}),
    "exchange": (Exchange, {}),
    "adjust": (Adjust, {}),
    "adjust down": (Adjust, {}),
    "reverse spend": (Reverse, {"ref_seq": NAMED}),
    "reverse top_up": (Reverse, {"ref_seq": NAMED}),
    "reverse transfer": (Reverse, {"ref_seq": NAMED}),
    "reverse exchange": (Reverse, {"ref_seq": NAMED}),
    "expire_hold": (ExpireHold, {"ref_seq": NAMED}),
    "expire_credits": (ExpireCredits, {"ref_seq": NAMED}),
    "close": (Close, {}),
    "close to bob": (Close, {"to_wallet": "bob"}),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "hold": {"hold_expires_at": IN_TIME},
    "exchange": {"to_asset": "diamonds", "to_amount": 15},
    "adjust": {"reason": "counted wrong"},
    "adjust down": {"reason": "counted wrong"},
    "expire_credits": {"lot_n": 1},
    "close": {"assets": ("diamonds", "gold")},
    "close to bob": {"assets": ("diamonds", "gold")},
}
LEGS: dict[str, list[tuple[Place, Place, int]]] = {  # of what is reversed
    "reverse spend": [(("alice", "gold"), (REVENUE, "gold"), 40)],
    "reverse top_up": [((TREASURY, "gold"), ("alice", "gold"), 40)],
    "reverse transfer": [(("alice", "gold"), ("bob", "gold"), 40)],
    "reverse exchange": [
        (("alice", "gold"), (EXCHANGE, "gold"), 40),
        ((EXCHANGE, "diamonds"), ("alice", "diamonds"), 20),
    ],
}


def key(wallet: str, asset: str) -> tuple[int, str, str, int]:
    return TENANT, wallet, asset, PARTITION if wallet.startswith("@") else 0


@dataclass
class Scene:
    """alice and bob have 100 gold each, alice 100 diamonds too, and a hold of 40 gold where a command is about one."""

    asset: str | None = "active"
    to_asset: str | None = "active"  # diamonds
    alice: str | None = "active"
    bob: str | None = "active"
    balances: dict[str, int] = field(default_factory=lambda: {"alice": 100, "bob": 100})
    diamonds: int = 100
    held: dict[str, int] = field(default_factory=dict[str, int])
    system: dict[str, int] = field(default_factory=dict[str, int])
    expires_at: datetime | None = None
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    limits: dict[Place, dict[str, Any]] = field(default_factory=dict[Place, dict[str, Any]])
    asset_limits: dict[str, Any] = field(default_factory=dict[str, Any])  # of both
    lots: dict[Place, list[Lot]] = field(default_factory=dict[Place, list[Lot]])
    debits: int = 0  # of alice, in her velocity window
    headroom: int | None = None  # of both assets
    named: bool = True  # what a command is about was applied
    hold_status: str = "open"
    hold_expires_at: datetime = IN_TIME
    left: int = 40  # of the hold, of what is reversed

    def books(self, kind: str = "") -> Books:
        books = Books(NOW)
        for asset, status in (("gold", self.asset), ("diamonds", self.to_asset)):
            if status:
                limits = Limits(**self.asset_limits) if self.asset_limits else None
                books.assets[TENANT, asset] = Asset(ASSETS[asset], status, limits)
            for number, wallet in enumerate(SYSTEM_WALLETS):
                place = key(wallet, asset)
                books.accounts[place] = Account(place, 900 + number, ASSETS[asset], self.system.get(wallet, 0))
                books.wallets[TENANT, wallet] = "active"
        for number, (wallet, status) in enumerate({"alice": self.alice, "bob": self.bob}.items()):
            if status:
                books.wallets[TENANT, wallet] = status
                if wallet in self.balances:
                    self._open(books, wallet, "gold", 10 + number, self.balances[wallet])
        if self.alice and "alice" in self.balances:
            self._open(books, "alice", "diamonds", 12, self.diamonds)
        if self.debits:
            books.windows[key("alice", "gold")] = Window(self.debits, 0)
        if self.headroom is not None:
            books.shares = {(asset, PARTITION): Share(self.headroom) for asset in ASSETS.values()}
        if self.named:
            self._name(books, kind)
        return books

    def _open(self, books: Books, wallet: str, asset: str, id_: int, posted: int) -> None:
        place = key(wallet, asset)
        limits = Limits(**self.limits[wallet, asset]) if (wallet, asset) in self.limits else None
        lots, held = (
            list(self.lots.get((wallet, asset), ())) or None,
            self.held.get(wallet, 0) if asset == "gold" else 0,
        )
        account = Account(place, id_, ASSETS[asset], posted, held, version=5, limits=limits, lots=lots)
        books.accounts[place] = account

    def _name(self, books: Books, kind: str) -> None:
        if kind.startswith(("capture", "release", "expire_hold")):
            pieces: tuple[Piece, ...] = ()
            if alice := books.accounts.get(key("alice", "gold")):
                alice.held += 40
                alice.posted += 40
                if alice.lots:
                    lot = alice.lots[0] = replace(alice.lots[0], held=1)
                    pieces = (Piece(lot, 1), Piece(None, self.left - 1))
            amounts = (40, self.left, 40 - self.left)
            hold = HoldState(NAMED, key("alice", "gold"), self.hold_status, *amounts, self.hold_expires_at, pieces)
            books.holds[NAMED] = hold
        elif kind in LEGS:
            legs = tuple(Leg(key(*source), key(*target), amount) for source, target, amount in LEGS[kind])
            books.originals[NAMED] = Original(legs, (), (), reversed=40 - self.left)

    def command(self, kind: str, amount: int = 30) -> Command:
        if kind not in KINDS:
            return Unknown(1, TENANT, PARTITION, "alice", "gold", amount, self.expires_at)
        type_, more = KINDS[kind][0], dict(KINDS[kind][1])
        if kind in ("release", "expire_hold", "expire_credits"):
            amount = 0
        elif kind == "adjust down":
            amount = -amount
        options = Options(**(OPTIONS.get(kind, {}) | self.options))
        if options != Options():
            more["options"] = options
        return type_(1, TENANT, PARTITION, "alice", "gold", amount, self.expires_at, **more)

    def decide(self, kind: str, amount: int = 30) -> Applied | Refused:
        """The decision; the books must be as they were."""
        books, command = self.books(kind), self.command(kind, amount)
        before = copy.deepcopy(books)
        decision = decide(books, command)
        assert books == before, "deciding changes nothing"
        assert decide(books, command) == decision, "and says the same again"
        return decision

    def code(self, kind: str, amount: int = 30) -> Code:
        decision = self.decide(kind, amount)
        return decision.code if isinstance(decision, Refused) else Code.APPLIED


OURS = {"top_up": TREASURY, "bonus": BONUS, "spend": REVENUE, "capture": REVENUE, "exchange": EXCHANGE}
