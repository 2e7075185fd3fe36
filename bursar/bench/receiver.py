"""A receiver of webhooks and a follower of the feed, which note when each outcome came. Both as cheap as can be: they
share the cores with what is measured."""

import asyncio
import multiprocessing
import socket
import threading
import time
from multiprocessing.connection import Connection
from typing import cast

import uvloop

from bursar.bench.stack import StackError, Target

ANSWER = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"
HANG = b"POST /hang"  # a path that is never answered
HTTP_S = 10.0
EVERY_S = 0.2

Arrival = tuple[float, bytes]  # when, in seconds since 1970, and the JSON that came


class _Receiving(asyncio.Protocol):
    """As little HTTP as a webhook needs."""

    arrivals: list[Arrival]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._read = b""

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            head = self._read[:end].lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            if len(self._read) < end + 4 + length:
                return
            hangs, body = self._read.startswith(HANG), self._read[end + 4 : end + 4 + length]
            self._read = self._read[end + 4 + length :]
            if not hangs:
                self.arrivals.append((time.time(), body))
                self._transport.write(ANSWER)


def receive(to: Connection) -> None:
    """In a process of its own: says its port, then, whenever it is asked, what has arrived since it was last asked."""

    async def serve() -> None:
        arrivals: list[Arrival] = []
        receiving = type("Receiving", (_Receiving,), {"arrivals": arrivals})
        server = await asyncio.get_running_loop().create_server(receiving, "127.0.0.1", 0)
        to.send(server.sockets[0].getsockname()[1])
        while await asyncio.to_thread(to.recv):
            to.send(list(arrivals))
            arrivals.clear()

    uvloop.run(serve())


class Receiver:
    """Answers 204 at once, but for what is sent to `/hang`."""

    def __init__(self) -> None:
        self._ours, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=receive, args=(theirs,), daemon=True)
        self._process.start()
        self.port: int = self._ours.recv()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def wait(self, count: int, *, within_s: float) -> list[Arrival]:
        """The next `count` and what came with them; fewer where they do not come."""
        found: list[Arrival] = []
        deadline_s = time.monotonic() + within_s
        while True:
            self._ours.send(True)
            found += self._ours.recv()
            if len(found) >= count or time.monotonic() > deadline_s:
                return found
            time.sleep(EVERY_S)

    def stop(self) -> None:
        self._ours.send(False)
        self._process.join(HTTP_S)


class Follower:
    """One event stream."""

    def __init__(self, target: Target) -> None:
        """Returns when the stream has begun. Raises StackError."""
        self.arrivals: list[Arrival] = []
        self._socket = socket.create_connection((target.host, target.port), HTTP_S)
        self._socket.sendall(
            f"GET /v1/outcomes HTTP/1.1\r\nHost: {target.host}\r\nAuthorization: Bearer {target.api_key}\r\n"
            "Accept: text/event-stream\r\n\r\n".encode()
        )
        self._begun = threading.Event()
        threading.Thread(target=self._read, name="follower", daemon=True).start()
        if not self._begun.wait(HTTP_S):
            raise StackError("the feed does not begin")
        self._socket.settimeout(None)

    def _read(self) -> None:
        try:
            for line in self._socket.makefile("rb"):
                if line.startswith(b"data: "):
                    self.arrivals.append((time.time(), line[6:]))
                elif line.startswith(b"retry:"):
                    self._begun.set()
        except OSError:
            pass  # the stream was stopped

    def wait(self, count: int, *, within_s: float) -> list[Arrival]:
        """All that has come, once it is so many; fewer where they do not come."""
        deadline_s = time.monotonic() + within_s
        while len(self.arrivals) < count and time.monotonic() < deadline_s:
            time.sleep(EVERY_S)
        return list(self.arrivals)

    def stop(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
