"""What a load posts: requests rendered from parts made beforehand, so that one costs microseconds.

- fund: one top-up for each wallet in turn
- fund_lots: LOTS bonuses in turn for each wallet that holds lots
- mix: nine spends and one top-up that pays for them
- spends: nothing else
- mixed: every command of a game's day. Captures and reversals name commands by the ids of earlier answers.
"""

import random
from collections import deque
from datetime import UTC, datetime, timedelta

from bursar.bench.plan import LOT_WALLET_EVERY, Plan, wallet_name

WAIT_S = 20  # `Prefer: wait` of a sampled post; an outcome later than this is no sample, but an error
TOP_UP_EVERY = 10  # in a mix: one post in ten puts back what the nine others spend
# Of 110 commands of the work `mixed`. "10 % hold and capture" is read as ten holds with a capture each: the harder way.
DECK = ["spend"] * 60 + ["top_up"] * 15 + ["transfer"] * 10 + ["hold"] * 10 + ["capture"] * 10 + ["reverse"] * 5
# The lots of a wallet that holds some: small ones, which debits use up and cross, and one that lasts.
LOTS = [20] * 7 + [1_000_000]  # minor units, the soonest to expire first
HOLD_FOR = timedelta(days=1)  # longer than any load: none expires
CREDITS_FOR = timedelta(days=30)  # at the least
REVERSIBLE_PER_POST = 12  # ids to note of an answer: more than a post of 100 reverses
REVERSIBLE_MAX = 1_000  # … and to keep: the newest, some of them applied by then and some not
# Where an id stands in the answer to a batch, and what follows that of a hold, or of what can be reversed.
COMMAND_ID, ID_LENGTH, OF_TYPE = b'"command":{"id":"', 36, b'","object":"command","type":"%b"'
OF_A_HOLD = OF_TYPE % b"hold"
REVERSIBLE = tuple(OF_TYPE % type_ for type_ in (b"spend", b"top_up", b"transfer", b"capture"))


