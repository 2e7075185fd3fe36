"""The Celery worker: its one task, and what each of its processes sets up after the fork."""

import gc
import logging
import os
import threading
from functools import partial
from typing import Any
from uuid import UUID

from celery import Task, signals

from runtime import log
from runtime.announce import Announcer
from runtime.celery_app import DRAIN_TASK, make_celery
from runtime.doorbell import Doorbell
from runtime.metrics import show
from runtime.settings import settings
from worker.drain import Drainer
from worker.lookout import Lookout
from worker.metrics import DrainMetrics

# `bursar worker` reads the number of partitions from the database and which of them to serve from its command line.
PARTITIONS = int(os.environ.get("BURSAR_WORKER_PARTITIONS", "1"))
SERVES = [int(p) for p in os.environ.get("BURSAR_WORKER_SERVES", "").split(",") if p] or list(range(PARTITIONS))

celery = make_celery(settings(), partitions=PARTITIONS)

_drainer: Drainer | None = None
_draining = threading.Lock()


@celery.task(name=DRAIN_TASK, bind=True)  # pyright: ignore[reportUntypedFunctionDecorator]
def drain(self: Task[Any, Any], partition: int) -> None:
    """Answer a doorbell. Which partition rang does not matter: the run serves all of them, by turns."""
    assert _drainer is not None
    with _draining:
        _drainer.run(task_id=UUID(self.request.id))


@signals.worker_process_init.connect
def start(**_: Any) -> None:
    """In each child, after the fork: connections are never shared with the parent."""
    global _drainer
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # a drain makes tens of thousands of short-lived objects and no cycles
    url, redis_url = settings().database_url.get_secret_value(), settings().redis_url.get_secret_value()
    metrics = DrainMetrics()
    if ports := settings().metrics_ports:
        show(metrics.registry, host=settings().host, ports=ports)
    doorbell = Doorbell(celery, redis_url, rings=metrics.rings)
    drainer = Drainer
    if endpoint := settings().otlp_endpoint:
        from runtime.tracing import Tracing
        from worker.traced import TracedDrainer

        drainer = partial(TracedDrainer, Tracing(endpoint, ratio=settings().trace_ratio, service="bursar-worker"))
    _drainer = drainer(url, doorbell, Announcer(redis_url), SERVES, metrics=metrics)
    Lookout(drainer(url, doorbell, Announcer(redis_url), SERVES, metrics=metrics), busy=_draining.locked).start()


@signals.setup_logging.connect
def logs(**_: Any) -> None:
    log.configure(settings())
    for chatty in ("celery.worker.strategy", "celery.app.trace"):  # two lines a doorbell; Flower shows the same
        logging.getLogger(chatty).setLevel(logging.WARNING)
