"""The floor: what this PostgreSQL does with the smallest possible double-entry transfer, driven by pgbench.

No HTTP, no JSON, no queue, no inbox, no outcome, no balance after each entry: one call of one function a
transfer. It is the yardstick of the same run on the same server with the same fsync, so that a figure of ours
can be judged on any machine.
"""

import os
import re
import subprocess
from pathlib import Path

import msgspec
import psycopg
from psycopg.conninfo import conninfo_to_dict

from bursar.local.postgres import programs

CLIENTS = 32
SCHEMA = "bursar_bench_floor"  # ours alone, dropped when the floor is known

# Each UPDATE takes its row lock, and the one with the lower id comes first: an order, so no deadlock, and two
# statements fewer than a SELECT … FOR UPDATE before them. The floor is meant to be hard to beat.
SETUP = f"""
DROP SCHEMA IF EXISTS {SCHEMA} CASCADE;
CREATE SCHEMA {SCHEMA};
SET search_path = {SCHEMA};
CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL CHECK (balance >= 0));
CREATE TABLE transfer (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key bigint NOT NULL UNIQUE);
CREATE TABLE entry (transfer bigint NOT NULL, account int NOT NULL, amount bigint NOT NULL);
INSERT INTO account SELECT i, 1000000000000 FROM generate_series(0, {{wallets}}) AS i;
CREATE FUNCTION move(key bigint, source int, target int, minor bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE made bigint;
BEGIN
    INSERT INTO {SCHEMA}.transfer (key) VALUES (move.key) RETURNING id INTO made;
    IF source < target THEN
        UPDATE {SCHEMA}.account SET balance = balance - minor WHERE id = source;
        UPDATE {SCHEMA}.account SET balance = balance + minor WHERE id = target;
    ELSE
        UPDATE {SCHEMA}.account SET balance = balance + minor WHERE id = target;
        UPDATE {SCHEMA}.account SET balance = balance - minor WHERE id = source;
    END IF;
    INSERT INTO {SCHEMA}.entry VALUES (made, source, -minor), (made, target, minor);
END
$$;
RESET search_path;
"""
KEY = r"""
\set n :n + 1
\set key (:run * 1000 + :client_id) * 1000000000 + :n
"""
SPREAD = (
    KEY
    + rf"""
\set wallet random(1, :wallets)
SELECT {SCHEMA}.move(:key, :wallet::int, 0, 1);
"""
)
HOT = (
    KEY
    + rf"""
SELECT {SCHEMA}.move(:key, 1, 2, 1);
"""
)


class Round(msgspec.Struct, frozen=True):
    """One measuring of both floors, in transfers per second."""

    spread_per_s: float  # (a) each of the wallets against one treasury row
    hot_per_s: float  # (b) one pair of accounts


class Floor(msgspec.Struct, frozen=True):
    """The yardstick: the mean over the rounds of this run."""

    spread_per_s: float
    hot_per_s: float
    clients: int
    seconds: float  # of each pgbench run
    rounds: list[Round]


class FloorError(Exception):
    """pgbench could not measure."""


def mean_of(rounds: list[Round], *, seconds: float) -> Floor:
    return Floor(
        spread_per_s=sum(one.spread_per_s for one in rounds) / len(rounds),
        hot_per_s=sum(one.hot_per_s for one in rounds) / len(rounds),
        clients=CLIENTS,
        seconds=seconds,
        rounds=rounds,
    )


def measure(database_url: str, folder: Path, *, wallets: int, seconds: float) -> Round:
    """Both floors on this server, each over `seconds`, in a schema of its own that is gone afterwards.

    Raises FloorError: pgbench is missing or failed, or its transfers do not balance.
    """
    with psycopg.connect(database_url, autocommit=True) as connection:
        try:
            connection.execute(SETUP.format(wallets=wallets).encode())
            connection.execute(f"VACUUM ANALYZE {SCHEMA}.account".encode())
            spread = _pgbench(database_url, folder, SPREAD, run=1, wallets=wallets, seconds=seconds)
            hot = _pgbench(database_url, folder, HOT, run=2, wallets=wallets, seconds=seconds)
            _check_balanced(connection)
        finally:
            connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE".encode())
    return Round(spread_per_s=spread, hot_per_s=hot)


def _pgbench(database_url: str, folder: Path, script: str, *, run: int, wallets: int, seconds: float) -> float:
    file = folder / f"floor-{run}.sql"
    file.write_text(script)
    server = conninfo_to_dict(database_url)
    command = [
        str(programs() / "pgbench"),
        *("--no-vacuum", "--protocol=prepared", f"--client={CLIENTS}", "--jobs=1", f"--file={file}"),
        *(f"--time={max(1, round(seconds))}", "-D", "n=0", "-D", f"run={run}", "-D", f"wallets={wallets}"),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    for option, variable in _PG_VARIABLES.items():
        if server.get(option) is not None:
            environment[variable] = str(server[option])
    try:
        ran = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds + 60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FloorError(f"pgbench did not run: {error}") from error
    return read_rate(ran.stdout, ran.stderr, ran.returncode)


_PG_VARIABLES = {
    "host": "PGHOST",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "dbname": "PGDATABASE",
    "sslmode": "PGSSLMODE",
}


def read_rate(output: str, errors: str, code: int) -> float:
    """Transactions per second from what pgbench printed. Raises FloorError when any client gave up."""
    rate = re.search(r"^tps = ([0-9.]+) \(without initial connection time\)", output, re.MULTILINE)
    failed = re.search(r"^number of failed transactions: (\d+)", output, re.MULTILINE)
    if code != 0 or rate is None or (failed is not None and failed[1] != "0"):
        raise FloorError(f"pgbench gave no rate (code {code}): {output.strip()[-200:]} {errors.strip()[-300:]}")
    return float(rate[1])


def _check_balanced(connection: psycopg.Connection) -> None:
    query = f"SELECT (SELECT sum(amount) FROM {SCHEMA}.entry), (SELECT count(*) FROM {SCHEMA}.transfer) > 0"
    row = connection.execute(query.encode()).fetchone()
    if row != (0, True):
        raise FloorError(f"the floor's own transfers do not balance: {row}")
