"""The doorbell: "this partition has work", from whoever accepted a command to whichever worker is free.

A hint, never a promise. While one is waiting for a partition, or a worker is serving it, ringing again is free: a
flag in Redis says so, which the worker clears before its last look. What gets lost, the workers' look-out finds.

Ringing must cost a request nothing, also when Redis is slow or gone. So it only notes the partition; one thread does
the talking, and a ring that it cannot deliver is dropped.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable

import redis
import redis.asyncio
import structlog
from celery import Celery
from prometheus_client import CollectorRegistry
from redis.client import Pipeline

from runtime.celery_app import DELIVER_TASK, DRAIN_TASK, KEY_PREFIX, WEBHOOKS_QUEUE, queue_name
from runtime.metrics import Rings

log = structlog.get_logger()

FLAG_TTL_MS = 2_000  # a doorbell that nobody answered for this long is taken for lost; ringing again costs one message
REDIS_TIMEOUT_S = 0.25  # a hint that takes longer than the look-out is no use

BEAT_S = 0.005  # between two messages of one process: the worker who answers the first serves every partition it can
QUIET_AFTER_FAILURE_S = 1.0  # how long Redis is left alone after it failed; meanwhile the look-out serves


COURIERS = -1  # in the place of a partition: webhooks are due


def flag_key(partition: int) -> str:
    return f"{KEY_PREFIX}doorbell:{partition}"


def redis_client(url: str) -> redis.Redis:
    """A client whose every call ends within a fraction of a second."""
    return redis.Redis.from_url(
        url,
        socket_timeout=REDIS_TIMEOUT_S,
        socket_connect_timeout=REDIS_TIMEOUT_S,
        socket_keepalive=True,
        health_check_interval=0,
        retry=None,
    )


def impatient_client(url: str) -> redis.asyncio.Redis:
    """Its counterpart for an event loop."""
    return redis.asyncio.Redis.from_url(
        url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S, retry=None
    )


class Doorbell:
    """Rings from any thread or event loop; talks to Redis from one thread of its own, started at the first ring."""

    def __init__(self, celery: Celery, redis_url: str, *, rings: Rings | None = None) -> None:
        self._celery = celery
        self._rings = rings or Rings(CollectorRegistry())
        self._redis = redis_client(redis_url)
        self._wanted: set[int] = set()  # bounded by the number of partitions
        self._wake = threading.Event()
        self._lock = threading.Lock()  # held for nanoseconds
        self._thread: threading.Thread | None = None
        self._silent_until = 0.0

    def ring(self, partition: int) -> None:
        """A hint; the look-out finds what it loses. Returns at once, raises nothing."""
        self.ring_all((partition,))

    def ring_all(self, partitions: Iterable[int]) -> None:
        with self._lock:
            self._wanted.update(partitions)
        self._wake.set()
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="doorbell", daemon=True)
                    self._thread.start()

    def silence(self, partitions: Iterable[int]) -> None:
        """A worker has come: while it serves these partitions, ringing for them is free."""
        self._bounded(lambda pipeline: [pipeline.set(flag_key(p), b"1", px=FLAG_TTL_MS) for p in partitions])

    def clear(self, partitions: Iterable[int]) -> None:
        """Let the next ring through. Call before the last look: what comes after the look must ring again."""
        self._bounded(lambda pipeline: pipeline.delete(*map(flag_key, partitions)))

    def _bounded(self, add: Callable[[Pipeline], object]) -> None:
        if time.monotonic() < self._silent_until:
            return
        try:
            pipeline = self._redis.pipeline(transaction=False)
            add(pipeline)
            pipeline.execute()
        except redis.RedisError as error:
            self._failed(error)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            if (silence := self._silent_until - time.monotonic()) > 0:
                time.sleep(silence)
            self._wake.clear()
            with self._lock:
                wanted, self._wanted = self._wanted, set()
            try:
                self._deliver(wanted)
            except Exception as error:  # kombu raises what it pleases; a hint must never take its thread down
                self._failed(error)
            time.sleep(BEAT_S)

    def _deliver(self, wanted: set[int]) -> None:
        """Ring for one partition; the others keep until the next beat, when the worker who came serves them too."""
        partitions = list(wanted)
        flags = self._redis.mget(map(flag_key, partitions))
        silent = [partition for partition, flag in zip(partitions, flags, strict=True) if flag is None]
        if not silent:
            return
        partition = random.choice(silent)
        if self._redis.set(flag_key(partition), b"1", nx=True, px=FLAG_TTL_MS):
            if partition == COURIERS:
                self._celery.send_task(DELIVER_TASK, queue=WEBHOOKS_QUEUE, ignore_result=True)
            else:
                self._celery.send_task(DRAIN_TASK, args=(partition,), queue=queue_name(partition), ignore_result=True)
            self._rings.sent()
        if len(silent) > 1:
            self.ring_all(other for other in silent if other != partition)

    def _failed(self, error: Exception) -> None:
        self._silent_until = time.monotonic() + QUIET_AFTER_FAILURE_S
        self._rings.lost()
        log.warning("doorbell.lost", error=type(error).__name__, hint="the workers' look-out serves meanwhile")
