"""A game server that follows the feed: one cursor, passed on from answer to answer, through whatever fails."""

import threading
import time
from urllib.parse import urlencode

from tests.crash.wire import RETRYABLE, Connection, Unanswered, WrongAnswer

AGAIN_AFTER_S = 0.05
CATCH_UP_S = 20.0


class Follower(threading.Thread):
    """`told`: the key and the code of each outcome, in the order in which they came."""

    def __init__(self, port: int, key: str) -> None:
        super().__init__(name="follower", daemon=True)
        self._connection = Connection(port, key)
        self._cursor: str | None = None
        self._stop_now = threading.Event()
        self.error: BaseException | None = None
        self.told: list[tuple[str, str]] = []
        self.ask(wait_s=0)  # from here on

    def run(self) -> None:
        try:
            while not self._stop_now.is_set():
                self.ask(wait_s=1)
        except BaseException as error:  # told by `all_told`
            self.error = error

    def all_told(self, number: int) -> list[tuple[str, str]]:
        """Stops following once that many were told, or no more come; what was told."""
        deadline = time.monotonic() + CATCH_UP_S
        while len(self.told) < number and time.monotonic() < deadline and self.error is None:
            time.sleep(AGAIN_AFTER_S)
        self._stop_now.set()
        self.join(CATCH_UP_S)
        if self.error is not None:
            raise self.error
        assert not self.is_alive(), "the feed does not answer"
        while self.ask(wait_s=0):
            pass
        self._connection.close()
        return self.told

    def ask(self, *, wait_s: int) -> int:
        """Ask once; how many came."""
        asked = {"wait": wait_s, "limit": 200} | ({"after": self._cursor} if self._cursor else {})
        try:
            answer = self._connection.request("GET", f"/v1/outcomes?{urlencode(asked)}")
        except Unanswered:
            time.sleep(AGAIN_AFTER_S)
            return 0
        if answer.status in RETRYABLE:
            time.sleep(AGAIN_AFTER_S)
            return 0
        if answer.status != 200:
            raise WrongAnswer(f"{answer.status}: {answer.body}")
        self._cursor = answer.body["next_cursor"]
        found = [(each["idempotency_key"], each["outcome"]["code"]) for each in answer.body["data"]]
        self.told += found
        return len(found)
