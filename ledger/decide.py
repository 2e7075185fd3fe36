"""The rules. `decide(books, command)` says what a command comes to; it does no I/O, reads no clock, changes nothing.

The worker, the preview and the tests call the same function. Refusals stand first, in the order in which a client
gets them when several apply; what follows them cannot fail. Both are written down in docs/commands.md.
"""

from collections.abc import Sequence
from typing import assert_never

from ledger import guards, lots
from ledger.commands import (
    ADJUSTMENT,
    BONUS,
    EXCHANGE,
    EXPIRED,
    REVENUE,
    TREASURY,
    Adjust,
    Bonus,
    Capture,
    Close,
    Command,
    CreditsOrder,
    Exchange,
    ExpireCredits,
    ExpireHold,
    Hold,
    Release,
    Reverse,
    Source,
    Spend,
    TopUp,
    Transfer,
    Unknown,
)
from ledger.decisions import (
    Account,
    AccountKey,
    Applied,
    Asset,
    Books,
    ChangedHold,
    ChangedLot,
    Counted,
    Decision,
    Effect,
    GivenLot,
    OpenedHold,
    Original,
    Posting,
    Refused,
    Reversed,
)
from ledger.errors import BrokenInvariant, Code
from ledger.lots import PRIORITY_DEFAULT, NewLot, Piece


def decide(books: Books, command: Command) -> Decision:
    """What `command` comes to on these books. Raises BrokenInvariant for a command no client can have sent."""
    match command:
        case Spend():
            return _pay(books, command, to_wallet=REVENUE)
        case TopUp():
            return _credit(books, command, from_wallet=TREASURY, source="purchased")
        case Bonus():
            return _credit(books, command, from_wallet=BONUS, source="promotional")
        case Transfer():
            assert command.to_wallet is not None
            return _pay(books, command, to_wallet=command.to_wallet)
        case Hold():
            return _hold(books, command)
        case Capture():
            return _capture(books, command)
        case Release():
            return _release(books, command)
        case Exchange():
            return _exchange(books, command)
        case Reverse():
            return _reverse(books, command)
        case Adjust():
            return _adjust(books, command)
        case ExpireHold():
            return _expire_hold(books, command)
        case ExpireCredits():
            return _expire_credits(books, command)
        case Close():
            return _close(books, command)
        case Unknown():
            raise BrokenInvariant(f"command {command.seq} is of a type that this version does not know")
        case _:
            assert_never(command)


# --- credits come and go ---------------------------------------------------------------------------------------------


def _credit(books: Books, command: Command, *, from_wallet: str, source: Source) -> Decision:
    """From a system wallet, which may go below zero, to the command's wallet, which the first credit opens."""
    if refusal := guards.opening(books, command) or guards.may_receive(books, command.tenant_id, command.wallet):
        return refusal
    amount = command.amount
    asset = books.assets[command.tenant_id, command.asset]
    giver, taker = _account(books, command, from_wallet), _account(books, command, command.wallet)
    lot = _lot(command, source, amount - min(amount, taker.owed))
    if refusal := (
        guards.as_expected(books, command, taker)
        or guards.within_amount(asset, taker, amount)
        or guards.within_balance(asset, taker, amount)
        or guards.within_supply(books, asset, command.partition, amount)
        or guards.few_lots(taker, 1 if lot else 0)
        or guards.within_range(giver, taker, amount)
    ):
        return refusal
    # From here on the credit succeeds.
    return Applied(_move(giver, taker, amount), (GivenLot(taker, lot),) if lot else ())


def _pay(books: Books, command: Command, *, to_wallet: str) -> Decision:
    """From the command's wallet, never below zero, to ours or another player's, which the first credit opens."""
    if refusal := (
        guards.opening(books, command)
        or guards.may_pay(books, command.tenant_id, command.wallet)
        or guards.may_receive(books, command.tenant_id, to_wallet)
    ):
        return refusal
    amount = command.amount
    asset = books.assets[command.tenant_id, command.asset]
    payer, taker = _account(books, command, command.wallet), _account(books, command, to_wallet)
    if refusal := _cannot_debit(books, command, asset, payer):
        return refusal
    pieces = _take(books, payer, amount, command.options.credits_order) if payer.lots else ()
    given = _handed_on(taker, pieces)
    if refusal := (
        guards.within_balance(asset, taker, amount)
        or guards.few_lots(taker, len(given))
        or guards.within_range(payer, taker, amount)
    ):
        return refusal
    # From here on the payment succeeds.
    return Applied(_move(payer, taker, amount), (*_debited(books, payer, amount), *_taken(payer, pieces), *given))


