"""A server on a real socket that answers as it is told: one behaviour per request, in order."""

import contextlib
import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

LINGER_S = 10.0  # a behaviour that hangs does so until the client has gone, or so long


@dataclass(frozen=True)
class Heard:
    """A request, as it came; headers by lower-case name."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def key(self) -> str | None:
        return self.headers.get("idempotency-key")

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Behaviour = Callable[[socket.socket, Heard], None]


class Hostile:
    """`server.will(drop, answers(503), …)`; past the last one, it repeats that. Use it as a context manager."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard: list[Heard] = []
        self.came = threading.Event()
        self._will: deque[Behaviour] = deque()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def will(self, *behaviours: Behaviour) -> None:
        self._will = deque(behaviours)

    @property
    def keys(self) -> list[str | None]:
        return [heard.key for heard in self.heard]

    def __enter__(self) -> "Hostile":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(LINGER_S)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(LINGER_S)
            heard = _hear(connection)
            if heard is None:
                return
            with self._lock:
                self.heard.append(heard)
                self.came.set()
                behaviour = self._will.popleft() if len(self._will) > 1 else self._will[0]
            with contextlib.suppress(OSError, httpx2.HTTPError):  # one of the two ends has gone
                behaviour(connection, heard)


def _hear(connection: socket.socket) -> Heard | None:
    raw = b""
    while b"\r\n\r\n" not in raw:
        part = connection.recv(65_536)
        if not part:
            return None
        raw += part
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65_536)
    method, path, _ = first.split(" ")
    return Heard(method, path, headers, body)


# --- behaviours ------------------------------------------------------------------------------------------------


def answers(status: int, body: object = None, *, content_type: str = "application/json", **headers: str) -> Behaviour:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    told = {"Content-Type": content_type, "Content-Length": str(len(content)), "Connection": "close"}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = f"HTTP/1.1 {status} Whatever\r\n" + "".join(f"{name}: {value}\r\n" for name, value in told.items())

    def answer(connection: socket.socket, _: Heard) -> None:
        connection.sendall(head.encode() + b"\r\n" + content)

    return answer


def problem(status: int, code: str, *, retryable: bool = False, **headers: str) -> Behaviour:
    members = {"type": f"/problems/{code}", "title": code, "status": status, "detail": f"it is {code}", "code": code}
    members |= {"instance": "/v1/commands", "request_id": "r-1", "retryable": retryable, "errors": []}
    return answers(status, members, content_type="application/problem+json", **headers)


def drop(connection: socket.socket, _: Heard) -> None:
    """Reads the request and hangs up."""


def cut(connection: socket.socket, _: Heard) -> None:
    """Half an answer."""
    connection.sendall(b'HTTP/1.1 202 Accepted\r\nContent-Length: 5000\r\n\r\n{"id": ')


def hang(connection: socket.socket, _: Heard) -> None:
    """Says nothing until the client has gone."""
    connection.recv(1)


def streams(*events: str) -> Behaviour:
    """Server-sent events, then the connection ends."""

    def stream(connection: socket.socket, _: Heard) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        connection.sendall(head)
        for event in events:
            connection.sendall(event.encode())

    return stream


def accepts(connection: socket.socket, heard: Heard) -> None:
    """As the service would, every command pending."""
    if heard.path == "/v1/commands/batch":
        results = [{"status": 202, "command": shown(item, item["idempotency_key"])} for item in heard.json["commands"]]
        answers(200, {"results": results})(connection, heard)
    else:
        answers(202, shown(heard.json, heard.key or ""))(connection, heard)


def forwards(url: str, *, and_drops: bool = False) -> Behaviour:
    """The service at `url` gets the request; its answer comes back, or gets lost."""

    def forward(connection: socket.socket, heard: Heard) -> None:
        names = ("authorization", "content-type", "idempotency-key", "prefer")
        headers = {name: heard.headers[name] for name in names if name in heard.headers}
        answer = httpx2.request(heard.method, url + heard.path, content=heard.body, headers=headers, trust_env=False)
        if not and_drops:
            replayed = answer.headers.get("idempotent-replayed", "false")
            answers(answer.status_code, answer.content, Idempotent_Replayed=replayed)(connection, heard)

    return forward


def streams_from(url: str, cut: threading.Event) -> Behaviour:
    """What the service at `url` streams; once it is `cut`, the next part is lost and the connection with it."""

    def stream(connection: socket.socket, heard: Heard) -> None:
        headers = {name: heard.headers[name] for name in ("authorization", "accept")}
        with httpx2.stream("GET", url + heard.path, headers=headers, trust_env=False, timeout=30) as answer:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
            for part in answer.iter_raw():
                if cut.is_set():
                    cut.clear()
                    return
                connection.sendall(part)

    return stream


def shown(body: Mapping[str, Any], key: str, status: str = "pending") -> dict[str, Any]:
    """A command as the service shows it."""
    outcome = {"code": status, "at": "2026-11-21T12:00:01Z", "transfers": [], "accounts": [], "task": None}
    return {
        "id": f"id-of-{key}",
        "object": "command",
        "reference": None,
        "metadata": {},
        "accepted_at": "2026-11-21T12:00:00Z",
        "expires_at": None,
        **body,
        "idempotency_key": key,
        "status": status,
        "outcome": None if status == "pending" else outcome,
    }
