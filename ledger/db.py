"""Connections. Two doors to PostgreSQL, each for what it does best:

- SQLAlchemy Core for reads and for registers (wallets, assets, keys): composed queries, pooled connections;
- psycopg itself for the two hot statement sequences, accepting and draining: pipelines and array parameters.

Every session carries limits, so that nothing waits without end. They lie below Celery's time limits.
"""

from collections.abc import Mapping
from typing import Any

import psycopg
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from ledger import columns

LOCK_TIMEOUT_MS = 5_000  # a drain commits within a second; five are a fault elsewhere
STATEMENT_TIMEOUT_MS = 10_000  # no statement of ours takes a second; the client's own timeout is near
IDLE_IN_TRANSACTION_TIMEOUT_MS = 15_000  # a process that froze in a transaction gives up its locks
CONNECT_TIMEOUT_S = 3  # PostgreSQL on the same network answers in milliseconds
READ_POOL_SIZE = 8  # reads take a millisecond each: eight connections serve thousands a second


def sqlalchemy_url(url: str) -> URL:
    """`postgresql://…` as SQLAlchemy wants it, with psycopg for a driver."""
    return make_url(url).set(drivername="postgresql+psycopg")


# A drain and an accept touch rows by key and nothing else: an index lookup per row, whatever the statistics say.
# Without this, a plan made while the tables were empty scans them when they are large (seen: 219 ms for 1 ms).
_BY_KEY = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
}


def _arguments(application: str) -> dict[str, Any]:
    return {
        "application_name": application,
        "connect_timeout": CONNECT_TIMEOUT_S,
        # A server that vanished without a word (no FIN) is noticed within half a minute instead of two hours.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,  # ms; the same for a server that vanished with a statement on its way
    }


def _settings(statement_timeout_ms: int, more: Mapping[str, str] | None = None) -> str:
    """The statement that a session begins with. Not connection options: PgBouncer refuses those, or drops them."""
    settings = {
        "lock_timeout": str(LOCK_TIMEOUT_MS),
        "statement_timeout": str(statement_timeout_ms),
        "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
        "timezone": "UTC",
        "jit": "off",  # no statement of ours is long enough to compile
        **(more or {}),
    }
    return "; ".join(f"SET {name} = '{value}'" for name, value in settings.items())


def _set_at_connect(engine: Engine, statement_timeout_ms: int) -> None:
    @event.listens_for(engine, "connect")
    def set_limits(connection: DBAPIConnection, _: object) -> None:  # pyright: ignore[reportUnusedFunction]
        cursor = connection.cursor()
        cursor.execute(_settings(statement_timeout_ms))
        cursor.close()
        connection.commit()


def connect(url: str, *, application: str, statement_timeout_ms: int = STATEMENT_TIMEOUT_MS) -> psycopg.Connection:
    """A connection for a drain. Statements are prepared at first use: a drain repeats the same few."""
    connection = psycopg.connect(url, autocommit=True, prepare_threshold=0, **_arguments(application))
    try:
        connection.execute(_settings(statement_timeout_ms, _BY_KEY).encode(), prepare=False)
        connection.autocommit = False
    except BaseException:
        connection.close()
        raise
    columns.register(connection)
    return connection


async def connect_async(url: str, *, application: str) -> psycopg.AsyncConnection:
    """A connection for the intake. Autocommit: accepting is one statement, which is its own transaction."""
    connect = psycopg.AsyncConnection.connect
    connection = await connect(url, autocommit=True, prepare_threshold=0, **_arguments(application))
    try:
        await connection.execute(_settings(STATEMENT_TIMEOUT_MS, _BY_KEY).encode(), prepare=False)
    except BaseException:
        await connection.close()
        raise
    columns.register(connection)
    return connection


def async_engine(url: str, *, application: str) -> AsyncEngine:
    """The api's pool for reads and registers."""
    engine = create_async_engine(
        sqlalchemy_url(url),
        pool_size=READ_POOL_SIZE,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S,
        pool_pre_ping=True,  # a restarted PostgreSQL costs a reconnect, not an error
        connect_args=_arguments(application),
    )
    _set_at_connect(engine.sync_engine, STATEMENT_TIMEOUT_MS)
    return engine


def engine(url: str, *, application: str, statement_timeout_ms: int = STATEMENT_TIMEOUT_MS) -> Engine:
    """A small pool for command-line tools. `statement_timeout_ms=0`: no limit, for the audit of a large ledger."""
    engine = create_engine(sqlalchemy_url(url), pool_size=1, max_overflow=1, connect_args=_arguments(application))
    _set_at_connect(engine, statement_timeout_ms)
    return engine
