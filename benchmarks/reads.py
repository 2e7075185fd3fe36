"""How long a read takes on a ledger with a past: `python -m benchmarks.reads` (needs `pip install 'bursar[local]'`).

Starts a PostgreSQL, a Valkey and an api of its own, writes a past into the database (5 million entries, 1 million of
them in one wallet; some three minutes), asks over one keep-alive connection, one request after the other, and deletes
everything. The past is written with SQL, as the drains would have written it: every balance, version and time follows.
"""

import argparse
import http.client
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import LiteralString
from urllib.parse import urlencode

import psycopg

from bursar.bench.stack import OwnStack, Target
from bursar.local.places import LOOPBACK
from ledger.partitions import partition_of

ASSET = "gold_coins"
WHALE = "whale"
SMALL_WALLETS = 50_000
COMMANDS = 2_500_000  # two entries each; two in five are the whale's
BEGAN = datetime(2025, 1, 1, tzinfo=UTC)
STEP = timedelta(seconds=12)  # from one command to the next: eleven months in all
ENDED = BEGAN + STEP * COMMANDS

# Of each wallet's commands every tenth is a top-up of 100, and the nine after it spend 10 each. Every hundred
# thousandth of the whale's is a bonus instead. One in five has a reference of its own, every top-up the same one; one
# in ten has metadata.
FILL: tuple[LiteralString, ...] = (
    """
    INSERT INTO wallets (tenant_id, code, created_at) SELECT 1, code, %(began)s FROM bench_wallets ORDER BY n
    """,
    """
    INSERT INTO accounts (wallet_id, asset_id) SELECT w.id, s.id FROM bench_wallets b
    JOIN wallets w ON w.tenant_id = 1 AND w.code = b.code JOIN assets s ON s.tenant_id = 1 AND s.code = %(asset)s
    ORDER BY b.n
    """,
    """
    CREATE UNLOGGED TABLE bench_past AS
    SELECT n, account_id, wallet, partition, k, at,
           CASE WHEN k %% 10 > 0 THEN 'spend' WHEN wallet = %(whale)s AND k %% 100000 = 0 THEN 'bonus' ELSE 'top_up' END
               AS type,
           CASE WHEN k %% 10 = 0 THEN 100 ELSE -10 END AS amount,
           10 * (k / 10) + 100 - 10 * (k %% 10) AS balance
    FROM (
        SELECT s.n, a.id AS account_id, b.code AS wallet, b.partition, %(began)s + s.n * %(step)s AS at,
               CASE WHEN b.n = 0 THEN s.n / 5 * 2 + s.n %% 5 ELSE (s.n / 5 * 3 + s.n %% 5 - 2) / %(small)s END AS k
        FROM generate_series(0, %(commands)s - 1) AS s (n)
        JOIN bench_wallets b
            ON b.n = CASE WHEN s.n %% 5 < 2 THEN 0 ELSE 1 + (s.n / 5 * 3 + s.n %% 5 - 2) %% %(small)s END
        JOIN wallets w ON w.tenant_id = 1 AND w.code = b.code JOIN accounts a ON a.wallet_id = w.id
    ) past
    """,
    """
    INSERT INTO commands (
        seq, tenant_id, client_id, partition, type, idempotency_key, request_hash, wallet, asset, amount, reference,
        metadata, accepted_at
    ) OVERRIDING SYSTEM VALUE
    SELECT n + 1, 1, 1, partition, type, 'past-' || n, decode(md5(n::text), 'hex'), wallet, %(asset)s, abs(amount),
           CASE WHEN type = 'top_up' THEN 'daily' WHEN n %% 10 IN (1, 3) THEN 'order-' || n END,
           CASE WHEN n %% 20 IN (1, 3) THEN jsonb_build_object('item', 'sword', 'match', 'm-' || n / 100) END, at
    FROM bench_past ORDER BY n
    """,
    """
    INSERT INTO transfers (seq, tenant_id, partition, at) SELECT n + 1, 1, partition, at FROM bench_past ORDER BY n
    """,
    """
    INSERT INTO outcomes (seq, status, code, at) SELECT n + 1, 'applied', 'applied', at FROM bench_past ORDER BY n
    """,
    """
    INSERT INTO entries (account_id, version, seq, asset_id, amount, balance_after, at)
    SELECT account_id, version, n + 1, (SELECT id FROM assets WHERE tenant_id = 1 AND code = %(asset)s),
           amount, balance, at
    FROM (
        SELECT n, account_id, k + 1 AS version, amount, balance, at FROM bench_past
        UNION ALL
        SELECT p.n, a.id, row_number() OVER own, -p.amount, sum(-p.amount) OVER own, p.at
        FROM bench_past p
        JOIN wallets w ON w.tenant_id = 1
            AND w.code = CASE p.type WHEN 'spend' THEN '@revenue' WHEN 'bonus' THEN '@bonus' ELSE '@treasury' END
        JOIN accounts a ON a.wallet_id = w.id AND a.shard = p.partition
        WINDOW own AS (PARTITION BY a.id ORDER BY p.n)
    ) entry ORDER BY n
    """,
    """
    UPDATE accounts a SET posted = e.balance_after, version = e.version, changed_at = e.at
    FROM (SELECT account_id, max(version) AS version FROM entries GROUP BY account_id) last
    JOIN entries e USING (account_id, version) WHERE a.id = last.account_id
    """,
    "SELECT setval('commands_seq_seq', %(commands)s)",
    "DROP TABLE bench_past",
    "DROP TABLE bench_wallets",
)


