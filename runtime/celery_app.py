"""The Celery application: a queue per partition, one that every courier hears, and settings that suit a doorbell.

A message says "partition 3 has work", or "webhooks are due", and nothing else. It may be lost, doubled, late or out of
order, and nothing is wrong but a little latency (docs/decisions/0001-doorbell.md). So the settings favour speed and
small failure over delivery guarantees that Redis could not give anyway.
"""

from typing import Any

from celery import Celery
from celery.app.events import Events
from celery.events.dispatcher import EventDispatcher
from kombu.entity import Exchange, Queue
from kombu.transport import redis, virtual

from runtime.settings import Settings

DRAIN_TASK = "wallet.drain"
DELIVER_TASK = "webhooks.deliver"
WEBHOOKS_QUEUE = "webhooks"
KEY_PREFIX = "bursar:"  # before every key in Redis, Celery's and ours, so that a shared server stays tidy

# A drain run ends after a second (worker.drain.RUN_MAX_S); a minute means that it hangs, whatever the reason.
TASK_TIME_LIMIT_S = 60
# Redis on the same network answers within a millisecond. Waiting longer than this delays nothing that matters.
SOCKET_TIMEOUT_S = 2.0
SOCKET_CONNECT_TIMEOUT_S = 1.0


class _Deliveries(redis.QoS):
    """What a worker has fetched and not yet acknowledged.

    An acknowledgement that Redis does not take in time is given up. Kombu's own goes on counting the message as
    fetched, and with a prefetch of one the worker would never fetch another. The message itself comes again after the
    visibility timeout: a doorbell too many.
    """

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        except Exception:
            virtual.QoS.ack(self, delivery_tag)
            raise

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue)
        except Exception:
            virtual.QoS.ack(self, delivery_tag)
            raise


redis.Channel.QoS = _Deliveries


class _Dispatcher(EventDispatcher):
    """Sends what Flower shows, once each.

    Celery's own sends a heartbeat again until Redis takes it, and does so in the worker's event loop: with Redis gone
    nothing else would happen there, not even the end that a SIGTERM asks for.
    """

    def send(self, type: str, *arguments: Any, **fields: Any) -> Any:
        return super().send(type, *arguments, **(fields | {"retry": False}))


class _Events(Events):
    dispatcher_cls = _Dispatcher


def queue_name(partition: int) -> str:
    return f"wallet.{partition}"


def make_celery(settings: Settings, *, partitions: int) -> Celery:
    """Celery as the api (to ring) and the workers (to listen) use it."""
    celery = Celery("bursar", broker=settings.redis_url.get_secret_value(), set_as_current=True, events=_Events)
    names = map(queue_name, range(partitions))
    queues = [Queue(name, Exchange(name, type="direct"), routing_key=name) for name in names]
    # An endpoint has one courier: the one that it has must hear of it. Publish/subscribe; nothing waits in Redis.
    queues.append(Queue(WEBHOOKS_QUEUE, Exchange("couriers", type="fanout"), routing_key=WEBHOOKS_QUEUE))
    transport: dict[str, Any] = {
        "global_keyprefix": KEY_PREFIX,
        "priority_steps": [0],  # one list a queue: fewer keys to BRPOP, strictly first in, first out
        "visibility_timeout": 2 * TASK_TIME_LIMIT_S,
        "socket_timeout": SOCKET_TIMEOUT_S,
        "socket_connect_timeout": SOCKET_CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }
    celery.conf.update(
        task_queues=queues,
        task_default_queue=queue_name(0),
        task_create_missing_queues=False,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_time_limit=TASK_TIME_LIMIT_S,
        task_publish_retry=True,
        task_publish_retry_policy={"max_retries": 1, "interval_start": 0.05, "interval_max": 0.05},
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,  # what Flower shows; a doorbell a second is little to report
        worker_soft_shutdown_timeout=5.0,  # a drain run takes at most one
        worker_hijack_root_logger=False,
        worker_max_tasks_per_child=None,
        broker_transport_options=transport,
        broker_connection_timeout=SOCKET_CONNECT_TIMEOUT_S,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_limit=2,
        task_serializer="json",
        accept_content=["json"],
        timezone="UTC",
    )
    return celery
