"""What a bank must do, written a second time and differently: plain dictionaries, no SQL, no `decide`.

The rules are those of docs/commands.md. Whoever changes one changes it here, too, and on purpose.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.properties.purse import PLAIN, Key, Kind, Piece, Purse

LARGEST_BALANCE = 9_000_000_000_000_000_000
LARGEST_NUMBER_OF_LOTS = 500
HOUSES = {
    "top_up": "@treasury",
    "bonus": "@bonus",
    "spend": "@revenue",
    "capture": "@revenue",
    "exchange": "@exchange",
    "adjust": "@adjustment",
    "expire_credits": "@expired",
}
FREE_OF_RULES = ("expire_hold", "expire_credits")

Where = tuple[str, str]  # (wallet, asset)


@dataclass(frozen=True)
class Ask:
    """A command. `amount` None: all that is left; `of`: the command that it names."""

    seq: int
    kind: str
    wallet: str
    asset: str
    amount: int | None
    partition: int
    to_wallet: str | None = None
    of: int = 0
    expires_at: datetime | None = None
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    def __getitem__(self, option: str) -> Any:
        return self.options.get(option)

    @property
    def order(self) -> str:
        return self["credits_order"] or "soonest_to_expire"


@dataclass
class Held:
    where: Where
    expires: datetime
    pieces: list[Piece]
    status: str = "open"
    captured: int = 0

    @property
    def remaining(self) -> int:
        return sum(piece.amount for piece in self.pieces)


@dataclass
class Done:
    """What an applied command did, for whoever reverses it."""

    ask: Ask
    amount: int
    taken: list[Piece]  # from its wallet, in this order
    made: list[Key]  # the lots that it made
    reversed: int = 0


@dataclass
class Move:
    """Credits that go from one place to another. A place is (wallet, asset); the wallets that begin with @ are ours."""

    source: Where
    target: Where
    amount: int


@dataclass
class Model:
    assets: set[str] = field(default_factory=set[str])
    purses: dict[Where, Purse] = field(default_factory=dict[Where, Purse])
    ours: dict[tuple[str, str, int], int] = field(default_factory=dict[tuple[str, str, int], int])  # …, partition
    known: set[str] = field(default_factory=set[str])
    frozen: set[str] = field(default_factory=set[str])  # wallets and assets
    debits_frozen: set[str] = field(default_factory=set[str])
    closed: set[str] = field(default_factory=set[str])
    limits: dict[str | Where, dict[str, Any]] = field(default_factory=dict[str | Where, dict[str, Any]])
    holds: dict[int, Held] = field(default_factory=dict[int, Held])
    done: dict[int, Done] = field(default_factory=dict[int, Done])
    debits: list[tuple[Where, datetime, int]] = field(default_factory=list[tuple[Where, datetime, int]])

    # --- what becomes of commands --------------------------------------------------------------------------------

    def settle(self, ask: Ask, now: datetime) -> str:
        """What becomes of a command, now; its code."""
        objections = self._objections_to_closing if ask.kind == "close" else self._objections
        refusal = next(objections(ask, now), None)
        if refusal is None:
            self._do(ask, now)
        return refusal or "applied"

    def settle_group(self, asks: Sequence[Ask], now: datetime) -> list[str]:
        trial = deepcopy(self)
        for position, ask in enumerate(asks):
            if (code := trial.settle(ask, now)) != "applied":
                return [code if other == position else "group_refused" for other in range(len(asks))]
        self.__dict__ = trial.__dict__
        return ["applied"] * len(asks)

    def due(self, now: datetime) -> set[tuple[str, int, int | None]]:
        """The holds and lots that are past their time: (kind, command, number of the lot)."""
        found: set[tuple[str, int, int | None]] = set()
        for seq, hold in self.holds.items():
            if hold.status == "open" and hold.expires <= now:
                found.add(("expire_hold", seq, None))
        lots = [lot for purse in self.purses.values() for lot in purse.lots.values()]
        return found | {("expire_credits", *lot.key) for lot in lots if lot.expired(now) and lot.free}

    def purse(self, where: Where) -> Purse:
        """One to look at; `open` opens it."""
        return self.purses.get(where) or Purse()

    # --- the rules, in the order in which they are told ----------------------------------------------------------

    def _objections(self, ask: Ask, now: datetime) -> Iterator[str]:
        times = (ask.expires_at, ask["credits_expire_at"], ask["hold_expires_at"])
        if any(time is not None and time <= now for time in times):
            yield "expired"
        if ask.kind in FREE_OF_RULES:
            return
        yield from self._objections_to_assets(ask)
        yield from self._objections_to_what_it_names(ask, now)
        moves = self._moves(ask, now)
        yield from self._objections_to_wallets(ask, moves)
        yield from self._objections_to_the_precondition(ask, now)
        left = self._left(ask)
        if left is not None and ask.amount is not None and ask.amount > left:
            yield "reversal_exceeded" if ask.kind == "reverse" else "hold_exceeded"
        yield from self._objections_to_spending(ask, now)
        if not (ask.kind == "reverse" and ask["allow_negative"]):
            debits = [move for move in moves if move.source[0][0] != "@" and ask.kind != "capture"]
            if ask.kind == "hold":
                debits = [Move((ask.wallet, ask.asset), ("", ""), ask.amount or 0)]
            if any(self.purse(move.source).available(now) < move.amount for move in debits):
                yield "insufficient_funds"
        yield from self._objections_to_what_would_come_of_it(ask, moves, now)

    def _objections_to_assets(self, ask: Ask) -> Iterator[str]:
        for asset in (ask.asset, ask["to_asset"]):
            if asset is not None and asset not in self.assets:
                yield "asset_not_found"
            if asset in self.frozen:
                yield "asset_frozen"

    def _objections_to_what_it_names(self, ask: Ask, now: datetime) -> Iterator[str]:
        if ask.kind in ("capture", "release"):
            if ask.of not in self.holds:
                yield "command_not_applied"
            hold = self.holds[ask.of]
            if hold.status != "open" or hold.expires <= now:
                yield "hold_not_open"
        if ask.kind == "reverse":
            if ask.of not in self.done:
                yield "command_not_applied"
            if self._left(ask) == 0:
                yield "already_reversed"
            if self.done[ask.of].ask["to_asset"] in self.frozen:
                yield "asset_frozen"

    def _objections_to_wallets(self, ask: Ask, moves: list[Move]) -> Iterator[str]:
        paying = {move.source[0] for move in moves} | ({ask.wallet} if ask.kind == "hold" else set[str]())
        other = self.done[ask.of].ask.to_wallet if ask.kind == "reverse" else ask.to_wallet
        if ask.wallet not in self.known and ask.wallet in paying:
            yield "wallet_not_found"
        for wallet in (ask.wallet, other):
            if wallet in self.frozen or (wallet in self.debits_frozen and wallet in paying):
                yield "wallet_frozen"
            if wallet in self.closed:
                yield "wallet_closed"

    def _objections_to_the_precondition(self, ask: Ask, now: datetime) -> Iterator[str]:
        purse, wanted = self.purse((ask.wallet, ask.asset)), ask["precondition"]
        if wanted and wanted.version is not None and wanted.version != purse.version:
            yield "precondition_failed"
        if wanted and wanted.available_gte is not None and wanted.available_gte > purse.available(now):
            yield "precondition_failed"

    def _objections_to_spending(self, ask: Ask, now: datetime) -> Iterator[str]:
        where = (ask.wallet, ask.asset)
        most = self._limit(where, "max_amount")
        amount = ask.amount or 0
        limited = ask.kind in ("top_up", "bonus", "spend", "transfer", "hold", "exchange")
        if limited and most is not None and amount > most:
            yield "amount_limit_exceeded"
        velocity = self._limit(where, "velocity")
        if velocity and ask.kind in ("spend", "transfer", "hold", "exchange"):
            since = now - timedelta(seconds=velocity["window_s"])
            seen = [amount for place, at, amount in self.debits if place == where and at > since]
            if velocity.get("max_amount") is not None and sum(seen) + amount > velocity["max_amount"]:
                yield "velocity_limit_exceeded"
            if velocity.get("max_count") is not None and len(seen) + 1 > velocity["max_count"]:
                yield "velocity_limit_exceeded"

    def _objections_to_what_would_come_of_it(self, ask: Ask, moves: list[Move], now: datetime) -> Iterator[str]:
        credits = [move for move in moves if move.target[0][0] != "@"]
        if ask.kind in ("top_up", "bonus", "transfer", "capture", "exchange"):
            for move in credits:
                most = self._limit(move.target, "max_balance")
                if most is not None and self.purse(move.target).posted + move.amount > most:
                    yield "balance_limit_exceeded"
        if ask.kind in ("top_up", "bonus", "exchange"):
            for move in credits:
                most = self.limits.get(move.target[1], {}).get("max_supply")
                if most is not None and self.circulating(move.target[1]) + move.amount > most:
                    yield "supply_limit_exceeded"
        if not self._near_a_bound(moves, ask.partition):
            return
        trial = deepcopy(self)
        trial._do(ask, now)
        if any(trial.purse(move.target).lots_in_use > LARGEST_NUMBER_OF_LOTS for move in credits):
            yield "too_many_lots"
        touched = [trial.purse(place).posted for move in moves for place in (move.source, move.target)]
        touched += [balance for (_, _, partition), balance in trial.ours.items() if partition == ask.partition]
        if any(abs(balance) > LARGEST_BALANCE for balance in touched):
            yield "limit_exceeded"

    def _objections_to_closing(self, ask: Ask, now: datetime) -> Iterator[str]:
        """An operator may close a wallet that is frozen, and sweep it to one that takes credits."""
        if ask.to_wallet is not None and ask.to_wallet not in self.known:
            yield "wallet_not_found"
        if ask.to_wallet in self.frozen:
            yield "wallet_frozen"
        if ask.to_wallet in self.closed:
            yield "wallet_closed"
        for asset in ask["assets"]:
            purse = self.purse((ask.wallet, asset))
            if purse.held or purse.posted < 0 or purse.posted != purse.available(now):
                yield "wallet_not_empty"
            if purse.posted and ask.to_wallet is None:
                yield "wallet_not_empty"
            if purse.posted and asset in self.frozen:
                yield "asset_frozen"

    def _near_a_bound(self, moves: list[Move], partition: int) -> bool:
        """Whether it is worth a trial, which copies everything."""
        for move in moves:
            for place in (move.source, move.target):
                purse, ours = self.purse(place), self.ours.get((*place, partition), 0)
                if abs(purse.posted) + abs(ours) + move.amount > LARGEST_BALANCE:
                    return True
                if purse.lots_in_use + len(self.purse(move.source).lots) + 1 > LARGEST_NUMBER_OF_LOTS:
                    return True
        return False

    def _limit(self, where: Where, member: str) -> Any:
        own = self.limits.get(where, {}).get(member)
        return self.limits.get(where[1], {}).get(member) if own is None else own

    def circulating(self, asset: str) -> int:
        return sum(purse.posted for (_, its), purse in self.purses.items() if its == asset)

    # --- what a command moves ------------------------------------------------------------------------------------

    def _left(self, ask: Ask) -> int | None:
        """Of the hold, or of the command to reverse."""
        if ask.kind in ("capture", "release", "expire_hold"):
            return self.holds[ask.of].remaining
        if ask.kind == "reverse":
            return self.done[ask.of].amount - self.done[ask.of].reversed
        return None

    def _moves(self, ask: Ask, now: datetime) -> list[Move]:
        mine = (ask.wallet, ask.asset)
        house = (HOUSES.get(ask.kind, ""), ask.asset)
        left = self._left(ask)
        amount = ask.amount if ask.amount is not None else left or 0
        match ask.kind:
            case "top_up" | "bonus":
                return [Move(house, mine, amount)]
            case "adjust":
                return [Move(house, mine, amount)] if amount > 0 else [Move(mine, house, -amount)]
            case "spend" | "capture" | "transfer":
                return [Move(mine, (ask.to_wallet, ask.asset) if ask.to_wallet else house, amount)]
            case "exchange":
                received = (ask.wallet, ask["to_asset"])
                return [Move(mine, house, amount), Move((house[0], received[1]), received, ask["to_amount"])]
            case "close" if ask.to_wallet:
                assets = [(asset, self.purse((ask.wallet, asset)).posted) for asset in ask["assets"]]
                return [Move((ask.wallet, asset), (ask.to_wallet, asset), posted) for asset, posted in assets if posted]
            case "reverse":
                return self._moves_back(self.done[ask.of], amount, now)
            case _:
                return []

    def _moves_back(self, done: Done, amount: int, now: datetime) -> list[Move]:
        forth = self._moves_forth(done, now)
        back = [Move(forth[0].target, forth[0].source, amount)]
        if len(forth) == 2:  # an exchange: every part takes its part of what was received, rounded up over all parts

            def received(part: int) -> int:
                return -(-part * forth[1].amount // done.amount)

            part = received(done.reversed + amount) - received(done.reversed)
            back.append(Move(forth[1].target, forth[1].source, part))
        return back

    def _moves_forth(self, done: Done, now: datetime) -> list[Move]:
        if done.ask.kind == "capture" and done.ask.amount is None:
            house = (HOUSES["capture"], done.ask.asset)
            target = (done.ask.to_wallet, done.ask.asset) if done.ask.to_wallet else house
            return [Move((done.ask.wallet, done.ask.asset), target, done.amount)]
        return self._moves(done.ask, now)

    # --- doing it ------------------------------------------------------------------------------------------------

    def _do(self, ask: Ask, now: datetime) -> None:
        moves = self._moves(ask, now)
        mine = (ask.wallet, ask.asset)
        match ask.kind:
            case "hold":
                pieces = self.open(mine).take(ask.amount or 0, order=ask.order, now=now)
                self.holds[ask.seq] = Held(mine, ask["hold_expires_at"], pieces)
                for piece in pieces:
                    self.purses[mine].set_aside(piece)
            case "release" | "expire_hold":
                self._give_back(self.holds[ask.of], "released" if ask.kind == "release" else "expired")
            case "capture":
                pieces = self._do_capture(ask, moves[0])
            case "reverse":
                self._do_reverse(ask, moves, now)
            case "expire_credits":
                lot = self.purses[mine].lots[ask.of, ask["lot_n"]]
                self._ours("@expired", ask.asset, ask.partition, lot.free)
                lot.free = 0
            case _:
                self._do_moves(ask, moves, now)
        if ask.kind in ("spend", "transfer", "hold", "exchange"):
            self.debits.append((mine, now, ask.amount or 0))
        if ask.kind == "close":
            self.closed.add(ask.wallet)
        touched = set[Where]() if ask.kind == "close" else {mine}
        for where in touched | {place for move in moves for place in (move.source, move.target) if place[0][0] != "@"}:
            self.open(where).version += 1

    def _do_moves(self, ask: Ask, moves: list[Move], now: datetime) -> None:
        done = Done(ask, abs(ask.amount or 0), [], [])
        for move in moves:
            pieces = self._take(move, ask, now)
            if move is moves[0]:
                done.taken = pieces
            self._hand_on(move, pieces, ask, done)
        self.done[ask.seq] = done

    def _take(self, move: Move, ask: Ask, now: datetime) -> list[Piece]:
        """Out of a wallet, or of ours: then as the lot that the command wants made."""
        wallet, asset = move.source
        if wallet[0] != "@":
            return self.open(move.source).take(move.amount, order=ask.order, now=now)
        self._ours(wallet, asset, ask.partition, -move.amount)
        lot = ask.kind in ("top_up", "bonus") and any(
            ask[option] is not None for option in ("credits_expire_at", "priority", "source")
        )
        source = ask["source"] or ("promotional" if ask.kind == "bonus" else "purchased")
        priority = 50 if ask["priority"] is None else ask["priority"]
        kind = Kind(source, priority, ask["credits_expire_at"]) if lot else PLAIN
        return [Piece((0, 0) if lot else None, kind, move.amount)]

    def _hand_on(self, move: Move, pieces: list[Piece], ask: Ask, done: Done) -> None:
        wallet, asset = move.target
        if wallet[0] == "@":
            return self._ours(wallet, asset, ask.partition, move.amount)
        purse = self.open(move.target)
        in_lots = [piece for piece in pieces if piece.key is not None and ask.kind != "exchange"]
        purse.plain += move.amount - sum(piece.amount for piece in in_lots)
        for piece in in_lots:
            key = (ask.seq, len(done.made) + 1)
            if purse.new_lot(key, piece.kind, piece.amount):
                done.made.append(key)
        return None

    def _do_capture(self, ask: Ask, move: Move) -> None:
        hold, purse = self.holds[ask.of], self.purses[move.source]
        wanted, captured = move.amount, list[Piece]()
        for piece in list(hold.pieces):
            part = min(piece.amount, wanted)
            wanted -= part
            hold.pieces[0] = piece._replace(amount=piece.amount - part)
            if part:
                captured.append(piece._replace(amount=part))
                purse.set_aside(piece._replace(amount=-part))
            if hold.pieces[0].amount:
                break
            del hold.pieces[0]
        hold.captured += move.amount
        done = Done(ask, move.amount, captured, [])
        self._hand_on(move, captured, ask, done)
        self.done[ask.seq] = done
        if not hold.remaining or ask["final"] is not False:
            self._give_back(hold, "captured")

    def _give_back(self, hold: Held, status: str) -> None:
        if hold.status != "open":
            return
        purse = self.purses[hold.where]
        for piece in hold.pieces:
            purse.set_aside(piece._replace(amount=-piece.amount))
        purse.give(hold.pieces)
        hold.pieces, hold.status = [], status

    def _do_reverse(self, ask: Ask, moves: list[Move], now: datetime) -> None:
        done = self.done[ask.of]
        for move in moves:
            wallet, asset = move.source
            if wallet[0] == "@":
                self._ours(wallet, asset, ask.partition, -move.amount)
            else:
                self.open(move.source).take(move.amount, order="soonest_to_expire", now=now, first=done.made)
            wallet, asset = move.target
            if wallet[0] == "@":
                self._ours(wallet, asset, ask.partition, move.amount)
            else:
                self._restore(self.purses[move.target], done, move.amount)
        done.reversed += moves[0].amount

    def _restore(self, purse: Purse, done: Done, amount: int) -> None:
        """Back to where it came from, what was taken last first, after what earlier reversals gave back."""
        past, pieces = done.reversed, list[Piece]()
        for piece in reversed(done.taken):
            part = max(0, min(piece.amount - past, amount))
            past = max(0, past - piece.amount)
            amount -= part
            pieces.append(piece._replace(amount=part))
        purse.give(pieces)

    def _ours(self, wallet: str, asset: str, partition: int, amount: int) -> None:
        self.ours[wallet, asset, partition] = self.ours.get((wallet, asset, partition), 0) + amount

    def open(self, where: Where) -> Purse:
        self.known.add(where[0])
        return self.purses.setdefault(where, Purse())
