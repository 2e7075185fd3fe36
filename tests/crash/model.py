"""What the ledger must come to, worked out without it.

Each wallet's commands are posted by one lane, one after the other, and nobody else takes from it. So the client's own
book-keeping knows every outcome beforehand, whatever fails and however often a post is sent again.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

ASSET = "gold"
SAVINGS = ("savings-1", "savings-2", "savings-3")  # every lane pays into these and nobody takes out


@dataclass(frozen=True)
class Command:
    key: str
    type: str
    wallet: str
    amount: int
    to_wallet: str | None = None

    def body(self) -> dict[str, Any]:
        """As the body of a single post."""
        members = {"type": self.type, "wallet": self.wallet, "asset": ASSET, "amount": str(self.amount)}
        return members | ({"to_wallet": self.to_wallet} if self.to_wallet else {})

    def item(self) -> dict[str, Any]:
        """As an item of a batch."""
        return {"idempotency_key": self.key, **self.body()}


class Ledger:
    """Balances by wallet, system wallets among them. A wallet that is not in it was never opened."""

    def __init__(self) -> None:
        self.balances: Counter[str] = Counter()

    def apply(self, command: Command) -> str:
        """The outcome's code."""
        match command.type:
            case "top_up":
                return self._move("@treasury", command.wallet, command.amount)
            case "bonus":
                return self._move("@bonus", command.wallet, command.amount)
            case _ if command.wallet not in self.balances:
                return "wallet_not_found"
            case _ if self.balances[command.wallet] < command.amount:
                return "insufficient_funds"
            case "spend":
                return self._move(command.wallet, "@revenue", command.amount)
            case "transfer":
                assert command.to_wallet is not None
                return self._move(command.wallet, command.to_wallet, command.amount)
            case unknown:
                raise AssertionError(unknown)

    def _move(self, source: str, target: str, amount: int) -> str:
        self.balances[source] -= amount
        self.balances[target] += amount
        return "applied"


class Player:
    """Makes up one lane's commands, spends above all, and knows what each will come to."""

    def __init__(self, name: str, wallets: Sequence[str], *, seed: int) -> None:
        self._name = name
        self._wallets = wallets
        self._random = Random(seed)
        self._numbered = 0
        self.ledger = Ledger()
        self.expected: dict[str, str] = {}  # key → outcome code

    def next(self) -> Command:
        self._numbered += 1
        kind = self._random.choices(("spend", "transfer", "top_up", "bonus"), weights=(70, 10, 12, 8))[0]
        most = 400 if kind in ("top_up", "bonus") else 80  # a fifth of the commands or so finds too little
        command = Command(
            key=f"{self._name}-{self._numbered}",
            type=kind,
            wallet=self._random.choice(self._wallets),
            amount=self._random.randint(1, most),
            to_wallet=self._random.choice(SAVINGS) if kind == "transfer" else None,
        )
        self.expected[command.key] = self.ledger.apply(command)
        return command
