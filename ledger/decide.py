"""The rules. `decide(books, command)` says what a command comes to; it does no I/O, reads no clock, changes nothing.

The worker, the preview and the tests call the same function. Refusals stand first, in the order in which a client
gets them when several apply: too late, no such asset, asset frozen, no such wallet, wallet not open, not enough, too
much. What follows them cannot fail.
"""

from dataclasses import dataclass, field
from datetime import datetime

from ledger.commands import BONUS, REVENUE, TREASURY, Bonus, Command, Spend, TopUp, Transfer
from ledger.errors import BrokenInvariant, Code
from ledger.money import BALANCE_MAX

AccountKey = tuple[int, str, str, int]  # tenant id, wallet, asset, shard


@dataclass(slots=True)
class Account:
    """One wallet's balance of one asset, as locked by this drain. `id` is 0 until the account is opened."""

    key: AccountKey
    id: int
    asset_id: int
    posted: int = 0
    held: int = 0
    version: int = 0

    @property
    def available(self) -> int:
        return self.posted - self.held


@dataclass(slots=True, frozen=True)
class Asset:
    id: int
    status: str


@dataclass(slots=True)
class Books:
    """All that a drain's decisions may depend on, read under its locks."""

    now: datetime
    assets: dict[tuple[int, str], Asset] = field(default_factory=dict[tuple[int, str], Asset])
    wallets: dict[tuple[int, str], str] = field(default_factory=dict[tuple[int, str], str])  # → status
    accounts: dict[AccountKey, Account] = field(default_factory=dict[AccountKey, Account])


@dataclass(slots=True, frozen=True)
class Applied:
    """The transfer to write: from `source` to `target`, `amount` minor units. Either may be not opened yet (`id` 0)."""

    source: Account
    target: Account
    amount: int


@dataclass(slots=True, frozen=True)
class Refused:
    code: Code
    detail: str  # for a person; never parsed


Decision = Applied | Refused


def decide(books: Books, command: Command) -> Decision:
    """What `command` comes to on these books. Raises BrokenInvariant for a command no client can have sent."""
    if command.expires_at is not None and command.expires_at <= books.now:
        return Refused(Code.EXPIRED, f"expired at {command.expires_at.isoformat()}, before it could be applied")
    asset = books.assets.get((command.tenant_id, command.asset))
    if asset is None:
        return Refused(Code.ASSET_NOT_FOUND, f"no asset {command.asset}; create it with POST /v1/assets")
    if asset.status != "active":
        return Refused(Code.ASSET_FROZEN, f"asset {command.asset} is frozen")

    match command:
        case TopUp():
            return _credit(books, command, asset, from_wallet=TREASURY)
        case Bonus():
            return _credit(books, command, asset, from_wallet=BONUS)
        case Spend():
            return _debit(books, command, asset, to_wallet=REVENUE, to_shard=command.partition)
        case Transfer():
            assert command.to_wallet is not None
            refusal = _not_open(books, command.tenant_id, command.to_wallet, must_exist=False)
            return _debit(books, command, asset, to_wallet=command.to_wallet, to_shard=0, target_refusal=refusal)
        case _:
            raise BrokenInvariant(f"command {command.seq} is of a type that this version does not know")


def _credit(books: Books, command: Command, asset: Asset, *, from_wallet: str) -> Decision:
    """From a system wallet, which may go below zero, to the command's wallet, which the first credit opens."""
    if refusal := _not_open(books, command.tenant_id, command.wallet, must_exist=False):
        return refusal
    source = books.accounts[command.tenant_id, from_wallet, command.asset, command.partition]
    target = _account(books, (command.tenant_id, command.wallet, command.asset, 0), asset)
    return _move(source, target, command.amount)


def _debit(
    books: Books,
    command: Command,
    asset: Asset,
    *,
    to_wallet: str,
    to_shard: int,
    target_refusal: Refused | None = None,
) -> Decision:
    """From the command's wallet, never below zero."""
    if refusal := _not_open(books, command.tenant_id, command.wallet, must_exist=True) or target_refusal:
        return refusal
    source = _account(books, (command.tenant_id, command.wallet, command.asset, 0), asset)
    if source.available < command.amount:
        return Refused(Code.INSUFFICIENT_FUNDS, f"available {source.available}, needed {command.amount}")
    target = _account(books, (command.tenant_id, to_wallet, command.asset, to_shard), asset)
    return _move(source, target, command.amount)


def _move(source: Account, target: Account, amount: int) -> Decision:
    """Both balances stay within what `bigint` and our sums can hold; then the transfer stands."""
    if source.posted - amount < -BALANCE_MAX or target.posted + amount > BALANCE_MAX:
        return Refused(Code.LIMIT_EXCEEDED, f"a balance would pass {BALANCE_MAX} minor units")
    # From here on the transfer succeeds.
    return Applied(source, target, amount)


def _not_open(books: Books, tenant_id: int, wallet: str, *, must_exist: bool) -> Refused | None:
    status = books.wallets.get((tenant_id, wallet))
    if status is None:
        return Refused(Code.WALLET_NOT_FOUND, f"no wallet {wallet}; its first credit opens it") if must_exist else None
    if status == "frozen":
        return Refused(Code.WALLET_FROZEN, f"wallet {wallet} is frozen")
    if status == "closed":
        return Refused(Code.WALLET_CLOSED, f"wallet {wallet} is closed")
    return None


def _account(books: Books, key: AccountKey, asset: Asset) -> Account:
    """The account, or an empty one that comes into being when the decision is posted. A system wallet's is there."""
    if key[1].startswith("@"):
        return books.accounts[key]
    return books.accounts.get(key) or Account(key, 0, asset.id)
