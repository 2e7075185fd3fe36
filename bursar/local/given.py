"""Servers that were given by a URL: wait until they answer, and say where they are without their passwords."""

from collections.abc import Callable
from urllib.parse import urlsplit

import psycopg
import redis

from bursar.local.errors import LocalError
from bursar.local.processes import wait_until

TIMEOUT_S = 30.0  # a server that was given may be starting, too


def wait_for_database(url: str) -> str:
    """Where the PostgreSQL of `url` is, once it answers. Raises LocalError if it does not."""

    def ask() -> None:
        psycopg.connect(url, connect_timeout=5).close()

    return _wait(ask, "BURSAR_DATABASE_URL", url, schemes=("postgresql", "postgres"))


def wait_for_redis(url: str) -> str:
    """Where the Redis of `url` is, once it answers. Raises LocalError if it does not."""

    def ask() -> None:
        with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5) as client:
            client.ping()

    return _wait(ask, "BURSAR_REDIS_URL", url, schemes=("redis", "rediss"))


def _wait(ask: Callable[[], None], variable: str, url: str, *, schemes: tuple[str, ...]) -> str:
    # In our own words: the drivers' messages about a URL repeat it with its password.
    unusable = LocalError(f"{variable} is no usable URL; it should look like {schemes[0]}://user:password@host:port/…")
    trouble = ""

    def answers() -> bool:
        nonlocal trouble
        try:
            ask()
        except (psycopg.ProgrammingError, ValueError):
            raise unusable from None
        except (psycopg.Error, redis.RedisError) as error:
            trouble = str(error).strip().splitlines()[-1]
            return False
        return True

    try:
        place = urlsplit(url)
        where = f"{place.hostname}:{place.port}" if place.port else place.hostname
    except ValueError:
        raise unusable from None
    if place.scheme not in schemes or not where:
        raise unusable
    if not wait_until(answers, timeout_s=TIMEOUT_S):
        raise LocalError(f"{variable} names a server that did not answer within {TIMEOUT_S:.0f} s: {trouble}")
    return f"{where}, as {variable} says"
