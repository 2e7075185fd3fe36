"""The api is killed while a thousand wait on the feed, half of them in long polls and half in streams. Each goes on
from its cursor."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest

from tests.crash.checks import settle
from tests.crash.model import ASSET
from tests.crash.service import Service, Tenant
from tests.crash.wire import Persistent

pytestmark = pytest.mark.timeout(120)

POLLERS = STREAMS = 500
WALLETS = 5
BEFORE, WHILE_DOWN, AFTER = 5, 40, 5  # outcomes
CAUGHT_UP_S = 60.0
AGAIN_S = 0.5  # as a client that is not in a hurry
POLL_S = 20
LINE_MAX = 2**20  # bytes: a long poll's answer is one line


class Outcome(msgspec.Struct):
    idempotency_key: str


class Page(msgspec.Struct):
    data: list[Outcome]
    next_cursor: str


@dataclass
class Client:
    """One that follows the feed, and comes again with its cursor whatever happens to its connection."""

    port: int
    key: str
    streams: bool
    cursor: str = ""
    told: list[str] = field(default_factory=list[str])
    lost: int = 0
    """Connections that broke."""

    async def follow(self) -> None:
        while True:
            try:
                await (self._stream() if self.streams else self._poll())
            except (OSError, EOFError):
                self.lost += 1
            await asyncio.sleep(AGAIN_S)

    async def _ask(self, path: str, more: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=LINE_MAX)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self.key}\r\n{more}\r\n".encode())
        return reader, writer

    async def _poll(self) -> None:
        wait = f"wait={POLL_S}&after={self.cursor}" if self.cursor else "wait=0"
        reader, writer = await self._ask(f"/v1/outcomes?limit=200&{wait}", "Connection: close\r\n")
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise EOFError
            page = msgspec.json.decode(await reader.read(-1), type=Page)
        except msgspec.DecodeError as cut:
            raise EOFError from cut
        finally:
            writer.close()
        self.told += [each.idempotency_key for each in page.data]
        self.cursor = page.next_cursor

    async def _stream(self) -> None:
        resumed = f"Last-Event-ID: {self.cursor}\r\n" if self.cursor else ""
        reader, writer = await self._ask("/v1/outcomes", f"Accept: text/event-stream\r\n{resumed}")
        id_, held = "", list[str]()
        try:
            while line := await reader.readline():
                if line.startswith(b"id: "):
                    id_ = line[4:].decode().strip()
                    self.cursor = self.cursor or id_
                elif line.startswith(b"data: ") and line.endswith(b"\n"):
                    held.append(msgspec.json.decode(line[6:], type=Outcome).idempotency_key)
                elif line == b"\n" and id_:  # what is whole counts
                    self.cursor = id_
                    self.told += held
                    held.clear()
        finally:
            writer.close()
        raise EOFError


def test_the_api_is_killed_with_a_thousand_who_wait(service: Service) -> None:
    tenant = service.new_tenant(ASSET)
    clients = [Client(service.api.port, tenant.key, streams=n < STREAMS) for n in range(POLLERS + STREAMS)]
    asyncio.run(follow(service, tenant, clients))
    wanted = {f"{n}" for n in range(BEFORE + WHILE_DOWN + AFTER)}
    for client in clients:
        assert max(Counter(client.told).values()) == 1
        assert set(client.told) == wanted
        assert client.lost > 0


async def follow(service: Service, tenant: Tenant, clients: list[Client]) -> None:
    async with asyncio.TaskGroup() as group:
        following = [group.create_task(client.follow()) for client in clients]
        await all_have(clients, "a cursor", lambda client: client.cursor != "")
        await asyncio.to_thread(post, service, tenant, 0, BEFORE)
        await all_have(clients, "the first outcomes", lambda client: len(client.told) >= BEFORE)
        for worker in service.workers:  # nothing is decided until the api is gone
            for child in worker.children():
                child.suspend()
        try:
            await asyncio.to_thread(post, service, tenant, BEFORE, WHILE_DOWN)
            service.api.kill()
        finally:
            for worker in service.workers:
                for child in worker.children():
                    child.resume()
        await asyncio.to_thread(settle, service, tenant)
        service.api.start()
        await asyncio.to_thread(post, service, tenant, BEFORE + WHILE_DOWN, AFTER)
        total = BEFORE + WHILE_DOWN + AFTER
        await all_have(clients, "all outcomes", lambda client: len(client.told) >= total)
        for task in following:
            task.cancel()


async def all_have(clients: list[Client], what: str, has: Callable[[Client], bool]) -> None:
    try:
        async with asyncio.timeout(CAUGHT_UP_S):
            while not all(map(has, clients)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    except TimeoutError:
        lacking = [client for client in clients if not has(client)]
        raise AssertionError(f"{len(lacking)} without {what}; one of them: {lacking[0]}") from None


def post(service: Service, tenant: Tenant, first: int, number: int) -> None:
    items = [
        {"idempotency_key": f"{n}", "type": "top_up", "wallet": f"w{n % WALLETS}", "asset": ASSET, "amount": "1"}
        for n in range(first, first + number)
    ]
    client = Persistent(service.api.port, tenant.key)
    try:
        client.post("/v1/commands/batch", {"commands": items})
    finally:
        client.close()
