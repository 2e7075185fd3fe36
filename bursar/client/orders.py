"""What a client asks for: a command that has not been sent yet, with the idempotency key that it keeps for ever.

The rules of each type, and what may be refused: docs/commands.md.
"""

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, TypedDict, Unpack

Source = Literal["purchased", "promotional"]
CreditsOrder = Literal["soonest_to_expire", "promotional_first", "purchased_first", "oldest_first"]
Rounding = Literal["down", "half_even", "up"]

_KEY = re.compile(r"[!-~]{1,255}")


class Precondition(TypedDict, total=False):
    """What must be so of the wallet and asset when the command is decided; else it is refused."""

    version: int
    available_gte: int


class Common(TypedDict, total=False):
    """What every command may carry. `expires_at`: not applied by then, it is refused as `expired`."""

    reference: str | None
    metadata: Mapping[str, Any] | None
    expires_at: datetime | None
    precondition: Precondition | None
    idempotency_key: str | None


class Credit(Common, total=False):
    """What a top-up and a bonus may say of the lot that they make."""

    credits_expire_at: datetime | None
    priority: int | None
    source: Source | None


class Debit(Common, total=False):
    """What whatever pays may say of the lots that it takes from."""

    credits_order: CreditsOrder | None


class Capture(Common, total=False):
    to_wallet: str | None
    final: bool | None


class Exchange(Debit, total=False):
    rounding: Rounding | None


class Reverse(Common, total=False):
    allow_negative: bool | None


@dataclass(frozen=True, slots=True)
class Order:
    """A command to send: `Order.spend("player-42", "gold_coins", 30)`.

    It has its idempotency key from the beginning, so sending it again can never apply it twice. Amounts are whole minor
    units. Raises TypeError or ValueError for what no service would take as it stands.
    """

    body: Mapping[str, Any]
    idempotency_key: str = field(default_factory=lambda: str(uuid.uuid4()))
    encoded: bytes = field(init=False, repr=False, compare=False)
    """The body as JSON, of the moment at which it was made: what becomes of its metadata later is no part of it."""

    def __post_init__(self) -> None:
        check_key(self.idempotency_key)
        object.__setattr__(self, "encoded", json_bytes(self.body))

    @property
    def item(self) -> bytes:
        """As it stands in a batch."""
        return b'{"idempotency_key":%b,%b' % (json_bytes(self.idempotency_key), self.encoded[1:])

    @staticmethod
    def top_up(wallet: str, asset: str, amount: int, **more: Unpack[Credit]) -> "Order":
        """Paid-for credits enter a wallet; the first one opens it."""
        return _order("top_up", wallet=wallet, asset=asset, amount=amount, **more)

    @staticmethod
    def bonus(wallet: str, asset: str, amount: int, **more: Unpack[Credit]) -> "Order":
        """Given credits enter a wallet; the first one opens it."""
        return _order("bonus", wallet=wallet, asset=asset, amount=amount, **more)

    @staticmethod
    def spend(wallet: str, asset: str, amount: int, **more: Unpack[Debit]) -> "Order":
        """Credits leave a wallet for good."""
        return _order("spend", wallet=wallet, asset=asset, amount=amount, **more)

    @staticmethod
    def transfer(wallet: str, to_wallet: str, asset: str, amount: int, **more: Unpack[Debit]) -> "Order":
        """Credits move to another wallet; the first one opens it."""
        return _order("transfer", wallet=wallet, to_wallet=to_wallet, asset=asset, amount=amount, **more)

    @staticmethod
    def hold(wallet: str, asset: str, amount: int, hold_expires_at: datetime, **more: Unpack[Debit]) -> "Order":
        """Credits are reserved until they are captured, released, or expire."""
        return _order("hold", wallet=wallet, asset=asset, amount=amount, hold_expires_at=hold_expires_at, **more)

    @staticmethod
    def capture(hold: str, amount: int | None = None, **more: Unpack[Capture]) -> "Order":
        """Held credits leave for good, or for another wallet. `hold`: its command's id; no amount: all that is left."""
        return _order("capture", hold=hold, amount=amount, **more)

    @staticmethod
    def release(hold: str, **more: Unpack[Common]) -> "Order":
        """What is left of a hold becomes available again."""
        return _order("release", hold=hold, **more)

    @staticmethod
    def exchange(
        wallet: str, asset: str, amount: int, to_asset: str, rate: str | Decimal, **more: Unpack[Exchange]
    ) -> "Order":
        """Credits of one asset become credits of another. `rate`: minor units of `to_asset` for one of `asset`."""
        return _order("exchange", wallet=wallet, asset=asset, amount=amount, to_asset=to_asset, rate=rate, **more)

    @staticmethod
    def reverse(command: str, amount: int | None = None, **more: Unpack[Reverse]) -> "Order":
        """The exact opposite of an applied command, by its id, or of a part of it."""
        return _order("reverse", command=command, amount=amount, **more)

    @staticmethod
    def adjust(wallet: str, asset: str, amount: int, reason: str, **more: Unpack[Common]) -> "Order":
        """An operator's correction; an amount below zero takes. Scope: `admin`."""
        return _order("adjust", wallet=wallet, asset=asset, amount=amount, reason=reason, **more)


def json_bytes(value: Any) -> bytes:
    """Raises TypeError or ValueError for what JSON has no word for."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def check_key(key: str) -> str:
    """Raises ValueError where it cannot be an idempotency key."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"an idempotency key is 1 to 255 visible ASCII characters, not {key!r}")
    return key


def _order(kind: str, *, idempotency_key: str | None = None, **members: Any) -> Order:
    if members.get("amount", 0) is None and kind not in ("capture", "reverse"):  # there it is all that is left
        raise TypeError(f"a {kind} has an amount")
    given = {name: _written(name, value) for name, value in members.items() if value is not None}
    body = {"type": kind, **given}
    return Order(body) if idempotency_key is None else Order(body, idempotency_key)


def _written(name: str, value: Any) -> Any:
    """As JSON has it: amounts as digits, times with their offset."""
    if name in ("amount", "available_gte"):
        if type(value) is not int:
            raise TypeError(f"{name} is a whole number of minor units, an int, not {value!r}")
        return str(value)
    if name == "precondition":
        return {member: _written(member, expected) for member, expected in value.items()}
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError(f"{name} has no time zone: {value!r}")
        return value.isoformat()
    return format(value, "f") if isinstance(value, Decimal) else value
