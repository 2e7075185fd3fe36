"""The refusals, one question each: None, or why not. `ledger.decide` asks them in the order of docs/commands.md."""

from collections.abc import Callable

from ledger import limits
from ledger.commands import NO_OPTIONS, Command
from ledger.decisions import Account, Asset, Books, HoldState, Original, Refused
from ledger.errors import Code
from ledger.lots import LOTS_MAX
from ledger.money import BALANCE_MAX

MayMove = Callable[[Books, int, str], Refused | None]  # of a tenant's wallet: may_pay or may_receive


def opening(books: Books, command: Command) -> Refused | None:
    """Too late, or no such asset, or a frozen one."""
    if command.expires_at is not None and command.expires_at <= books.now:
        return Refused(Code.EXPIRED, f"expired at {command.expires_at.isoformat()}, before it could be applied")
    if command.options is not NO_OPTIONS:
        ends = command.options.hold_expires_at or command.options.credits_expire_at
        if ends is not None and ends <= books.now:
            return Refused(Code.EXPIRED, f"what it makes would have ended at {ends.isoformat()}")
    return asset_usable(books, command.tenant_id, command.asset)


def asset_usable(books: Books, tenant_id: int, code: str) -> Refused | None:
    asset = books.assets.get((tenant_id, code))
    if asset is None:
        return Refused(Code.ASSET_NOT_FOUND, f"no asset {code}; create it with POST /v1/assets")
    if asset.status != "active":
        return Refused(Code.ASSET_FROZEN, f"asset {code} is frozen")
    return None


def may_pay(books: Books, tenant_id: int, wallet: str) -> Refused | None:
    """The wallet is there and nothing keeps it from a debit or a hold."""
    status = books.wallets.get((tenant_id, wallet))
    if status == "active":
        return None
    if status is None:
        return Refused(Code.WALLET_NOT_FOUND, f"no wallet {wallet}; its first credit opens it")
    if status == "debits_frozen":
        return Refused(Code.WALLET_FROZEN, f"the debits of wallet {wallet} are frozen")
    return _shut(wallet, status)


def may_receive(books: Books, tenant_id: int, wallet: str) -> Refused | None:
    """Nothing keeps the wallet from a credit; one that is not there will be opened."""
    status = books.wallets.get((tenant_id, wallet))
    if status is None or status == "active" or status == "debits_frozen":
        return None
    return _shut(wallet, status)


def _shut(wallet: str, status: str) -> Refused:
    if status == "closed":
        return Refused(Code.WALLET_CLOSED, f"wallet {wallet} is closed")
    return Refused(Code.WALLET_FROZEN, f"wallet {wallet} is frozen")


def may_be_swept_to(books: Books, tenant_id: int, wallet: str) -> Refused | None:
    """The wallet is there and open for credits."""
    if (tenant_id, wallet) not in books.wallets:
        return Refused(Code.WALLET_NOT_FOUND, f"no wallet {wallet} to sweep to")
    return may_receive(books, tenant_id, wallet)


def hold_open(books: Books, seq: int) -> Refused | None:
    """The hold was placed, has not ended, and is within its time."""
    hold = books.holds.get(seq)
    if hold is None:
        return Refused(Code.COMMAND_NOT_APPLIED, "the hold was not placed")
    if hold.status != "open":
        return Refused(Code.HOLD_NOT_OPEN, f"the hold is {hold.status}")
    if hold.expires_at <= books.now:
        return Refused(Code.HOLD_NOT_OPEN, f"the hold expired at {hold.expires_at.isoformat()}")
    return None


def left_of_hold(hold: HoldState, amount: int) -> Refused | None:
    if amount > hold.remaining:
        return Refused(Code.HOLD_EXCEEDED, f"{hold.remaining} are left of the hold, asked for {amount}")
    return None


def reversible(books: Books, seq: int) -> Refused | None:
    """The command was applied, and something of it is left to reverse."""
    original = books.originals.get(seq)
    if original is None:
        return Refused(Code.COMMAND_NOT_APPLIED, "the command was not applied, so there is nothing to reverse")
    if original.reversed == original.legs[0].amount:
        return Refused(Code.ALREADY_REVERSED, "all of the command is reversed")
    return None


def left_to_reverse(original: Original, amount: int) -> Refused | None:
    left = original.legs[0].amount - original.reversed
    if amount > left:
        return Refused(Code.REVERSAL_EXCEEDED, f"{left} are left to reverse, asked for {amount}")
    return None


