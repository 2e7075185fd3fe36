"""The same works on two states of the code, by turns: `python -m benchmarks.compare --base 37deec2`.

One run says little on a machine that others use, too. Here the base (any git ref, unpacked beside this checkout) and
the checkout itself run `bursar bench` one after the other, base first in odd rounds and last in even ones, each with
its own tree's bench, servers and workers, and the ratio is taken round by round: what slows the machine down for
minutes slows both. Both run on this Python and its packages.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

CHECKOUT = Path(__file__).resolve().parent.parent
WORKS = "drain,batch,singles"
SERVERS = ("api", "worker", "postgres", "valkey")


class Measured(NamedTuple):
    """One work of one run."""

    per_s: float  # applied; of `drain`: drained
    cpu_us: float  # of the servers, for each command


class Line(NamedTuple):
    """One work, all rounds. Ratios are checkout over base: above 1 is faster, or dearer."""

    work: str
    base: Measured  # medians
    checkout: Measured
    speed: float  # median of the rounds' ratios
    slowest: float
    fastest: float
    cpu: float  # median of the rounds' ratios


class Failed(Exception):
    """No comparison; the sentence says why."""


def unpack(ref: str, folder: Path) -> Path:
    """The tree of a git ref in `folder`: nothing of it stays behind in the repository. Raises Failed."""
    packed = subprocess.run(["git", "archive", ref], cwd=CHECKOUT, capture_output=True, check=False)
    if packed.returncode != 0:
        raise Failed(f"git archive {ref}: {packed.stderr.decode(errors='replace').strip()}")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def bench(tree: Path, options: Sequence[str]) -> dict[str, Measured]:
    """`bursar bench` of this tree. Raises Failed, also where its figures do not count."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    where = [sys.executable, "-c", "import ledger; print(ledger.__file__)"]
    found = subprocess.run(where, cwd=tree, env=environment, capture_output=True, text=True, check=False).stdout
    if not found.startswith(str(tree)):
        raise Failed(f"Python finds {found.strip() or 'no ledger'} and not the code in {tree}")
    ran = subprocess.run(
        [sys.executable, "-m", "bursar", "bench", "--json", "--no-floor", *options],
        cwd=tree, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ran.returncode != 0:
        raise Failed(f"bursar bench in {tree} ended with {ran.returncode}:\n{ran.stderr[-1500:]}{ran.stdout[-1500:]}")
    return {work["name"]: measured(work) for work in json.loads(ran.stdout)["works"]}


def measured(work: Mapping[str, Any]) -> Measured:
    """From a work of the report."""
    figures = work.get("drain") or work["window"]
    per_s = figures["per_s"] if work.get("drain") else figures["applied_per_s"]
    used: dict[str, float] = work["cpu"]["us_per_command"] if work.get("cpu") else {}
    return Measured(per_s, sum(used.get(role, 0.0) for role in SERVERS))


def lines(rounds: Sequence[tuple[Mapping[str, Measured], Mapping[str, Measured]]]) -> list[Line]:
    """What `rounds` of (base, checkout) come to, work by work."""
    found: list[Line] = []
    for work in rounds[0][0]:
        pairs = [(base[work], checkout[work]) for base, checkout in rounds]
        speeds = [checkout.per_s / base.per_s for base, checkout in pairs]
        costs = [checkout.cpu_us / base.cpu_us for base, checkout in pairs if base.cpu_us]
        base, checkout = (
            Measured(median(one.per_s for one in side), median(one.cpu_us for one in side))
            for side in ([base for base, _ in pairs], [checkout for _, checkout in pairs])
        )
        cost = median(costs) if costs else float("nan")
        found.append(Line(work, base, checkout, median(speeds), min(speeds), max(speeds), cost))
    return found


def table(found: Sequence[Line]) -> str:
    rows = [f"{'work':10} {'base/s':>9} {'here/s':>9}   ratio (spread)      {'µs CPU base':>12} {'here':>6}   ratio"]
    rows += [
        f"{line.work:10} {line.base.per_s:9,.0f} {line.checkout.per_s:9,.0f}   "
        f"{line.speed:.3f} ({line.slowest:.2f} to {line.fastest:.2f}) "
        f"{line.base.cpu_us:12.1f} {line.checkout.cpu_us:6.1f}   {line.cpu:.3f}"
        for line in found
    ]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--base", required=True, help="git ref to compare this checkout with")
    parser.add_argument("--works", default=WORKS, help=f"works that both benches know; {WORKS} unless said")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", default="6", help="length of a window")
    parser.add_argument("--drain", default="50000", help="commands of the work drain")
    asked = parser.parse_args()
    options = ["--only", asked.works, "--seconds", asked.seconds, "--warmup", "1", "--drain", asked.drain]
    rounds: list[tuple[dict[str, Measured], dict[str, Measured]]] = []
    try:
        with tempfile.TemporaryDirectory(prefix="bursar-base-") as folder:
            base = unpack(asked.base, Path(folder))
            for number in range(1, asked.rounds + 1):
                order = (base, CHECKOUT) if number % 2 else (CHECKOUT, base)
                results = {tree: bench(tree, options) for tree in order}
                rounds.append((results[base], results[CHECKOUT]))
                print(f"round {number} of {asked.rounds}, load {os.getloadavg()[0]:.1f}\n{table(lines(rounds[-1:]))}")
    except Failed as failed:
        raise SystemExit(str(failed)) from failed
    print(f"medians of {asked.rounds} rounds\n{table(lines(rounds))}")


if __name__ == "__main__":
    main()