class Posts:
    """Renders posts. Every key is used once: nonce, then a running number."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._nonce = plan.nonce.encode()
        self._numbered = self._made = 0
        self._random = random.Random(plan.nonce)
        path = b"/v1/commands" if plan.batch == 1 else b"/v1/commands/batch"
        self._head = (
            b"POST %b HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n"
            % (path, plan.host.encode(), plan.api_key.encode())
        )
        self._wallets = [wallet_name(plan.wallet_prefix, number).encode() for number in range(plan.wallets)]
        self._moves = self._members(plan.amount)  # of each wallet, all but the type and what is special
        self._refills = self._members(plan.amount * (TOP_UP_EVERY - 1))
        self._grants = [self._members(amount) for amount in LOTS] if plan.kind == "fund_lots" else []
        self._holders = [number for number in range(plan.wallets) if holds_lots(number)]
        self._others = [number for number in range(plan.wallets) if not holds_lots(number)]
        now = datetime.now(UTC)
        self._hold = b'"type":"hold","hold_expires_at":"%b",' % (now + HOLD_FOR).isoformat().encode()
        self._expiries = [
            b'"credits_expire_at":"%b",' % (now + CREDITS_FOR + timedelta(days=n)).isoformat().encode()
            for n in range(len(LOTS))
        ]
        self._one = {
            "fund": self._fund, "fund_lots": self._fund_lots, "mix": self._mix, "spends": self._spend,
            "mixed": self._mixed,
        }[plan.kind]  # fmt: skip
        self._deck: list[str] = []
        self._seen = False  # an id of a hold
        self._owed = {"capture": 0, "reverse": 0}  # dealt and not posted yet
        self._held: deque[bytes] = deque()  # ids of holds that nobody has captured
        self._reversible: deque[bytes] = deque(maxlen=REVERSIBLE_MAX)  # and of commands that nobody has reversed

    def _members(self, amount: int) -> list[bytes]:
        end = b'","asset":"%b","amount":"%d"}' % (self._plan.asset.encode(), amount)
        return [b'"wallet":"' + wallet + end for wallet in self._wallets]

    def next(self, *, wait: bool) -> bytes:
        preference = b"Prefer: wait=%d\r\n" % WAIT_S if wait else b""
        if self._plan.batch == 1:
            body = b"{" + self._one()
            return b"%b%bIdempotency-Key: %b\r\nContent-Length: %d\r\n\r\n%b" % (
                self._head, preference, self._key(), len(body), body,
            )  # fmt: skip
        items = [b'{"idempotency_key":"%b",%b' % (self._key(), self._one()) for _ in range(self._plan.batch)]
        body = b'{"commands":[%b]}' % b",".join(items)
        return b"%b%bContent-Length: %d\r\n\r\n%b" % (self._head, preference, len(body), body)

    def answered(self, body: bytes) -> None:
        """Note the ids that later posts name: every hold's, and those of a few commands to reverse."""
        if self._plan.kind != "mixed":
            return
        answers = body.split(COMMAND_ID)[1:]
        self._held.extend(answer[:ID_LENGTH] for answer in answers if answer.startswith(OF_A_HOLD, ID_LENGTH))
        self._seen = self._seen or bool(self._held)
        for answer in self._random.sample(answers, min(REVERSIBLE_PER_POST, len(answers))):
            if answer.startswith(REVERSIBLE, ID_LENGTH):
                self._reversible.append(answer[:ID_LENGTH])

    @property
    def blind(self) -> bool:
        """Captures are due, and never was a hold's id found in an answer: this is not the load that was asked for."""
        return self._owed["capture"] > 0 and not self._seen

    def _key(self) -> bytes:
        self._numbered += 1
        return b"%b-%d" % (self._nonce, self._numbered)

    # --- one command, without its key ----------------------------------------------------------------------------

    def _fund(self) -> bytes:
        return b'"type":"top_up",' + self._moves[self._turn(len(self._wallets))]

    def _fund_lots(self) -> bytes:
        lot, holder = divmod(self._turn(len(self._holders) * len(LOTS)), len(self._holders))
        return b'"type":"bonus",' + self._expiries[lot] + self._grants[lot][self._holders[holder]]

    def _mix(self) -> bytes:
        if self._numbered % TOP_UP_EVERY == 0:
            return b'"type":"top_up",' + self._refills[self._any()]
        return self._spend()

    def _spend(self) -> bytes:
        return b'"type":"spend",' + self._moves[self._any()]

    def _mixed(self) -> bytes:
        """The next card of a shuffled deck. A capture or reversal that must wait for an id is made up for later."""
        if self._owed["capture"] and self._held:
            self._owed["capture"] -= 1
            return b'"type":"capture","hold":"%b"}' % self._held.popleft()
        if self._owed["reverse"] and self._reversible:
            self._owed["reverse"] -= 1
            return b'"type":"reverse","command":"%b"}' % self._reversible.popleft()
        if not self._deck:
            self._deck = self._random.sample(DECK, len(DECK))
        number = self._any()
        match card := self._deck.pop():
            case "capture" | "reverse":
                self._owed[card] += 1
                return self._mixed()
            case "top_up":
                expiry = self._expiries[0] if holds_lots(number) else b""
                return b'"type":"top_up",' + expiry + self._moves[number]
            case "hold":
                return self._hold + self._moves[number]
            case "transfer" if len(self._wallets) > LOT_WALLET_EVERY:
                to_wallet = self._wallets[self._another(number)]
                return b'"type":"transfer","to_wallet":"%b",%b' % (to_wallet, self._moves[number])
            case _:
                return b'"type":"spend",' + self._moves[number]

    def _turn(self, of: int) -> int:
        self._made += 1
        return (self._made - 1) % of

    def _any(self) -> int:
        return int(self._random.random() * len(self._wallets))

    def _another(self, number: int) -> int:
        """A wallet to transfer to. Lots travel with a transfer: they stay among the wallets that hold some."""
        same = self._holders if holds_lots(number) else self._others
        to = same[int(self._random.random() * len(same))]
        return to if to != number else (number + LOT_WALLET_EVERY) % len(self._wallets)


def holds_lots(number: int) -> bool:
    """Whether a wallet of a work with lots is one that holds some."""
    return number % LOT_WALLET_EVERY == 0
