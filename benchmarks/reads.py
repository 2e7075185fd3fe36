"""Reads on a large ledger: `python -m benchmarks.reads`.

Makes a database of 5 million entries, a million of them in one wallet (a minute or three), starts an api on it, and
measures over HTTP, one request after the other on one kept connection, what a game server asks: a wallet, its balances
as of a time, the first page of its entries. Deletes everything afterwards. Exit code 3: a p99 is above GOAL_MS.

The ledger is written by SQL as a month of commands would have left it, a second apart; only the balances after each
entry of our own wallets are not kept, and nobody reads them here.
"""

import argparse
import http.client
import os
import random
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import psycopg

from bursar.bench.figures import Spread, spread
from bursar.bench.machine import folder_on_disk
from bursar.bench.stack import OwnStack, Target
from ledger.db import STATEMENT_TIMEOUT_MS

GOAL_MS = 10.0  # p99 of each read
PLAYERS = 10_000  # who share the entries that the large wallet does not have
LARGE = "whale"

# Of five commands in a row, two are of the large wallet. `n` is the command, `v` the version that it made.
FILL = """
SET session_replication_role = replica;
CREATE TEMP TABLE history AS
SELECT n, CASE WHEN n % 5 < 2 THEN 'whale' ELSE 'player-' || ((n / 5) * 3 + n % 5 - 2) % {players} END AS wallet,
       CASE WHEN n % 5 < 2 THEN (n / 5) * 2 + n % 5 ELSE ((n / 5) * 3 + n % 5 - 2) / {players} END + 1 AS v,
       date_trunc('second', now()) - ({commands} - n) * interval '1 second' AS at
FROM generate_series(0, {commands} - 1) n;
INSERT INTO wallets (tenant_id, code, created_at) SELECT 1, wallet, min(at) FROM history GROUP BY wallet;
INSERT INTO accounts (wallet_id, asset_id, posted, version, changed_at)
SELECT w.id, s.id, (h.v + 1) / 2 * 2 - h.v / 2, h.v, h.at
FROM (SELECT wallet, max(v) AS v, max(at) AS at FROM history GROUP BY wallet) h
JOIN wallets w ON w.code = h.wallet CROSS JOIN assets s;
INSERT INTO commands (seq, tenant_id, client_id, partition, type, idempotency_key, request_hash, wallet, asset, amount,
                      reference, metadata, accepted_at)
OVERRIDING SYSTEM VALUE
SELECT n + 1, 1, 1, 0, CASE WHEN v % 2 = 1 THEN 'top_up' ELSE 'spend' END, 'key-' || n, '', wallet, 'gold',
       CASE WHEN v % 2 = 1 THEN 2 ELSE 1 END, 'order-' || n,
       CASE WHEN n % 100 = 0 THEN '{{"item":"sword"}}'::jsonb END, at
FROM history;
INSERT INTO outcomes (seq, status, code, accounts, at) SELECT n + 1, 'applied', 'applied', '[]', at FROM history;
INSERT INTO transfers (seq, tenant_id, partition, at) SELECT n + 1, 1, 0, at FROM history;
INSERT INTO entries (account_id, version, seq, asset_id, amount, balance_after, at)
SELECT a.id, h.v, h.n + 1, a.asset_id, CASE WHEN h.v % 2 = 1 THEN 2 ELSE -1 END, (h.v + 1) / 2 * 2 - h.v / 2, h.at
FROM history h JOIN wallets w ON w.code = h.wallet JOIN accounts a ON a.wallet_id = w.id;
INSERT INTO entries (account_id, version, seq, asset_id, amount, balance_after, at)
SELECT a.id, h.n + 1, h.n + 1, a.asset_id, CASE WHEN h.v % 2 = 1 THEN -2 ELSE 1 END, 0, h.at
FROM history h CROSS JOIN (
    SELECT a.id, a.asset_id FROM accounts a JOIN wallets w ON w.id = a.wallet_id
    WHERE w.code = '@treasury' AND a.shard = 0
) a;
SELECT setval('commands_seq_seq', {commands});
"""


def fill(url: str, entries: int) -> None:
    """Every command of the history leaves two entries."""
    commands = entries // 2
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(FILL.format(commands=commands, players=PLAYERS).encode())
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


def measure(target: Target, paths: Callable[[], str], *, requests: int) -> Spread:
    """So many GETs, one after the other; the first tenth warms up and is not counted. Raises RuntimeError."""
    connection = http.client.HTTPConnection(target.host, target.port, timeout=STATEMENT_TIMEOUT_MS / 1000)
    headers = {"Authorization": f"Bearer {target.api_key}"}
    took_ms: list[float] = []
    for number in range(requests + requests // 10):
        path = paths()
        began_s = time.perf_counter()
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"GET {path}: {answer.status} {body[:300]!r}")
        if number >= requests // 10:
            took_ms.append((time.perf_counter() - began_s) * 1000)
    connection.close()
    found = spread(took_ms)
    assert found is not None
    return found


def reads(seconds: int) -> dict[str, Callable[[], str]]:
    """What is asked, by name. `seconds`: how long the history is."""
    rng = random.Random(1)
    now = datetime.now(UTC)

    def player() -> str:
        return f"player-{rng.randrange(PLAYERS)}"

    def past() -> str:
        return quote((now - timedelta(seconds=rng.random() * seconds * 0.8)).isoformat())

    return {
        "a wallet": lambda: f"/v1/wallets/{player()}",
        "the large wallet": lambda: f"/v1/wallets/{LARGE}",
        "a wallet as of a time": lambda: f"/v1/wallets/{player()}?as_of={past()}",
        "the large wallet as of a time": lambda: f"/v1/wallets/{LARGE}?as_of={past()}",
        "first page of entries": lambda: f"/v1/wallets/{player()}/entries",
        "first page of the large wallet's entries": lambda: f"/v1/wallets/{LARGE}/entries",
        "its last spends before a time": lambda: f"/v1/wallets/{LARGE}/entries?type=spend&to={past()}",
        "its entry of a reference": lambda: (
            f"/v1/wallets/{LARGE}/entries?reference=order-{rng.randrange(seconds // 5) * 5}"
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reads", description=__doc__)
    parser.add_argument("--entries", type=int, default=5_000_000)
    parser.add_argument("--requests", type=int, default=2_000, help="of each kind")
    asked = parser.parse_args()
    folder = folder_on_disk()
    folder.chmod(0o711)  # PostgreSQL's own user must pass through when we are root
    stack = OwnStack(folder, workers=0)
    slow = False
    try:
        stack.start_databases()
        target = stack.start_services()
        target.make_asset("gold")
        began_s = time.monotonic()
        fill(stack.postgres.url, asked.entries)
        print(f"{asked.entries:,} entries in {time.monotonic() - began_s:.0f} s, load {os.getloadavg()[0]:.1f}")
        print(f"{'read':42} {'p50':>6} {'p95':>6} {'p99':>6} {'max':>7}  ms")
        for name, paths in reads(asked.entries // 2).items():
            took = measure(target, paths, requests=asked.requests)
            slow = slow or took.p99 > GOAL_MS
            print(f"{name:42} {took.p50:6.2f} {took.p95:6.2f} {took.p99:6.2f} {took.max:7.2f}", flush=True)
    finally:
        stack.stop()
        shutil.rmtree(folder, ignore_errors=True)
    raise SystemExit(3 if slow else 0)


if __name__ == "__main__":
    main()
