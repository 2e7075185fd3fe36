"""A client of the service: verbs that read like the contract, and every answer checked against the document."""

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import httpx2

from tests.contracts.service import Service

GOLD = "gold"
TIMEOUT_S = 40.0  # above the longest wait that can be asked for: a hang is an error, not a slow test
STILL_S = 0.5  # a connection on which nothing comes for so long has nothing more to say
_numbers = count(1)

Headers = Iterable[tuple[str, str | bytes]]


def unique(name: str) -> str:
    """`player-7`: a name that nothing else in this run has."""
    return f"{name}-{next(_numbers)}"


def order(kind: str, wallet: str, amount: object, **more: object) -> dict[str, Any]:
    """A command's body."""
    return {"type": kind, "wallet": wallet, "asset": GOLD, "amount": amount, **more}


def in_an_hour() -> str:
    """A time ahead, as a request has it."""
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat()


class Caller:
    """Holds one API key. Several callers of one client share its idempotency keys."""

    def __init__(self, service: Service, key: str) -> None:
        self.service = service
        self.api_key = key
        self.http = httpx2.Client(
            base_url=service.url,
            headers={"Authorization": f"Bearer {key}"},
            event_hooks={"response": [service.contract.check]},
            timeout=TIMEOUT_S,
            limits=httpx2.Limits(max_connections=200),
            trust_env=False,
        )

    # --- requests ------------------------------------------------------------------------------------------------

    def post(
        self, body: object, *, key: str | None = None, prefer: str | None = None, content: str | bytes | None = None
    ) -> httpx2.Response:
        """POST /v1/commands with a key of its own, unless one is given. `content`: the body's very bytes."""
        headers = {"Idempotency-Key": unique("key") if key is None else key, "Content-Type": "application/json"}
        if prefer is not None:
            headers["Prefer"] = prefer
        return self.http.post("/v1/commands", content=json.dumps(body) if content is None else content, headers=headers)

    def batch(self, items: list[Any], *, prefer: str | None = None, **more: object) -> httpx2.Response:
        headers = {} if prefer is None else {"Prefer": prefer}
        return self.http.post("/v1/commands/batch", json={"commands": items, **more}, headers=headers)

    def get(self, command_id: str, **query: object) -> httpx2.Response:
        return self.http.get(f"/v1/commands/{command_id}", params={k: str(v) for k, v in query.items()})

    def find(self, key: str, **query: object) -> httpx2.Response:
        params = {"idempotency_key": key} | {k: str(v) for k, v in query.items()}
        return self.http.get("/v1/commands", params=params)

    def raw(
        self,
        method: str,
        path: str,
        headers: Headers,
        body: bytes = b"",
        *,
        declare_length: bool = True,
        authorize: bool = True,
    ) -> "Raw":
        """A request byte by byte, for what well-behaved clients cannot send."""
        lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: bursar", b"Connection: close"]
        if authorize:
            lines.append(f"Authorization: Bearer {self.api_key}".encode())
        lines += [b"%s: %s" % (name.encode(), v if isinstance(v, bytes) else v.encode()) for name, v in headers]
        if declare_length:
            lines.append(b"Content-Length: %d" % len(body))
        with socket.create_connection(("127.0.0.1", self.service.port), timeout=TIMEOUT_S) as connection:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before it was all sent
                connection.sendall(b"\r\n".join([*lines, b"", b""]) + body)
            answer = Raw(connection, method)
        self.service.contract.check_parts(method, path.partition("?")[0], answer.status, answer.headers, answer.content)
        return answer

    def speak(self, *parts: bytes) -> bytes:
        """Send these very bytes, a moment between the parts; what comes back until the line has been still."""
        with socket.create_connection(("127.0.0.1", self.service.port), timeout=TIMEOUT_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for part in parts:
                connection.sendall(part)
                time.sleep(0.01)
            connection.settimeout(STILL_S)
            heard = b""
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                while part := connection.recv(65_536):
                    heard += part
            return heard

    def hang_up(self, request: bytes) -> None:
        """Send these very bytes and leave without hearing the answer."""
        with socket.create_connection(("127.0.0.1", self.service.port), timeout=TIMEOUT_S) as connection:
            connection.sendall(request)

    # --- whole stories -------------------------------------------------------------------------------------------

    def do(self, kind: str, wallet: str, amount: object, *, key: str | None = None, **more: object) -> dict[str, Any]:
        """Post a command and wait for its outcome; the command."""
        answer = self.post(order(kind, wallet, amount, **more), key=key, prefer="wait=20")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def until(
        self, ask: Callable[[], httpx2.Response], satisfied: Callable[[httpx2.Response], bool]
    ) -> httpx2.Response:
        """Ask again and again, ten seconds at most; the first answer that satisfies."""
        deadline = time.monotonic() + 10
        while not satisfied(answer := ask()):
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.05)
        return answer

    def new_wallet(self, balance: int = 0) -> str:
        """A wallet with so much gold; one of 0 was never opened."""
        wallet = unique("player")
        if balance:
            assert self.do("top_up", wallet, str(balance))["status"] == "applied"
        return wallet

    def account(self, wallet: str, asset: str = GOLD) -> dict[str, Any]:
        found = self.http.get(f"/v1/wallets/{wallet}").json()["accounts"]
        (account,) = (account for account in found if account["asset"] == asset)
        return account

    def posted(self, wallet: str, asset: str = GOLD) -> str:
        return self.account(wallet, asset)["posted"]


class Raw:
    """An answer, read from the socket. Its headers' names are in lower case."""

    def __init__(self, connection: socket.socket, method: str) -> None:
        with http.client.HTTPResponse(connection, method=method) as response:
            response.begin()
            self.status = response.status
            self.headers = {name.lower(): value for name, value in response.getheaders()}
            self.content = response.read()

    def json(self) -> Any:
        return json.loads(self.content)


def refusal(answer: httpx2.Response | Raw) -> str:
    """`422 validation_failed /amount`: what a problem comes to, with the members that it names."""
    problem = answer.json()
    return " ".join([str(problem["status"]), problem["code"], *(fault["pointer"] for fault in problem["errors"])])


@contextlib.contextmanager
def nothing_stored(service: Service) -> Generator[None]:
    """Whatever is posted inside, no command is accepted."""
    before = service.stored()
    yield
    assert service.stored() == before


def without_outcome(command: Mapping[str, Any]) -> dict[str, Any]:
    """What a command says of itself, apart from where it stands."""
    return {name: value for name, value in command.items() if name not in ("status", "outcome")}
