"""Events: what outcomes and other news are called when they are told, and which endpoint is owed which. Pure.

An *event* is an outcome, or something else that happened to whoever listens. Its type is what endpoints choose by.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

from ledger.errors import Code

OUTCOME_TYPES = ("command.applied", "command.rejected", "command.expired", "command.cancelled", "command.failed")
ENDPOINT_DISABLED = "webhook_endpoint.disabled"
TEST = "webhook.test"  # sent when it is asked for, to whom it is asked for; nobody subscribes to it
BALANCE_LOW = "wallet.balance_low"
EVENT_TYPES = (*OUTCOME_TYPES, BALANCE_LOW, ENDPOINT_DISABLED)


class Outcome(NamedTuple):
    """What decides who is told of an outcome."""

    seq: int
    tenant_id: int
    type: str
    wallet: str | None
    to_wallet: str | None


class Low(NamedTuple):
    """A wallet that command `seq` took from its threshold, or above, to below it. `balance`: what it left, as JSON."""

    seq: int
    tenant_id: int
    wallet: str
    balance: str
    below: int


@dataclass(slots=True, frozen=True)
class Listener:
    """An endpoint as far as it decides what it is owed. None: all."""

    endpoint_id: int
    tenant_id: int
    event_types: Collection[str] | None
    wallets: Collection[str] | None
    ordered: bool

    def wants(self, outcome: Outcome) -> bool:
        return (
            self.tenant_id == outcome.tenant_id
            and (self.event_types is None or outcome.type in self.event_types)
            and (self.wallets is None or outcome.wallet in self.wallets or outcome.to_wallet in self.wallets)
        )


class Owed(NamedTuple):
    """A delivery to write. `lane` None: in any order."""

    endpoint_id: int
    seq: int
    lane: int | None


def outcome_type(status: str, code: str) -> str:
    """A command that came too late is `rejected` like others; whoever waits for it wants to tell it from those."""
    return "command.expired" if code == Code.EXPIRED else f"command.{status}"


def owed(listeners: Iterable[Listener], outcomes: Collection[Outcome]) -> list[Owed]:
    """What is owed to whom, endpoint by endpoint, in the order of the outcomes."""
    return [
        Owed(listener.endpoint_id, outcome.seq, lane_of(outcome.wallet) if listener.ordered else None)
        for listener in listeners
        for outcome in outcomes
        if listener.wants(outcome)
    ]


def lane_of(wallet: str | None) -> int:
    """Two wallets of one lane wait for each other now and then, no more: 32 bits are plenty."""
    return crc32((wallet or "").encode())
