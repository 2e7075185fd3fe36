"""A server that answers the generators as contract.md says the api does, and remembers what it was sent."""

import asyncio
import contextlib
import json
import queue
import threading
from collections.abc import Generator
from typing import Any
from uuid import uuid4

Post = tuple[str, dict[str, str], Any]


class StandIn:
    """Listens on loopback. `keys`: all idempotency keys in order. Past `refuse_after` single posts it answers 503."""

    def __init__(self, *, refuse_after: int | None = None, hang_up_after: int | None = None, ids: bool = True) -> None:
        self.posts: list[Post] = []
        self.keys: list[str] = []
        self.ids: dict[str, str] = {}  # → type, of the commands of batches
        self._ids = ids
        self.port = 0
        self._refuse_after = refuse_after
        self._hang_up_after = hang_up_after

    @property
    def commands(self) -> list[dict[str, str]]:
        """Every command that was posted, alone or in a batch."""
        return [command for _, _, body in self.posts for command in body.get("commands", [body])]

    async def __aenter__(self) -> "StandIn":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while self._hang_up_after is None or len(self.posts) < self._hang_up_after:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                path = head[0].split()[1]
                self.posts.append((path, headers, body))
                writer.write(await self._answer(path, headers, body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, path: str, headers: dict[str, str], body: Any) -> bytes:
        status = 202 if self._refuse_after is None or len(self.posts) <= self._refuse_after else 503
        answer: dict[str, Any]
        if path == "/v1/assets":
            status, answer = 201, body
        elif path == "/v1/commands/batch":
            self.keys += [item["idempotency_key"] for item in body["commands"]]
            status, answer = 200, {"results": [self._item(item) for item in body["commands"]]}
        else:
            self.keys.append(headers["idempotency-key"])
            answer = {"object": "command", "status": "pending", **body, "outcome": None}
            if "prefer" in headers and status == 202:
                await asyncio.sleep(0.02)
                status, answer = 200, {**answer, "status": "applied"}
        text = json.dumps(answer, separators=(",", ":")).encode()
        return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(text), text)

    def _item(self, item: dict[str, str]) -> dict[str, Any]:
        command: dict[str, Any] = {"object": "command", "type": item["type"], "status": "pending", **item}
        if self._ids:
            name = str(uuid4())
            self.ids[name] = item["type"]
            command = {"id": name, **command}
        return {"status": 202, "command": command}


@contextlib.contextmanager
def serving(server: StandIn) -> Generator[int]:
    """The stand-in in a thread of its own, for a caller that blocks; gives its port."""
    ready: queue.Queue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def serve() -> None:
        over = asyncio.Event()
        async with server:
            ready.put((asyncio.get_running_loop(), over))
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    loop, over = ready.get(timeout=10)
    try:
        yield server.port
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(timeout=10)