def _adjust(books: Books, command: Command) -> Decision:
    """A correction; limits do not bind it."""
    amount, takes = abs(command.amount), command.amount < 0
    may = guards.may_pay if takes else guards.may_receive
    if refusal := guards.opening(books, command) or may(books, command.tenant_id, command.wallet):
        return refusal
    account, ours = _account(books, command, command.wallet), _account(books, command, ADJUSTMENT)
    if refusal := guards.as_expected(books, command, account):
        return refusal
    payer, taker = (account, ours) if takes else (ours, account)
    if refusal := (guards.enough(books, account, amount) if takes else None) or guards.within_range(
        payer, taker, amount
    ):
        return refusal
    # From here on the adjustment succeeds.
    pieces = _take(books, account, amount) if takes else ()
    return Applied(_move(payer, taker, amount), _taken(account, pieces))


def _exchange(books: Books, command: Command) -> Decision:
    """Both assets pass through ours; what the rate leaves over stays there, or came from there."""
    options = command.options
    assert options.to_asset is not None
    assert options.to_amount is not None
    if refusal := (
        guards.opening(books, command)
        or guards.asset_usable(books, command.tenant_id, options.to_asset)
        or guards.may_pay(books, command.tenant_id, command.wallet)
    ):
        return refusal
    asset, to_asset = (books.assets[command.tenant_id, code] for code in (command.asset, options.to_asset))
    payer, ours = _account(books, command, command.wallet), _account(books, command, EXCHANGE)
    giver = _account(books, command, EXCHANGE, options.to_asset)
    taker = _account(books, command, command.wallet, options.to_asset)
    if refusal := (
        _cannot_debit(books, command, asset, payer)
        or guards.within_balance(to_asset, taker, options.to_amount)
        or guards.within_supply(books, to_asset, command.partition, options.to_amount)
        or guards.within_range(payer, ours, command.amount)
        or guards.within_range(giver, taker, options.to_amount)
    ):
        return refusal
    # From here on the exchange succeeds.
    pieces = _take(books, payer, command.amount, options.credits_order)
    return Applied(
        (*_move(payer, ours, command.amount), *_move(giver, taker, options.to_amount)),
        (*_debited(books, payer, command.amount), *_taken(payer, pieces)),
        ((command.asset, command.amount), (options.to_asset, options.to_amount)),
    )


# --- holds -----------------------------------------------------------------------------------------------------------


def _hold(books: Books, command: Command) -> Decision:
    if refusal := guards.opening(books, command) or guards.may_pay(books, command.tenant_id, command.wallet):
        return refusal
    amount, ends = command.amount, command.options.hold_expires_at
    assert ends is not None
    account = _account(books, command, command.wallet)
    if refusal := _cannot_debit(books, command, books.assets[command.tenant_id, command.asset], account):
        return refusal
    # From here on the hold succeeds.
    pieces = _take(books, account, amount, command.options.credits_order)
    reserved = [ChangedLot(account, piece.lot, 0, piece.amount) for piece in pieces]
    opened = OpenedHold(account, amount, ends, pieces)
    return Applied(((account, 0, amount),), (*_debited(books, account, amount), *reserved, opened))


def _capture(books: Books, command: Command) -> Decision:
    to_wallet = command.to_wallet or REVENUE
    if refusal := (
        guards.opening(books, command)
        or guards.hold_open(books, command.ref_seq)
        or guards.may_pay(books, command.tenant_id, command.wallet)
        or guards.may_receive(books, command.tenant_id, to_wallet)
    ):
        return refusal
    hold = books.holds[command.ref_seq]
    amount = command.amount or hold.remaining
    payer, taker = _account(books, command, command.wallet), _account(books, command, to_wallet)
    if refusal := guards.as_expected(books, command, payer) or guards.left_of_hold(hold, amount):
        return refusal
    captured, left = lots.split(hold.pieces, amount)
    given = _handed_on(taker, captured)
    if refusal := (
        guards.within_balance(books.assets[command.tenant_id, command.asset], taker, amount)
        or guards.few_lots(taker, len(given))
        or guards.within_range(payer, taker, amount)
    ):
        return refusal
    # From here on the capture succeeds.
    ends = command.options.final or amount == hold.remaining
    given_back = hold.remaining - amount if ends else 0
    changes = [ChangedLot(payer, piece.lot, -piece.amount, -piece.amount) for piece in captured]
    if ends:
        changes += _unreserved(payer, left)
    return Applied(
        ((payer, -amount, -amount - given_back), (taker, amount, 0)),
        (
            *changes,
            *given,
            ChangedHold(
                hold,
                "captured" if ends else "open",
                0 if ends else hold.remaining - amount,
                hold.captured + amount,
                () if ends else left,
            ),
        ),
        ((command.asset, amount),),
    )


def _release(books: Books, command: Command) -> Decision:
    if refusal := (
        guards.opening(books, command)
        or guards.hold_open(books, command.ref_seq)
        or guards.may_receive(books, command.tenant_id, command.wallet)
        or guards.as_expected(books, command, _account(books, command, command.wallet))
    ):
        return refusal
    # From here on the release succeeds.
    return _given_back(books, command, "released")


