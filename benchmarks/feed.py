"""What following costs: `python -m benchmarks.feed` (needs `pip install 'bursar[local]'`).

Starts a stack of its own and measures two things. *Lag*: one event stream, 100 single posts a second, from the time
that stands in an outcome, which its drain took before it decided, to the arrival of its event. *Idle*: so many streams
open on one api process and nothing to tell; the CPU of every process beside that of the same stack with none.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2

from bursar.bench.machine import cpu_use
from bursar.bench.stack import OwnStack, Target

ASSET = "gold_coins"
STREAM = {"Accept": "text/event-stream"}
POSTS_PER_S = 100
IDLE_S = 20.0
SETTLE_S = 5.0
ROLES = ("api", "worker", "postgres", "valkey")


async def lag(target: Target, posts: int) -> list[float]:
    """Milliseconds of each outcome."""
    took: list[float] = []
    begun = asyncio.Event()

    async def follow(client: httpx2.AsyncClient) -> None:
        async with client.stream(
            "GET", "/v1/outcomes", headers={"Accept": "text/event-stream"}, timeout=None
        ) as answer:
            async for line in answer.aiter_lines():
                begun.set()
                if line.startswith("data: "):
                    at = datetime.fromisoformat(json.loads(line[6:])["outcome"]["at"])
                    took.append((time.time() - at.timestamp()) * 1_000)
                    if len(took) == posts:
                        return

    async def post(client: httpx2.AsyncClient, n: int) -> None:
        body: dict[str, Any] = {"type": "top_up", "wallet": f"player-{n % 1_000}", "asset": ASSET, "amount": "10"}
        answer = await client.post("/v1/commands", json=body, headers={"Idempotency-Key": f"lag-{n}"})
        assert answer.status_code == 202, answer.text

    headers = {"Authorization": f"Bearer {target.api_key}"}
    async with httpx2.AsyncClient(base_url=f"http://{target.host}:{target.port}", headers=headers) as client:
        following = asyncio.create_task(follow(client))
        await begun.wait()
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for n in range(posts):
                await asyncio.sleep(max(0.0, started + n / POSTS_PER_S - time.monotonic()))
                group.create_task(post(client, n))
        await asyncio.wait_for(following, 30)
    return sorted(took)


async def idle(target: Target, roots: Mapping[str, list[int]], streams: int) -> dict[str, float]:
    """The share of one core that each role took while so many streams had nothing to tell."""
    head = (
        f"GET /v1/outcomes HTTP/1.1\r\nHost: {target.host}\r\nAuthorization: Bearer {target.api_key}\r\n"
        "Accept: text/event-stream\r\n\r\n"
    )
    writers: list[asyncio.StreamWriter] = []
    for _ in range(streams):
        reader, writer = await asyncio.open_connection(target.host, target.port)
        writer.write(head.encode())
        await reader.readuntil(b"retry: 1000")
        writers.append(writer)
    await asyncio.sleep(SETTLE_S)
    before = cpu_use(roots)
    await asyncio.sleep(IDLE_S)
    after = cpu_use(roots)
    for writer in writers:
        writer.close()
    return {role: (after.by_role[role] - before.by_role[role]) / (after.at_s - before.at_s) for role in ROLES}


def main(arguments: list[str]) -> Iterator[str]:
    options = argparse.ArgumentParser(prog="python -m benchmarks.feed", description=__doc__)
    options.add_argument("--posts", type=int, default=3_000, help="to measure the lag with (3,000)")
    options.add_argument("--streams", type=int, default=1_000, help="that idle (1,000)")
    asked = options.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bursar-feed-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o711)
        stack = OwnStack(folder, workers=1)
        try:
            stack.start_databases()
            target = stack.start_services()
            target.make_asset(ASSET)
            took = asyncio.run(lag(target, asked.posts))
            yield f"lag at {POSTS_PER_S} commands/s: " + ", ".join(
                f"{name} {took[min(int(len(took) * share), len(took) - 1)]:.1f} ms"
                for name, share in (("p50", 0.5), ("p99", 0.99), ("most", 1.0))
            )
            for streams in (0, asked.streams):
                shares = asyncio.run(idle(target, stack.roots(), streams))
                yield f"{streams:5} idle streams, CPU in % of a core: " + ", ".join(
                    f"{role} {share * 100:.1f}" for role, share in shares.items()
                )
        finally:
            stack.stop()


if __name__ == "__main__":
    for line in main(sys.argv[1:]):
        print(line, flush=True)
