"""What idle streams cost: `python -m benchmarks.feed` (needs `pip install 'bursar[local]'`).

Starts a stack of its own. So many event streams open on one api process and nothing to tell; the CPU of every process
beside that of the same stack with none. The lag of a stream is `bursar bench --only feed`.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from bursar.bench.machine import cpu_use
from bursar.bench.stack import OwnStack, Target

IDLE_S = 20.0
SETTLE_S = 5.0
ROLES = ("api", "worker", "postgres", "valkey")


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
    options.add_argument("--streams", type=int, default=1_000, help="that idle (1,000)")
    asked = options.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bursar-feed-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o711)
        stack = OwnStack(folder, workers=1)
        try:
            stack.start_databases()
            target = stack.start_services()
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
