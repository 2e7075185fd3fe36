"""Load: lanes that post commands with known keys, singles and batches, until told to stop.

with Load(service) as load:
    load.until(accepted=1_000)
    service.workers[0].kill()
    load.until(accepted=1_000)      # a thousand more
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import TracebackType

from tests.crash.follower import Follower
from tests.crash.model import ASSET, SAVINGS, Command, Player
from tests.crash.service import Service, Tenant, wait_for
from tests.crash.wire import Answer, Persistent
from tests.properties.purse import Purse

LANES = 6  # threads, of which one waits for each outcome
WALLETS_PER_LANE = 12
BATCH = 40  # one post in five is a batch, so nine commands in ten come in one
# Together some 3,000 commands/s: enough that drains are always under way, little enough for two cores that also hold
# the service under test.
PACE_S = 0.015
LANE_MAX = 4_000  # commands; a lane that a long fault leaves posting must not make hours of work
OUTCOME_WAIT_S = 10
UNTIL_S = 40.0


class Lane(threading.Thread):
    """One client with wallets of its own. It sends a post again until it is accepted, and only then the next."""

    def __init__(self, port: int, key: str, player: Player, *, seed: int, waits: bool, stop: threading.Event) -> None:
        super().__init__(name=f"lane-{seed}", daemon=True)
        self.player = player
        self.client = Persistent(port, key)
        self.sent: list[Command] = []
        self.posts: list[list[Command]] = []  # as a retry has to send them: one by one, or a whole group
        self.ids: dict[str, str] = {}  # key → the command that it was accepted as
        self.error: BaseException | None = None
        self._random = Random(seed)
        self._waits = waits
        self._stop_now = stop

    def run(self) -> None:
        try:
            while not self._stop_now.is_set() and len(self.sent) < LANE_MAX:
                self._post_next()
                self._stop_now.wait(PACE_S)
        except BaseException as error:  # told by Load.__exit__ and Load.until
            self.error = error
        finally:
            self.client.close()

    def _post_next(self) -> None:
        if not self._waits and self._random.random() < 0.2:
            self.post_batch([self.player.next() for _ in range(BATCH)])
        elif self._random.random() < 0.05:
            self.post_batch(self.player.next_group(), atomic=True)
        elif self.posts and self._random.random() < 0.1:  # as a client does that lost the answer
            first, *others = again = self._random.choice(self.posts)
            self.post_batch(again, atomic=True) if others else self.post(first)
        else:
            self.post(self.player.next())

    def post(self, command: Command) -> None:
        headers = {"Idempotency-Key": command.key}
        if self._waits:
            headers["Prefer"] = f"wait={OUTCOME_WAIT_S}"
        self._accepted(command, self.client.post("/v1/commands", command.body(), **headers).body)

    def post_batch(self, commands: Sequence[Command], *, atomic: bool = False) -> None:
        body = {"commands": [each.item() for each in commands], "atomic": atomic}
        answer: Answer = self.client.post("/v1/commands/batch", body)
        if atomic and commands[0].key not in self.ids:
            self.posts.append(list(commands))
        for command, result in zip(commands, answer.body["results"], strict=True):
            if "command" not in result:
                raise AssertionError(f"{command} was refused: {result}")
            self._accepted(command, result["command"], grouped=atomic)

    def _accepted(self, command: Command, shown: Mapping[str, object], *, grouped: bool = False) -> None:
        if command.key not in self.ids:
            if not grouped:
                self.posts.append([command])
            self.ids[command.key] = str(shown["id"])
            self.sent.append(command)
            self.player.accepted(command.key, str(shown["id"]))
        if (first := self.ids[command.key]) != shown["id"]:
            raise AssertionError(f"{command.key} was accepted as {first} and then as {shown['id']}")
        outcome = shown["outcome"]
        expected = self.player.expected[command.key]
        if isinstance(outcome, dict) and outcome["code"] != expected:
            raise AssertionError(f"{command} must come to {expected}, not to {shown}")


class Load:
    """Lanes of one tenant. Leaving the block lets each lane finish its post, and raises what went wrong in one."""

    def __init__(
        self,
        service: Service,
        *,
        ports: Sequence[int] = (),
        lanes: int = LANES,
        wallets: Callable[[Tenant, int], Sequence[str]] | None = None,
    ) -> None:
        """`ports`: of the apis, which the lanes take in turn. `wallets`: the names of each lane's own."""
        self.tenant = tenant = service.new_tenant(ASSET)
        self._stop = threading.Event()
        self.follower = Follower(service.api.port, tenant.key)
        ports = ports or [service.api.port]
        self._lanes: list[Lane] = []
        for number in range(lanes):
            names = wallets(tenant, number) if wallets else [f"p{number}-{n}" for n in range(WALLETS_PER_LANE)]
            player = Player(f"k{number}", names, seed=number)
            port = ports[number % len(ports)]
            self._lanes.append(Lane(port, tenant.key, player, seed=number, waits=number == lanes - 1, stop=self._stop))

    def __enter__(self) -> "Load":
        self.follower.start()
        for lane in self._lanes:
            lane.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        for lane in self._lanes:
            lane.join(UNTIL_S if error is None else 1.0)
        if error is None:
            self._raise_error()
            unfinished = [lane.name for lane in self._lanes if lane.is_alive()]
            assert not unfinished, f"still posting {UNTIL_S:.0f} s after the end: {unfinished}"

    # --- while it runs -----------------------------------------------------------------------------------------------

    def until(self, *, accepted: int) -> None:
        """Returns when so many more commands have been accepted."""
        goal = self.accepted + accepted
        self._until(lambda: self.accepted >= goal, f"{accepted} more accepted commands")

    def until_refused(self, code: str, *, times: int = 1) -> None:
        """Returns when posts have been refused with this code (or `unanswered`) so many times."""
        self._until(lambda: self.refused[code] >= times, f"{times} refusals {code}")

    def _until(self, holds: Callable[[], bool], what: str) -> None:
        wait_for(lambda: holds() or self._broken(), what, within_s=UNTIL_S, tell=lambda: f"refusals: {self.refused}")
        self._raise_error()

    def _broken(self) -> bool:
        return any(lane.error for lane in self._lanes)

    def _raise_error(self) -> None:
        for lane in self._lanes:
            if lane.error is not None:
                raise lane.error

    # --- what came of it ---------------------------------------------------------------------------------------------

    @property
    def accepted(self) -> int:
        return sum(len(lane.sent) for lane in self._lanes)

    @property
    def refused(self) -> Counter[str]:
        return sum((lane.client.refused.copy() for lane in self._lanes), Counter[str]())

    @property
    def slowest_s(self) -> float:
        """The longest time from a post to its 202, the lane that waits for outcomes left out."""
        return max(lane.client.slowest_s for lane in self._lanes[:-1])

    @property
    def posts(self) -> list[list[Command]]:
        """The commands, a whole group together."""
        return [post for lane in self._lanes for post in lane.posts]

    @property
    def ids(self) -> dict[str, str]:
        return {key: id_ for lane in self._lanes for key, id_ in lane.ids.items()}

    @property
    def expected(self) -> dict[str, str]:
        """By key, the outcome's code."""
        return {key: lane.player.expected[key] for lane in self._lanes for key in lane.ids}

    @property
    def balances(self) -> Counter[str]:
        """By wallet, all lanes together. Counter's own `+` would drop what is not positive."""
        total: Counter[str] = Counter()
        for lane in self._lanes:
            total.update(lane.player.balances)
        return total

    @property
    def purses(self) -> dict[str, Purse]:
        """By wallet, those that one lane alone knows all about."""
        return {
            wallet: purse
            for lane in self._lanes
            for wallet, purse in lane.player.purses.items()
            if wallet not in SAVINGS
        }
