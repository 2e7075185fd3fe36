"""Drainers in this process, on real servers, and the doorbell's queue to look into."""

import time
from collections.abc import Callable, Generator, Sequence

import psycopg
import pytest
import redis
from celery import Celery
from pydantic import SecretStr

from runtime.announce import Announcer
from runtime.celery_app import KEY_PREFIX, make_celery, queue_name
from runtime.doorbell import Doorbell, flag_key
from runtime.settings import Settings
from tests.books import ALL, PARTITIONS, Bank
from tests.books import bank as bank
from tests.books import own_bank as own_bank
from worker.drain import Drainer
from worker.metrics import DrainMetrics


class Hall:
    """Where the doorbells hang: a Redis, and what stands in it."""

    def __init__(self, redis_url: str) -> None:
        self.url = redis_url
        self.redis = redis.Redis.from_url(redis_url, socket_timeout=5)
        self.celery = self.another_celery()

    def another_celery(self) -> Celery:
        """As another process has one."""
        # The other fields come from the environment.
        settings = Settings(database_url=SecretStr(""), redis_url=SecretStr(self.url))  # pyright: ignore[reportCallIssue]
        return make_celery(settings, partitions=PARTITIONS)

    def doorbell(self) -> Doorbell:
        return Doorbell(self.celery, self.url)

    def messages(self, partition: int) -> int:
        """Doorbells that wait for a worker."""
        length = self.redis.llen(f"{KEY_PREFIX}{queue_name(partition)}")
        assert isinstance(length, int)
        return length

    def all_messages(self) -> int:
        return sum(map(self.messages, ALL))

    def flags(self) -> set[int]:
        """The partitions for which ringing is free at the moment."""
        return {partition for partition in ALL if self.redis.exists(flag_key(partition))}

    def close(self) -> None:
        self.redis.close()
        self.celery.close()


class Workshop:
    """Makes drainers for a bank and closes them in the end."""

    def __init__(self, hall: Hall) -> None:
        self.hall = hall
        self._made: list[Drainer] = []

    def drainer(
        self,
        bank: Bank,
        partitions: Sequence[int] = ALL,
        *,
        doorbell: Doorbell | None = None,
        announcer: Announcer | None = None,
        metrics: DrainMetrics | None = None,
    ) -> Drainer:
        doorbell, announcer = doorbell or self.hall.doorbell(), announcer or Announcer(self.hall.url)
        made = Drainer(bank.url, doorbell, announcer, partitions, metrics=metrics)
        self._made.append(made)
        return made

    def close(self) -> None:
        for drainer in self._made:
            drainer.close()


@pytest.fixture
def hall(redis_url: str) -> Generator[Hall]:
    made = Hall(redis_url)
    yield made
    made.close()


@pytest.fixture
def workshop(hall: Hall) -> Generator[Workshop]:
    made = Workshop(hall)
    yield made
    made.close()


def eventually(holds: Callable[[], bool], *, within_s: float = 5.0) -> None:
    """Returns as soon as it holds; fails where it does not in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError(f"did not come true within {within_s} s")


def terminate(bank: Bank, connection: psycopg.Connection) -> None:
    """End a session as an administrator would, and wait until it is gone."""
    pid = connection.info.backend_pid
    bank.rows("SELECT pg_terminate_backend(%s)", pid)
    eventually(lambda: not bank.rows("SELECT FROM pg_stat_activity WHERE pid = %s", pid))
