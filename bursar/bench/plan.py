"""What is asked of the bench and of a load generator, and what the generator tells when it is done."""

from typing import Literal

import msgspec

from bursar.bench.figures import Spread

Work = Literal[
    "singles", "batch", "hot", "spends", "lots", "mixed", "offered", "drain", "memory",
    "feed", "webhooks", "deliveries", "owing", "broken", "watched",
]  # fmt: skip
Kind = Literal["fund", "fund_lots", "mix", "spends", "mixed"]
Generator = Literal["auto", "wrk", "bundled"]  # auto: wrk where it is installed and able, else the bundled one

READY_MARK = "bursar-bench ready"  # printed by a generator that has its connections and begins
RESULT_MARK = "bursar-bench "  # leads the line of a generator's result
LOT_WALLET_EVERY = 10  # in works with lots: one wallet in ten holds them
WALLET_DIGITS = 6  # wallet names of one width, so that every request of a kind has the same length


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One load.

    Closed loop: every connection posts again as soon as it is answered. Open loop (`rate`): posts leave on
    time whatever the answers do, and a latency counts from the moment the post was due.
    """

    host: str
    port: int
    api_key: str
    asset: str
    wallet_prefix: str
    wallets: int
    nonce: str  # leads every idempotency key: unique to this load
    connections: int
    duration_s: float
    kind: Kind = "mix"  # what each of them is: bursar.bench.posts
    amount: int = 1  # minor units
    batch: int = 1  # commands per post; 1: single-command posts
    posts_max: int | None = None  # stop after as many; None: at the end of duration_s
    rate: float | None = None  # posts per second; None: closed loop
    wait_every: int = 0  # every n-th post carries `Prefer: wait`; 0: none does


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the generator saw from its side of the wire."""

    generator: str
    posts: int  # answered with 200 or 202
    commands: int  # in those posts, without the items refused one by one
    errors: dict[str, int]  # HTTP status or kind of failure → how many
    accept_ms: Spread | None  # posts without `Prefer: wait`: from sending (open loop: from being due) to the answer
    outcome_ms: Spread | None  # posts with it that came back with an outcome
    late: int  # open loop: posts that found no free connection when due


def wallet_name(prefix: str, number: int) -> str:
    return f"{prefix}{number:0{WALLET_DIGITS}d}"
