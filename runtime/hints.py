"""What stands in Redis: whether it answers, and how many doorbells wait there. It may be gone, and nothing is lost."""

from dataclasses import dataclass

import redis

from runtime.celery_app import KEY_PREFIX, WEBHOOKS_QUEUE, queue_name
from runtime.doorbell import redis_client


@dataclass(slots=True, frozen=True)
class RedisState:
    """`waiting`: doorbells that nobody has answered, of drains and couriers; `fault`: why it does not answer."""

    answers: bool
    version: str | None = None
    waiting: int = 0
    fault: str | None = None


def redis_state(url: str, *, partitions: int) -> RedisState:
    """Ask Redis, for no longer than a hint is worth."""
    names = [*map(queue_name, range(partitions)), WEBHOOKS_QUEUE]
    try:
        with redis_client(url) as client:
            pipeline = client.pipeline(transaction=False)
            pipeline.info("server")
            for name in names:
                pipeline.llen(KEY_PREFIX + name)
            server, *lengths = pipeline.execute()
    except (redis.RedisError, OSError) as error:
        return RedisState(False, fault=str(error).strip() or type(error).__name__)
    return RedisState(True, str(server.get("valkey_version") or server.get("redis_version")), sum(lengths))
