"""What webhooks take: `python -m benchmarks.webhooks` (needs `pip install 'bursar[local]'`).

Starts a stack of its own, one courier and, in a process of its own, a receiver that answers 204 at once. *Delay*: 100
single posts a second, one endpoint, from the time that stands in an outcome to the arrival of its webhook. *Rate*: 20
endpoints, a backlog of deliveries, how many arrive in a second. *Drain*: what a drain does with nobody listening and
with an endpoint that wants every outcome, by turns, while no courier runs.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import httpx2
import uvloop

from bursar.bench import figures
from bursar.bench.observe import Observer
from bursar.bench.stack import OwnStack, Target

ASSET = "gold_coins"
POSTS_PER_S = 100
ENDPOINTS = 20
BATCH = 1_000
ARRIVED_S = 120.0
ANSWER = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"


class _Receiver(asyncio.Protocol):
    """As little HTTP as a webhook needs. Notes when each arrived."""

    arrivals: list[tuple[float, bytes]]

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
            self.arrivals.append((time.time(), self._read[end + 4 : end + 4 + length]))
            self._read = self._read[end + 4 + length :]
            self._transport.write(ANSWER)


def receive(to: Connection) -> None:
    """In a process of its own: says its port, then, whenever it is asked, what has arrived since it was last asked."""

    async def serve() -> None:
        arrivals: list[tuple[float, bytes]] = []
        receiver = type("Receiver", (_Receiver,), {"arrivals": arrivals})
        server = await asyncio.get_running_loop().create_server(receiver, "127.0.0.1", 0)
        to.send(server.sockets[0].getsockname()[1])
        while await asyncio.to_thread(to.recv):
            to.send(list(arrivals))
            arrivals.clear()

    uvloop.run(serve())


class Arrivals:
    def __init__(self) -> None:
        self._ours, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=receive, args=(theirs,), daemon=True)
        self._process.start()
        self.port: int = self._ours.recv()

    def wait(self, count: int) -> list[tuple[float, bytes]]:
        """The next `count`; fewer where they do not come."""
        found: list[tuple[float, bytes]] = []
        deadline = time.monotonic() + ARRIVED_S
        while len(found) < count and time.monotonic() < deadline:
            self._ours.send(True)
            found += self._ours.recv()
            time.sleep(0.2)
        return found

    def stop(self) -> None:
        self._ours.send(False)
        self._process.join(5)


def listen(target: Target, port: int, n: int = 0) -> str:
    status, answer = target.request("POST", "/v1/webhook_endpoints", {"url": f"http://127.0.0.1:{port}/{n}"})
    assert status == 201, answer
    return answer["id"]


def _top_up(n: int) -> dict[str, Any]:
    return {"type": "top_up", "wallet": f"player-{n % 1_000}", "asset": ASSET, "amount": "10"}


def post_many(target: Target, count: int, nonce: str) -> None:
    for start in range(0, count, BATCH):
        commands = [_top_up(n) | {"idempotency_key": f"{nonce}-{n}"} for n in range(start, start + BATCH)]
        status, answer = target.request("POST", "/v1/commands/batch", {"commands": commands})
        assert status == 200, answer


async def post_slowly(target: Target, count: int) -> None:
    headers = {"Authorization": f"Bearer {target.api_key}"}
    async with httpx2.AsyncClient(base_url=f"http://{target.host}:{target.port}", headers=headers) as client:

        async def post(n: int) -> None:
            answer = await client.post("/v1/commands", json=_top_up(n), headers={"Idempotency-Key": f"delay-{n}"})
            assert answer.status_code == 202, answer.text

        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for n in range(count):
                await asyncio.sleep(max(0.0, started + n / POSTS_PER_S - time.monotonic()))
                group.create_task(post(n))


def drain_rate(stack: OwnStack, target: Target, observer: Observer, count: int, nonce: str) -> float:
    """Commands a second of one worker with a full inbox."""
    stack.stop_workers()
    observer.level()
    since = observer.last_seq()
    post_many(target, count, nonce)
    stack.start_workers(1)
    while not observer.drained():
        time.sleep(0.2)
    return figures.drain_rate(observer.flows(since))[0]


def main(arguments: list[str]) -> Iterator[str]:
    options = argparse.ArgumentParser(prog="python -m benchmarks.webhooks", description=__doc__)
    options.add_argument("--posts", type=int, default=3_000, help="to measure the delay with (3,000)")
    options.add_argument("--commands", type=int, default=2_000, help="of the backlog, 20 deliveries each (2,000)")
    options.add_argument("--drain", type=int, default=30_000, help="commands of one drain (30,000)")
    options.add_argument("--rounds", type=int, default=3, help="of drains (3)")
    asked = options.parse_args(arguments)
    arrivals = Arrivals()
    with tempfile.TemporaryDirectory(prefix="bursar-webhooks-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o711)
        stack = OwnStack(folder, workers=1)
        try:
            stack.start_databases()
            target = stack.start_services()
            target.make_asset(ASSET)
            observer = Observer(stack.postgres.url)
            yield from _drains(stack, target, observer, arrivals.port, asked.drain, asked.rounds)
            yield from _delay(stack, target, arrivals, asked.posts)
            yield from _rate(stack, target, observer, arrivals, asked.commands)
            observer.close()
        finally:
            stack.stop()
            arrivals.stop()


def _drains(stack: OwnStack, target: Target, observer: Observer, port: int, count: int, rounds: int) -> Iterator[str]:
    rates: dict[bool, list[float]] = {False: [], True: []}
    drain_rate(stack, target, observer, count // 2, "warm")
    for n in range(rounds):
        for listening in (False, True):
            endpoint = listen(target, port) if listening else None
            rates[listening].append(drain_rate(stack, target, observer, count, f"drain-{n}-{listening}"))
            if endpoint is not None:
                target.request("DELETE", f"/v1/webhook_endpoints/{endpoint}")
    without, with_one = (statistics.median(rates[listening]) for listening in (False, True))
    yield (
        f"drain: {without:,.0f}/s with nobody listening, {with_one:,.0f}/s owing a delivery each:"
        f" {with_one / without:.2f}"
    )


def _delay(stack: OwnStack, target: Target, arrivals: Arrivals, posts: int) -> Iterator[str]:
    stack.start_courier()
    endpoint = listen(target, arrivals.port)
    target.request("POST", f"/v1/webhook_endpoints/{endpoint}/test")
    arrivals.wait(1)  # the courier is there
    asyncio.run(post_slowly(target, posts))
    found = arrivals.wait(posts)
    took = sorted(
        (at - datetime.fromisoformat(json.loads(body)["timestamp"]).timestamp()) * 1_000 for at, body in found
    )
    yield f"delay at {POSTS_PER_S} commands/s, {len(took)} of {posts} arrived: " + ", ".join(
        f"{name} {took[min(int(len(took) * share), len(took) - 1)]:.1f} ms"
        for name, share in (("p50", 0.5), ("p99", 0.99), ("most", 1.0))
    )
    target.request("DELETE", f"/v1/webhook_endpoints/{endpoint}")
    stack.stop_courier()


def _rate(stack: OwnStack, target: Target, observer: Observer, arrivals: Arrivals, commands: int) -> Iterator[str]:
    for n in range(ENDPOINTS):
        listen(target, arrivals.port, n)
    post_many(target, commands, "rate")
    while not observer.drained():
        time.sleep(0.1)
    stack.start_courier()
    found = arrivals.wait(commands * ENDPOINTS)
    first, last = found[0][0], found[-1][0]
    yield (
        f"rate: {len(found)} of {commands * ENDPOINTS} deliveries to {ENDPOINTS} endpoints,"
        f" {len(found) / (last - first):,.0f}/s"
    )


if __name__ == "__main__":
    for line in main(sys.argv[1:]):
        print(line, flush=True)
