"""What the service tells, as values. Amounts are ints; members that this version does not know are in `raw`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, cast

from bursar.client.problems import Refused

Status = Literal["pending", "applied", "rejected", "cancelled", "failed"]
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Account:
    """A balance that a command left."""

    wallet: str
    asset: str
    posted: int
    held: int
    available: int
    version: int


@dataclass(frozen=True, slots=True)
class Moved:
    """What a command came to, where it did not say it all itself."""

    asset: str
    amount: int


@dataclass(frozen=True, slots=True)
class Hold:
    """Where a hold stood after a command. `id`: of the command that placed it."""

    id: str
    status: Literal["open", "captured", "released", "expired"]
    remaining: int
    captured: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command; it never changes. Match on `code`; `detail` is for a person.

    `at`: None in a preview alone.
    """

    code: str
    detail: str | None
    at: datetime | None
    transfers: tuple[str, ...]
    accounts: tuple[Account, ...]
    moved: tuple[Moved, ...]
    hold: Hold | None
    raw: Json = field(repr=False, compare=False)


class _Decided:
    """What commands and previews can be asked."""

    __slots__ = ()
    status: Status

    @property
    def applied(self) -> bool:
        return self.status == "applied"

    @property
    def rejected(self) -> bool:
        """The books said no: `outcome.code` is why. As final as a success."""
        return self.status == "rejected"


@dataclass(frozen=True, slots=True)
class Command(_Decided):
    """A command as the service has it. `replayed`: it was there already under this key."""

    id: str
    type: str
    status: Status
    wallet: str | None
    asset: str | None
    amount: int | None
    reference: str | None
    metadata: Json
    idempotency_key: str
    accepted_at: datetime
    expires_at: datetime | None
    outcome: Outcome | None
    replayed: bool = False
    cursor: str | None = None
    """Of a command out of the feed: resume from here, and what follows it comes next."""
    raw: Json = field(repr=False, compare=False, default_factory=dict[str, Any])

    @property
    def pending(self) -> bool:
        """Accepted and durable; its outcome is to come."""
        return self.status == "pending"

    @property
    def cancelled(self) -> bool:
        return self.status == "cancelled"

    def raise_for_refusal(self) -> "Command":
        """Itself. Raises Refused where it has an outcome and was not applied."""
        if self.outcome is not None and not self.applied:
            told = f": {self.outcome.detail}" if self.outcome.detail else ""
            raise Refused(f"{self.type} {self.id} was {self.status}, {self.outcome.code}{told}", self)
        return self


@dataclass(frozen=True, slots=True)
class Preview(_Decided):
    """What would come of an order now. It binds nobody."""

    status: Status
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Balance:
    """A wallet's balance of one asset. `available` = `posted` - `held` - `queued` - what is past its time."""

    asset: str
    posted: int
    held: int
    queued: int
    available: int
    version: int


@dataclass(frozen=True, slots=True)
class Wallet:
    id: str
    status: Literal["active", "debits_frozen", "frozen", "closed"]
    name: str | None
    metadata: Json
    created_at: datetime
    accounts: tuple[Balance, ...]
    raw: Json = field(repr=False, compare=False)

    def available(self, asset: str) -> int:
        """Minor units; 0 of an asset that it never had."""
        return next((account.available for account in self.accounts if account.asset == asset), 0)


# --- reading JSON. Raises KeyError, TypeError or ValueError where it is not what it should be ----------------------


def command_from(shown: Json, *, replayed: bool = False, cursor: str | None = None) -> Command:
    outcome = shown["outcome"]
    return Command(
        id=_text(shown["id"]),
        type=_text(shown["type"]),
        status=cast(Status, _text(shown["status"])),
        wallet=shown["wallet"],
        asset=shown["asset"],
        amount=_amount(shown["amount"]),
        reference=shown["reference"],
        metadata=shown["metadata"],
        idempotency_key=_text(shown["idempotency_key"]),
        accepted_at=_time(shown["accepted_at"]),
        expires_at=None if shown["expires_at"] is None else _time(shown["expires_at"]),
        outcome=None if outcome is None else outcome_from(outcome),
        replayed=replayed,
        cursor=cursor,
        raw=shown,
    )


def outcome_from(shown: Json) -> Outcome:
    hold = shown.get("hold")
    return Outcome(
        code=_text(shown["code"]),
        detail=shown.get("detail"),
        at=_time(shown["at"]) if "at" in shown else None,
        transfers=tuple(shown.get("transfers", ())),
        accounts=tuple(
            Account(
                wallet=_text(account["wallet"]),
                asset=_text(account["asset"]),
                posted=int(account["posted"]),
                held=int(account["held"]),
                available=int(account["available"]),
                version=int(account["version"]),
            )
            for account in shown["accounts"]
        ),
        moved=tuple(Moved(_text(moved["asset"]), int(moved["amount"])) for moved in shown.get("moved", ())),
        hold=None
        if hold is None
        else Hold(hold["id"], hold["status"], remaining=int(hold["remaining"]), captured=int(hold["captured"])),
        raw=shown,
    )


def preview_from(shown: Json) -> Preview:
    return Preview(shown["status"], outcome_from(shown["outcome"]))


def wallet_from(shown: Json) -> Wallet:
    return Wallet(
        id=_text(shown["id"]),
        status=shown["status"],
        name=shown["name"],
        metadata=shown["metadata"],
        created_at=_time(shown["created_at"]),
        accounts=tuple(
            Balance(
                asset=_text(account["asset"]),
                posted=int(account["posted"]),
                held=int(account["held"]),
                queued=int(account["queued"]),
                available=int(account["available"]),
                version=int(account["version"]),
            )
            for account in shown["accounts"]
        ),
        raw=shown,
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no string")
    return value


def _amount(value: object) -> int | None:
    return None if value is None else int(_text(value))


def _time(value: object) -> datetime:
    return datetime.fromisoformat(_text(value))
