"""Announcements: "these commands have their outcome", and whose they were, from a drain to whoever waits for one.

A hint like the doorbell, over Redis publish/subscribe: nothing is stored, and a lost one costs a waiting request at
most the second until it looks by itself (api.waiting, api.feed).
"""

import time
from array import array
from collections.abc import Iterable, Sequence

import redis
import structlog

from runtime.celery_app import KEY_PREFIX
from runtime.doorbell import QUIET_AFTER_FAILURE_S, redis_client

log = structlog.get_logger()

CHANNEL = f"{KEY_PREFIX}outcomes"
CLIENTS_CHANNEL = f"{KEY_PREFIX}feeds"


def pack(seqs: Sequence[int]) -> bytes:
    return array("q", seqs).tobytes()


def unpack(message: bytes) -> Sequence[int]:
    return array("q", message)


class Announcer:
    """The drains' end. One thread uses one Announcer."""

    def __init__(self, redis_url: str) -> None:
        self._redis = redis_client(redis_url)
        self._silent_until = 0.0

    def announce(self, seqs: Sequence[int], clients: Iterable[int] = ()) -> None:
        """Tell whoever listens; `clients`: in whose feeds these outcomes are. Bounded in time, raises nothing."""
        if not seqs or time.monotonic() < self._silent_until:
            return
        try:
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.publish(CHANNEL, pack(seqs))
            pipeline.publish(CLIENTS_CHANNEL, pack(list(clients)))
            pipeline.execute()
        except redis.RedisError as error:
            self._silent_until = time.monotonic() + QUIET_AFTER_FAILURE_S
            log.warning("announcement.lost", error=type(error).__name__, hint="waiting requests look every second")