def emptied(books: Books, account: Account, *, swept: bool) -> Refused | None:
    """A wallet that closes: nothing is held or owed, and what it has goes elsewhere."""
    wallet, asset = account.key[1:3]
    if account.held:
        return Refused(Code.WALLET_NOT_EMPTY, f"{account.held} {asset} of {wallet} are held; release or capture them")
    if account.posted < 0:
        return Refused(Code.WALLET_NOT_EMPTY, f"{wallet} owes {-account.posted} {asset}")
    if account.posted and not swept:
        return Refused(Code.WALLET_NOT_EMPTY, f"{wallet} has {account.posted} {asset}; name a wallet to sweep them to")
    if account.available(books.now) != account.posted:
        return Refused(Code.WALLET_NOT_EMPTY, f"{wallet} has {asset} past their time, which leave within two seconds")
    return None


def as_expected(books: Books, command: Command, account: Account) -> Refused | None:
    """The command's precondition."""
    expected = command.options.precondition
    if expected is None:
        return None
    if expected.version is not None and expected.version != account.version:
        return Refused(Code.PRECONDITION_FAILED, f"version is {account.version}, not {expected.version}")
    available = account.available(books.now)
    if expected.available_gte is not None and available < expected.available_gte:
        return Refused(Code.PRECONDITION_FAILED, f"available is {available}, below {expected.available_gte}")
    return None


def within_amount(asset: Asset, account: Account, amount: int) -> Refused | None:
    """The limit on one command's amount."""
    if asset.limits is None and account.limits is None:
        return None
    most = limits.combine(asset.limits, account.limits).max_amount
    if most is not None and amount > most:
        return Refused(Code.AMOUNT_LIMIT_EXCEEDED, f"asked for {amount}, one command may have {most}")
    return None


def within_velocity(books: Books, asset: Asset, account: Account, amount: int) -> Refused | None:
    """The limits on the debits of a sliding window."""
    window = books.windows.get(account.key)
    if window is None:
        return None
    velocity = limits.combine(asset.limits, account.limits).velocity
    assert velocity is not None
    if velocity.max_count is not None and window.count >= velocity.max_count:
        detail = f"{window.count} debits in the last {velocity.window_s} s, {velocity.max_count} may be"
        return Refused(Code.VELOCITY_LIMIT_EXCEEDED, detail)
    if velocity.max_amount is not None and window.total + amount > velocity.max_amount:
        detail = f"{window.total} debited in the last {velocity.window_s} s, {amount} more pass {velocity.max_amount}"
        return Refused(Code.VELOCITY_LIMIT_EXCEEDED, detail)
    return None


def enough(books: Books, account: Account, amount: int) -> Refused | None:
    available = account.available(books.now)
    if available < amount:
        return Refused(Code.INSUFFICIENT_FUNDS, f"available {available}, needed {amount}")
    return None


def within_balance(asset: Asset, account: Account, amount: int) -> Refused | None:
    """The limit on what a wallet may have after a credit; none binds ours."""
    if (asset.limits is None and account.limits is None) or account.key[1][0] == "@":
        return None
    most = limits.combine(asset.limits, account.limits).max_balance
    if most is not None and account.posted + amount > most:
        return Refused(Code.BALANCE_LIMIT_EXCEEDED, f"posted would be {account.posted + amount}, the limit is {most}")
    return None


def within_supply(books: Books, asset: Asset, partition: int, amount: int) -> Refused | None:
    """The limit on what is in circulation. The share holds enough for the batch, or all that is left anywhere."""
    share = books.shares.get((asset.id, partition)) if books.shares else None
    if share is not None and amount > share.headroom:
        detail = f"{max(0, share.headroom)} may still be issued, asked for {amount}"
        return Refused(Code.SUPPLY_LIMIT_EXCEEDED, detail)
    return None


def few_lots(account: Account, more: int) -> Refused | None:
    if more and account.open_lots + more > LOTS_MAX:
        return Refused(Code.TOO_MANY_LOTS, f"the account has {account.open_lots} lots of at most {LOTS_MAX}")
    return None


def within_range(source: Account, target: Account, amount: int) -> Refused | None:
    """Both balances stay within what `bigint` and our sums can hold."""
    if source.posted - amount < -BALANCE_MAX or target.posted + amount > BALANCE_MAX:
        return Refused(Code.LIMIT_EXCEEDED, f"a balance would pass {BALANCE_MAX} minor units")
    return None
