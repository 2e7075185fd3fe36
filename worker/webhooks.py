"""The Celery worker of the queue `webhooks`: its one task, and the courier that answers it.

One process without children (`--pool=solo`): a courier keeps hundreds of requests in the air in one event loop, and a
task only wakes it. So a slow receiver delays no drain, and no other task.
"""

import asyncio
import gc
import logging
import threading
import time
from datetime import timedelta
from functools import partial

import structlog
from celery import signals

from runtime import log as logs
from runtime.celery_app import DELIVER_TASK, make_celery
from runtime.doorbell import COURIERS, Doorbell
from runtime.egress import AllowedHosts
from runtime.metrics import show
from runtime.settings import Settings, settings
from runtime.vault import vault
from worker.courier import IN_THE_AIR_MAX, Courier
from worker.metrics import CourierMetrics
from worker.sending import DEADLINE_S, Sender

log = structlog.get_logger()

STOP_WAIT_S = DEADLINE_S + 3  # what is in the air comes down, and is settled
PAUSE_AFTER_DEFECT_S = 1.0

celery = make_celery(settings(), partitions=1)

_courier: Courier | None = None
_doorbell: Doorbell | None = None
_thread: threading.Thread | None = None


@celery.task(name=DELIVER_TASK)  # pyright: ignore[reportUntypedFunctionDecorator]
def deliver() -> None:
    """Answer the doorbell: something is due, and the courier looks now instead of within a second."""
    assert _courier is not None
    assert _doorbell is not None
    _doorbell.clear([COURIERS])
    _courier.wake()


def make_courier(config: Settings, metrics: CourierMetrics | None = None) -> Courier:
    opened = vault(config)
    assert opened is not None  # worker.serve has looked
    allowed = AllowedHosts.parse(config.webhook_allowed_hosts or "")
    courier = Courier
    if config.otlp_endpoint:
        from runtime.tracing import Tracing
        from worker.traced import TracedCourier

        tracing = Tracing(config.otlp_endpoint, ratio=config.trace_ratio, service="bursar-courier")
        courier = partial(TracedCourier, tracing)
    return courier(
        config.database_url.get_secret_value(),
        opened,
        lambda: Sender(allowed, connections_max=IN_THE_AIR_MAX),
        retention=timedelta(days=config.webhook_retention_days),
        metrics=metrics,
    )


@signals.worker_init.connect
def start(**_: object) -> None:
    global _courier, _doorbell, _thread
    config = settings()
    metrics = CourierMetrics()
    if ports := config.metrics_ports:
        show(metrics.registry, host=config.host, ports=ports)
    _doorbell = Doorbell(celery, config.redis_url.get_secret_value(), rings=metrics.rings)
    _courier = make_courier(config, metrics)
    _thread = threading.Thread(target=_run, args=(_courier,), name="courier", daemon=True)
    _thread.start()


@signals.worker_ready.connect
def spare_what_stays(**_: object) -> None:
    """Full collections, one in a thousand attempts, went through all that the imports made: 100 ms each."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _run(courier: Courier) -> None:
    while not courier.stopping:
        try:
            asyncio.run(courier.run())
        except Exception:
            log.exception("courier.broken", hint="it begins again")
            time.sleep(PAUSE_AFTER_DEFECT_S)


def stop() -> None:
    """What is in the air comes down first; what does not in time is delivered again. No signal of Celery's calls this:
    the shutdown that our SIGTERM asks for sends none."""
    if _courier is not None and _thread is not None:
        _courier.stop()
        _thread.join(STOP_WAIT_S)


@signals.setup_logging.connect
def set_up_logging(**_: object) -> None:
    logs.configure(settings())
    for chatty in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
