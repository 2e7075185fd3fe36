"""What the ledger must come to, worked out without it.

Each wallet's commands are posted by one lane, one after the other, and nobody else takes from it. So the client's own
book-keeping, which is the reference model's, knows every outcome beforehand, whatever fails and however often a post is
sent again.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from tests.properties.model import Ask, Model
from tests.properties.purse import Purse

ASSET = "gold"
SAVINGS = ("savings-1", "savings-2", "savings-3")  # every lane pays into these and nobody takes out
HOLDS_LAST = timedelta(hours=1)  # longer than any of these tests
GROUP = 5  # commands of an atomic batch
CREDITS = ("top_up", "bonus")
RECENT = 6  # what is captured, released or reversed is one of the last so many, and sometimes for the second time
KINDS = {"spend": 55, "transfer": 8, "top_up": 10, "bonus": 6, "hold": 10, "capture": 7, "release": 2, "reverse": 2}


@dataclass(frozen=True)
class Command:
    """`about`: the id of the hold or of the command that it names; then it has no wallet of its own to send."""

    key: str
    type: str
    wallet: str
    amount: int | None
    to_wallet: str | None = None
    about: str | None = None
    more: dict[str, Any] = field(default_factory=dict[str, Any])

    def body(self) -> dict[str, Any]:
        """As the body of a single post."""
        members: dict[str, Any] = {"type": self.type, **self.more}
        if self.about is None:
            members |= {"wallet": self.wallet, "asset": ASSET}
        else:
            members["command" if self.type == "reverse" else "hold"] = self.about
        if self.amount is not None:
            members["amount"] = str(self.amount)
        return members | ({"to_wallet": self.to_wallet} if self.to_wallet else {})

    def item(self) -> dict[str, Any]:
        """As an item of a batch."""
        return {"idempotency_key": self.key, **self.body()}


class Player:
    """Makes up one lane's commands, spends above all, and knows what each will come to."""

    def __init__(self, name: str, wallets: Sequence[str], *, seed: int) -> None:
        self._name = name
        self._wallets = wallets
        self._random = Random(seed)
        self._now = datetime.now(UTC)
        self._asks: dict[str, Ask] = {}
        self._named: dict[str, list[tuple[Ask, str]]] = {"hold": [], "spend": []}  # applied, and the ids they have
        self.model = Model(assets={ASSET})
        self.expected: dict[str, str] = {}  # key → outcome code

    def next(self) -> Command:
        kind = self._random.choices(list(KINDS), weights=list(KINDS.values()))[0]
        candidates = self._named["spend" if kind == "reverse" else "hold"][-RECENT:]
        if kind in ("capture", "release", "reverse"):
            return self._about(kind, *self._random.choice(candidates)) if candidates else self._new("spend")
        return self._new(kind)

    def next_group(self) -> list[Command]:
        """An atomic batch: all are applied or none. Of a wallet without lots; about one in two asks for too much."""
        wallet = self._random.choice(self._wallets[1::2])
        kinds = self._random.choices(("spend", "top_up", "hold", "transfer"), weights=(6, 2, 1, 1), k=GROUP)
        made = [self._made(kind, wallet) for kind in kinds]
        for (command, _), code in zip(made, self.model.settle_group([ask for _, ask in made], self._now), strict=True):
            self.expected[command.key] = code
        return [command for command, _ in made]

    def accepted(self, key: str, id_: str) -> None:
        """A command got its id: from now on others can name it."""
        ask = self._asks[key]
        if ask.kind in self._named and self.expected[key] == "applied":
            self._named[ask.kind].append((ask, id_))

    @property
    def purses(self) -> dict[str, Purse]:
        return {wallet: purse for (wallet, _), purse in self.model.purses.items()}

    @property
    def balances(self) -> Counter[str]:
        """By wallet, system wallets among them."""
        found = Counter({wallet: purse.posted for wallet, purse in self.purses.items()})
        for (wallet, _, _), posted in self.model.ours.items():
            found[wallet] += posted
        return found

    def _new(self, kind: str) -> Command:
        """The wallets at even places have lots, and transfer nothing: savings would have too many of them."""
        place = self._random.randrange(len(self._wallets))
        if kind == "transfer" and place % 2 == 0:
            kind = "spend"
        more: dict[str, Any] = {}
        if kind in CREDITS and place % 2 == 0:
            more = {
                "priority": self._random.choice((10, 50, 90)),
                "source": self._random.choice(("purchased", "promotional")),
            }
        return self._settled(*self._made(kind, self._wallets[place], **more))

    def _about(self, kind: str, named: Ask, id_: str) -> Command:
        amount = None if kind == "release" else self._random.choice((None, self._random.randint(1, 30)))
        more = {"final": self._random.random() < 0.5} if kind == "capture" else {}
        command = Command(self._next_key(), kind, named.wallet, amount, about=id_, more=more)
        return self._settled(command, self._ask(command, of=named.seq))

    def _made(self, kind: str, wallet: str, **more: Any) -> tuple[Command, Ask]:
        """A command that names no other one, and the same for the model, which has yet to settle it."""
        if kind == "hold":
            more["hold_expires_at"] = (self._now + HOLDS_LAST).isoformat()
        amount = self._random.randint(1, 240 if kind in CREDITS else 80)  # of the debits a tenth or so finds too little
        to_wallet = self._random.choice(SAVINGS) if kind == "transfer" else None
        command = Command(self._next_key(), kind, wallet, amount, to_wallet, more=more)
        return command, self._ask(command)

    def _next_key(self) -> str:
        return f"{self._name}-{len(self._asks) + 1}"

    def _ask(self, command: Command, *, of: int = 0) -> Ask:
        options = command.more | ({"hold_expires_at": self._now + HOLDS_LAST} if command.type == "hold" else {})
        number, to_wallet = len(self._asks) + 1, command.to_wallet
        ask = Ask(number, command.type, command.wallet, ASSET, command.amount, 0, to_wallet, of, options=options)
        self._asks[command.key] = ask
        return ask

    def _settled(self, command: Command, ask: Ask) -> Command:
        self.expected[command.key] = self.model.settle(ask, self._now)
        return command