def _expire_hold(books: Books, command: Command) -> Decision:
    """The clock's own: freezes do not stop it. Whether it is time was asked when it was put into the inbox, once: a
    refusal would be for ever, and a clock that was set back meanwhile would leave the hold open for as long."""
    hold = books.holds.get(command.ref_seq)
    if hold is None or hold.status != "open":
        return Refused(Code.HOLD_NOT_OPEN, "the hold has ended")
    # From here on the hold expires.
    return _given_back(books, command, "expired")


def _given_back(books: Books, command: Command, status: str) -> Applied:
    """All that is left of the hold becomes available."""
    hold, account = books.holds[command.ref_seq], _account(books, command, command.wallet)
    return Applied(
        ((account, 0, -hold.remaining),),
        (*_unreserved(account, hold.pieces), ChangedHold(hold, status, 0, hold.captured, ())),
        ((command.asset, hold.remaining),),
    )


def _unreserved(account: Account, pieces: Sequence[Piece]) -> list[ChangedLot]:
    """Pieces of a hold become available again, after what the wallet owes: otherwise the end of such a lot would take
    the wallet below zero once more."""
    kept = {id(piece.lot): piece.amount for piece in lots.repay(pieces, account.owed)}
    return [
        ChangedLot(account, piece.lot, kept.get(id(piece.lot), 0) - piece.amount if piece.lot else 0, -piece.amount)
        for piece in pieces
    ]


# --- reversals -------------------------------------------------------------------------------------------------------


def _reverse(books: Books, command: Command) -> Decision:
    """The opposite of a command's legs. Limits do not bind it."""
    if refusal := guards.opening(books, command) or guards.reversible(books, command.ref_seq):
        return refusal
    original = books.originals[command.ref_seq]
    whole = original.legs[0].amount
    amount = command.amount or whole - original.reversed
    for leg in original.legs[1:]:
        if refusal := guards.asset_usable(books, command.tenant_id, leg.source[2]):
            return refusal
    for wallet, may in _reversal_wallets(command, original):
        if refusal := may(books, command.tenant_id, wallet):
            return refusal
    if refusal := guards.as_expected(
        books, command, _account(books, command, command.wallet)
    ) or guards.left_to_reverse(original, amount):
        return refusal

    done = original.reversed
    parts = [(leg, _part(leg.amount, done + amount, whole) - _part(leg.amount, done, whole)) for leg in original.legs]
    if not command.options.allow_negative:
        for leg, back in parts:
            payer = _at(books, leg.target, leg.source)
            if back and not _is_ours(payer) and (refusal := guards.enough(books, payer, back)):
                return refusal
    postings: list[Posting] = []
    effects: list[Effect] = []
    moved: list[tuple[str, int]] = []
    for leg, back in parts:
        if back == 0:  # so small a part of the whole that the other asset's share of it was taken back before
            continue
        payer, taker = _at(books, leg.target, leg.source), _at(books, leg.source, leg.source)
        if refusal := guards.within_range(payer, taker, back):
            return refusal
        postings += _move(payer, taker, back)
        moved.append((leg.source[2], back))
        if payer.lots:
            effects += _taken(payer, _take(books, payer, back, first=original.made, below_zero=True))
        if leg is original.legs[0] and original.taken:
            moved_away, _ = lots.split(original.taken, whole)  # a last capture's other pieces repaid what was owed
            returned = lots.last_first(moved_away, original.reversed, back)
            effects += [ChangedLot(taker, piece.lot, piece.amount) for piece in lots.repay(returned, taker.owed)]
    # From here on the reversal succeeds.
    effects.append(Reversed(command.ref_seq, original, original.reversed + amount))
    return Applied(tuple(postings), tuple(effects), tuple(moved), below_zero=command.options.allow_negative)


def _reversal_wallets(command: Command, original: Original) -> list[tuple[str, guards.MayMove]]:
    """The players' wallets that a reversal moves, the command's own first, and what each must be open for."""
    asked: dict[str, guards.MayMove] = {}
    for leg in original.legs:
        for key, may in ((leg.source, guards.may_receive), (leg.target, guards.may_pay)):
            if not key[1].startswith("@") and asked.get(key[1]) is not guards.may_pay:
                asked[key[1]] = may
    return sorted(asked.items(), key=lambda entry: entry[0] != command.wallet)