def fill(url: str) -> None:
    """The past. Triggers sleep meanwhile: what they would check, `bursar audit` can."""
    with psycopg.connect(url, autocommit=True) as connection:
        partitions = connection.execute("SELECT count(*) FROM partitions").fetchone()
        assert partitions is not None
        connection.execute("SET session_replication_role = replica")
        connection.execute("SET work_mem = '256MB'")
        connection.execute("CREATE UNLOGGED TABLE bench_wallets (n integer PRIMARY KEY, code text, partition smallint)")
        with connection.cursor() as cursor, cursor.copy("COPY bench_wallets FROM STDIN") as copy:
            for n in range(SMALL_WALLETS + 1):
                code = f"player-{n}" if n else WHALE
                copy.write_row((n, code, partition_of(1, code, partitions[0])))
        connection.execute("ANALYZE bench_wallets")
        values = {"asset": ASSET, "whale": WHALE, "small": SMALL_WALLETS, "commands": COMMANDS}
        for statement in FILL:
            psycopg.ClientCursor(connection).execute(statement, {**values, "began": BEGAN, "step": STEP})
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


def any_time() -> str:
    return (BEGAN + (ENDED - BEGAN) * random.random()).isoformat().replace("+00:00", "Z")


def small() -> str:
    return f"player-{random.randint(1, SMALL_WALLETS)}"


def reads() -> dict[str, Callable[[], str]]:
    """What is asked, by name: a path that is another one each time."""
    found: dict[str, Callable[[], str]] = {}
    for name, wallet in (("1,000,000 entries", lambda: WHALE), ("30 entries", small)):

        def entries(wallet: Callable[[], str] = wallet, **which: Callable[[], str]) -> Callable[[], str]:
            return lambda: f"/v1/wallets/{wallet()}/entries?{urlencode({key: of() for key, of in which.items()})}"

        found |= {
            f"wallet, {name}": lambda wallet=wallet: f"/v1/wallets/{wallet()}",
            f"as_of, {name}": lambda wallet=wallet: f"/v1/wallets/{wallet()}?{urlencode({'as_of': any_time()})}",
            f"entries, {name}": entries(),
            f"entries by asset, {name}": entries(asset=lambda: ASSET),
            f"entries before a time, {name}": entries(to=any_time),
            f"entries since a time, {name}": entries(**{"from": any_time}),
            f"entries of a common type, {name}": entries(type=lambda: "spend"),
            f"entries of a rare type, {name}": entries(type=lambda: "bonus"),
            f"entries of one reference, {name}": entries(
                reference=lambda: f"order-{random.randrange(1, COMMANDS, 10)}"
            ),
            f"entries of a common reference, {name}": entries(reference=lambda: "daily"),
            f"entries of rare metadata, {name}": entries(
                metadata=lambda: json.dumps({"match": f"m-{random.randrange(COMMANDS // 100)}"})
            ),
            f"entries of common metadata, {name}": entries(metadata=lambda: '{"item":"sword"}'),
        }
    return found


def timed(target: Target, path: Callable[[], str], times: int) -> list[float]:
    """Milliseconds of each of so many requests over one connection, after a tenth as many to warm up."""
    connection = http.client.HTTPConnection(target.host, target.port)
    headers = {"Authorization": f"Bearer {target.api_key}"}
    took: list[float] = []
    for _ in range(times + times // 10):
        asked = path()
        start = time.perf_counter()
        connection.request("GET", asked, headers=headers)
        answer = connection.getresponse()
        answer.read()
        took.append((time.perf_counter() - start) * 1_000)
        assert answer.status == 200, (asked, answer.status)
    connection.close()
    return took[times // 10 :]


def main(arguments: list[str]) -> Iterator[str]:
    options = argparse.ArgumentParser(prog="python -m benchmarks.reads", description=__doc__)
    options.add_argument("--times", type=int, default=1_000, help="requests of each kind (1,000)")
    options.add_argument("--only", default="", help="kinds with this in their name")
    options.add_argument("--keep", type=Path, help="keep the database here, or use the one that is there")
    asked = options.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bursar-reads-") as temporary:
        folder = asked.keep or Path(temporary)
        Path(temporary).chmod(0o711)
        filled = (folder / "postgres").exists()
        stack = OwnStack(folder, workers=0)
        try:
            stack.start_databases()
            target = stack.start_services()
            if not filled:
                target.make_asset(ASSET)
                fill(stack.postgres.url)
            yield f"{'':48} {'least':>7} {'p50':>7} {'p99':>7}  ms at {LOOPBACK}, {asked.times} each"
            for name, path in reads().items():
                if asked.only in name:
                    took = sorted(timed(target, path, asked.times))
                    yield f"{name:48} {took[0]:7.1f} {took[len(took) // 2]:7.1f} {took[len(took) * 99 // 100]:7.1f}"
        finally:
            stack.stop(keep=asked.keep is not None)


if __name__ == "__main__":
    for line in main(sys.argv[1:]):
        print(line, flush=True)
