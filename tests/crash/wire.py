"""A client as a game server's: keep-alive connections, and whatever is not answered is sent again with the same key."""

import http.client
import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

ANSWER_S = 15.0  # longer than any statement of the api may take: then there is no answer, and the post is sent again
GIVE_UP_S = 45.0  # of sending one post again and again; longer than any fault here lasts
AGAIN_AFTER_S = 0.05
RETRYABLE = {429: {"backlogged"}, 503: {"database_unavailable", "overloaded"}}


class Unanswered(Exception):
    """The connection was refused, reset or cut, or no answer came: the client cannot know what became of its post."""


class WrongAnswer(AssertionError):
    """An answer that the contract does not allow here."""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]  # names in lower case
    body: Any
    took_s: float


class Connection:
    """One keep-alive connection to an api, made again when it is lost."""

    def __init__(self, port: int, key: str) -> None:
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)

    def request(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """Raises Unanswered."""
        sent = None if body is None else json.dumps(body).encode()
        started = time.monotonic()
        try:
            self._http.request(method, path, sent, self._headers | headers)
            answer = self._http.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            raise Unanswered(type(error).__name__) from error
        names = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, names, json.loads(text) if text else None, time.monotonic() - started)

    def close(self) -> None:
        self._http.close()


class Persistent:
    """Posts until the post is accepted. `refused` counts what came in between: HTTP codes, and `unanswered`."""

    def __init__(self, port: int, key: str) -> None:
        self._connection = Connection(port, key)
        self.refused: Counter[str] = Counter()
        self.slowest_s = 0.0  # of the answers that accepted

    def post(self, path: str, body: object, **headers: str) -> Answer:
        """The first answer that accepts. Raises WrongAnswer for a refusal that is none of RETRYABLE, or no end."""
        deadline = time.monotonic() + GIVE_UP_S
        while time.monotonic() < deadline:
            try:
                answer = self._connection.request("POST", path, body, **headers)
            except Unanswered:
                self.refused["unanswered"] += 1
            else:
                if answer.status in (200, 201, 202):
                    self.slowest_s = max(self.slowest_s, answer.took_s)
                    return answer
                self.refused[_refusal(answer)] += 1
            time.sleep(AGAIN_AFTER_S)
        raise WrongAnswer(f"not accepted within {GIVE_UP_S:.0f} s: {dict(self.refused)}")

    def close(self) -> None:
        self._connection.close()


def _refusal(answer: Answer) -> str:
    """Its code, where it is a problem that says to come again."""
    problem = answer.headers.get("content-type") == "application/problem+json"
    code = str(answer.body["code"]) if problem else ""
    if code not in RETRYABLE.get(answer.status, ()) or "retry-after" not in answer.headers:
        raise WrongAnswer(f"{answer.status} {answer.headers}: {answer.body}")
    return code