def _part(amount: int, reversed: int, whole: int) -> int:
    """What `reversed` of `whole` makes of another leg's amount: rounded up, so that all parts make the whole."""
    return -(-amount * reversed // whole)


# --- the end of credits, and of wallets ------------------------------------------------------------------------------


def _expire_credits(books: Books, command: Command) -> Decision:
    """The clock's own, as is the end of a hold."""
    account, ours = _account(books, command, command.wallet), _account(books, command, EXPIRED)
    name = (command.ref_seq, command.options.lot_n)
    lot = next((lot for lot in account.lots or () if (lot.seq, lot.n) == name), None)
    if lot is None or lot.free == 0:
        return Refused(Code.EXPIRED, "nothing is left of these credits")
    if refusal := guards.within_range(account, ours, lot.free):
        return refusal
    # From here on the credits expire.
    return Applied(
        _move(account, ours, lot.free),
        (ChangedLot(account, lot, -lot.free, swept=True),),
        ((command.asset, lot.free),),
    )


def _close(books: Books, command: Command) -> Decision:
    """An operator's: the wallet may be frozen. All it has goes to `to_wallet`, lots as lots; nothing may be left."""
    accounts = [_account(books, command, command.wallet, code) for code in command.options.assets]
    sweep = command.to_wallet
    leaving = [account for account in accounts if account.posted] if sweep is not None else []
    for account in leaving:
        if refusal := guards.asset_usable(books, command.tenant_id, account.key[2]):
            return refusal
    if sweep is not None and (refusal := guards.may_be_swept_to(books, command.tenant_id, sweep)):
        return refusal
    for account in accounts:
        if refusal := guards.emptied(books, account, swept=sweep is not None):
            return refusal
    postings: list[Posting] = []
    effects: list[Effect] = []
    moved: list[tuple[str, int]] = []
    for account in leaving:
        assert sweep is not None
        taker = _account(books, command, sweep, account.key[2])
        pieces = _take(books, account, account.posted)
        given = _handed_on(taker, pieces)
        if refusal := guards.few_lots(taker, len(given)) or guards.within_range(account, taker, account.posted):
            return refusal
        postings += _move(account, taker, account.posted)
        effects += [*_taken(account, pieces), *given]
        moved.append((account.key[2], account.posted))
    # From here on the wallet can be closed.
    return Applied(tuple(postings), tuple(effects), tuple(moved))


# --- what they share -------------------------------------------------------------------------------------------------


def _cannot_debit(books: Books, command: Command, asset: Asset, payer: Account) -> Refused | None:
    """Why the command's amount cannot leave its wallet, or be reserved in it."""
    return (
        guards.as_expected(books, command, payer)
        or guards.within_amount(asset, payer, command.amount)
        or guards.within_velocity(books, asset, payer, command.amount)
        or guards.enough(books, payer, command.amount)
    )


def _account(books: Books, command: Command, wallet: str, asset: str | None = None) -> Account:
    """The account, or an empty one that comes into being when the decision is posted. One of ours is there."""
    code = asset or command.asset
    if wallet[0] == "@":
        return books.accounts[command.tenant_id, wallet, code, command.partition]
    key = (command.tenant_id, wallet, code, 0)
    return books.accounts.get(key) or Account(key, 0, books.assets[command.tenant_id, code].id)


def _at(books: Books, key: AccountKey, like: AccountKey) -> Account:
    return books.accounts.get(key) or Account(key, 0, books.assets[key[0], like[2]].id)


def _is_ours(account: Account) -> bool:
    return account.key[1][0] == "@"


def _move(source: Account, target: Account, amount: int) -> tuple[Posting, Posting]:
    return (source, -amount, 0), (target, amount, 0)


def _take(
    books: Books,
    account: Account,
    amount: int,
    order: CreditsOrder = "soonest_to_expire",
    *,
    first: Sequence[tuple[int, int]] = (),
    below_zero: bool = False,
) -> tuple[Piece, ...]:
    if not account.lots:
        return ()
    return lots.take(account.lots, account.plain, amount, order, books.now, first=first, below_zero=below_zero)


def _taken(account: Account, pieces: Sequence[Piece]) -> tuple[ChangedLot, ...]:
    if not pieces:
        return ()
    return tuple(ChangedLot(account, piece.lot, -piece.amount) for piece in pieces)


def _handed_on(taker: Account, pieces: Sequence[Piece]) -> tuple[GivenLot, ...]:
    if not pieces or _is_ours(taker):
        return ()
    return tuple(GivenLot(taker, lot) for lot in lots.hand_on(pieces, taker.owed))


def _debited(books: Books, account: Account, amount: int) -> tuple[Counted, ...]:
    window = books.windows.get(account.key) if books.windows else None
    return (Counted(window, amount),) if window else ()


def _lot(command: Command, source: Source, amount: int) -> NewLot | None:
    """The lot that a credit makes; None: it is plain, or repays what was owed."""
    options = command.options
    if amount == 0 or (options.credits_expire_at, options.priority, options.source) == (None, None, None):
        return None
    priority = PRIORITY_DEFAULT if options.priority is None else options.priority
    return NewLot(options.source or source, priority, options.credits_expire_at, amount)
