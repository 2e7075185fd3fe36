"""What a client can be asked, once for both clients: the type parameters say what each gives, at once or to await."""

from abc import abstractmethod
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any, Generic, TypeVar, Unpack

from bursar.client.core import Core, Flow
from bursar.client.orders import Capture, Common, Credit, Debit, Exchange, Order, Reverse

CommandT = TypeVar("CommandT")
FoundT = TypeVar("FoundT")
ResultsT = TypeVar("ResultsT")
PreviewT = TypeVar("PreviewT")
PreviewsT = TypeVar("PreviewsT")
WalletT = TypeVar("WalletT")
CursorT = TypeVar("CursorT")


class Verbs(Generic[CommandT, FoundT, ResultsT, PreviewT, PreviewsT, WalletT, CursorT]):
    """Commands take their members by name (bursar.client.orders), and `wait_s`: seconds, 30 at the most, to wait for
    the outcome; without it, or if it does not come in time, the command is `pending`.

    Whatever is sent is repeated under its one idempotency key over timeouts, lost connections, 5xx and 429. Raises
    Problem where the service says no; Unreachable where nothing was sent; Unknown where nobody can say.
    """

    _core: Core

    @abstractmethod
    def _run(self, flow: Flow[Any]) -> Any:
        """What the flow comes to, or an awaitable of it."""

    # --- commands ----------------------------------------------------------------------------------------------------

    def submit(self, order: Order, *, wait_s: int | None = None) -> CommandT:
        return self._run(self._core.submit(order, wait_s))

    def top_up(
        self, wallet: str, asset: str, amount: int, *, wait_s: int | None = None, **more: Unpack[Credit]
    ) -> CommandT:
        """Paid-for credits enter a wallet; the first one opens it."""
        return self.submit(Order.top_up(wallet, asset, amount, **more), wait_s=wait_s)

    def bonus(
        self, wallet: str, asset: str, amount: int, *, wait_s: int | None = None, **more: Unpack[Credit]
    ) -> CommandT:
        """Given credits enter a wallet; the first one opens it."""
        return self.submit(Order.bonus(wallet, asset, amount, **more), wait_s=wait_s)

    def spend(
        self, wallet: str, asset: str, amount: int, *, wait_s: int | None = None, **more: Unpack[Debit]
    ) -> CommandT:
        """Credits leave a wallet for good."""
        return self.submit(Order.spend(wallet, asset, amount, **more), wait_s=wait_s)

    def transfer(
        self, wallet: str, to_wallet: str, asset: str, amount: int, *, wait_s: int | None = None, **more: Unpack[Debit]
    ) -> CommandT:
        """Credits move to another wallet; the first one opens it."""
        return self.submit(Order.transfer(wallet, to_wallet, asset, amount, **more), wait_s=wait_s)

    def hold(
        self,
        wallet: str,
        asset: str,
        amount: int,
        hold_expires_at: datetime,
        *,
        wait_s: int | None = None,
        **more: Unpack[Debit],
    ) -> CommandT:
        """Credits are reserved until they are captured, released, or expire."""
        return self.submit(Order.hold(wallet, asset, amount, hold_expires_at, **more), wait_s=wait_s)

    def capture(
        self, hold: str, amount: int | None = None, *, wait_s: int | None = None, **more: Unpack[Capture]
    ) -> CommandT:
        """Held credits leave for good, or for another wallet. `hold`: its command's id; no amount: all that is left."""
        return self.submit(Order.capture(hold, amount, **more), wait_s=wait_s)

    def release(self, hold: str, *, wait_s: int | None = None, **more: Unpack[Common]) -> CommandT:
        """What is left of a hold becomes available again."""
        return self.submit(Order.release(hold, **more), wait_s=wait_s)

    def exchange(
        self,
        wallet: str,
        asset: str,
        amount: int,
        to_asset: str,
        rate: str | Decimal,
        *,
        wait_s: int | None = None,
        **more: Unpack[Exchange],
    ) -> CommandT:
        """Credits of one asset become credits of another. `rate`: minor units of `to_asset` for one of `asset`."""
        return self.submit(Order.exchange(wallet, asset, amount, to_asset, rate, **more), wait_s=wait_s)

    def reverse(
        self, command: str, amount: int | None = None, *, wait_s: int | None = None, **more: Unpack[Reverse]
    ) -> CommandT:
        """The exact opposite of an applied command, by its id, or of a part of it."""
        return self.submit(Order.reverse(command, amount, **more), wait_s=wait_s)

    def adjust(
        self, wallet: str, asset: str, amount: int, reason: str, *, wait_s: int | None = None, **more: Unpack[Common]
    ) -> CommandT:
        """An operator's correction; an amount below zero takes. Scope: `admin`."""
        return self.submit(Order.adjust(wallet, asset, amount, reason, **more), wait_s=wait_s)

    def submit_many(self, orders: Iterable[Order], *, atomic: bool = False, wait_s: int | None = None) -> ResultsT:
        """One result per order: its command, or the problem for which it was not taken.

        As many requests as it needs, one after the other; with `atomic` one, of one wallet, all applied or none, and a
        problem with any of them is raised. If a later request raises, send all orders again: they have their keys.
        """
        return self._run(self._core.submit_many(list(orders), atomic=atomic, wait_s=wait_s))

    # --- asking ------------------------------------------------------------------------------------------------------

    def get(self, id: str, *, wait_s: int | None = None) -> CommandT:
        """The command of this id; with `wait_s`, when it has its outcome or the time is up."""
        return self._run(self._core.get(id, wait_s))

    def find(self, idempotency_key: str, *, wait_s: int | None = None) -> FoundT:
        """The command under this key of ours; None: nothing has come under it."""
        return self._run(self._core.find(idempotency_key, wait_s))

    def cancel(self, id: str) -> CommandT:
        """The command, `cancelled`; or, where that came too late, with the outcome that it has."""
        return self._run(self._core.cancel(id))

    def cancel_key(self, idempotency_key: str) -> CommandT:
        """As `cancel`. A key that never came will never apply from now on."""
        return self._run(self._core.cancel_key(idempotency_key))

    def preview(self, order: Order) -> PreviewT:
        """What would come of it now. Nothing is stored."""
        return self._run(self._core.preview(order))

    def preview_many(self, orders: Iterable[Order]) -> PreviewsT:
        """What would come of an atomic batch now."""
        return self._run(self._core.preview_many(list(orders)))

    def wallet(self, id: str, *, after: str | None = None, wait_s: int | None = None) -> WalletT:
        """Its balances. `after`: the id of a command that must be in them, for which `wait_s` waits."""
        return self._run(self._core.wallet(id, after, wait_s))

    def newest_cursor(self) -> CursorT:
        """Where the feed of outcomes ends now. Keep it before sending the first command, and none is missed."""
        return self._run(self._core.newest_cursor())
