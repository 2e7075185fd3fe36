"""`bursar worker`: Celery workers with the options that a doorbell wants."""

import os
import socket
import time
from collections.abc import Iterable

import psycopg
import structlog

from ledger import db
from runtime.celery_app import WEBHOOKS_QUEUE, queue_name
from runtime.log import configure
from runtime.settings import settings

log = structlog.get_logger()

DATABASE_WAIT_S = 2.0


def serve(*, partitions: str | None, concurrency: int, name: str | None) -> None:
    """Work until SIGTERM (ends the run under way, at most a second) or a second SIGTERM (rolls it back)."""
    configure(settings())
    count = _partition_count(settings().database_url.get_secret_value())
    named = (partitions or ",".join(map(str, range(count)))).split(",")
    if not all(name.isascii() and name.isdigit() and int(name) < count for name in named):
        raise SystemExit(f"--partitions takes numbers from 0 to {count - 1}, as in 0,3,5; not {partitions}.")
    serves = sorted(set(map(int, named)))
    # What worker.app reads when Celery imports it, here and in every child.
    os.environ["BURSAR_WORKER_PARTITIONS"] = str(count)
    os.environ["BURSAR_WORKER_SERVES"] = ",".join(map(str, serves))
    os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")  # SIGTERM asks for Celery's soft shutdown, which is bounded

    from worker.app import celery

    options = ["--pool=prefork", f"--concurrency={concurrency}"]
    celery.worker_main(_arguments(*options, queues=map(queue_name, serves), name=name))


def serve_webhooks(*, name: str | None) -> None:
    """Deliver webhooks until SIGTERM, which ends what is under way, within some twenty seconds."""
    configure(settings())
    if settings().secrets_key is None:
        raise SystemExit("BURSAR_SECRETS_KEY is not set: without it there are no webhooks to deliver.")
    _partition_count(settings().database_url.get_secret_value())  # waits for the database
    os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")

    from worker.webhooks import celery, stop

    try:
        celery.worker_main(_arguments("--pool=solo", queues=[WEBHOOKS_QUEUE], name=name))
    finally:
        stop()


def _arguments(*options: str, queues: Iterable[str], name: str | None) -> list[str]:
    return [
        "worker",
        *options,
        f"--queues={','.join(queues)}",
        f"--hostname={name or f'bursar-{os.getpid()}@{socket.gethostname()}'}",
        "--without-gossip",
        "--without-mingle",
        "--events",
        f"--loglevel={settings().log_level}",
    ]


def _partition_count(database_url: str) -> int:
    """From the database; waits for it as long as it takes, and says so."""
    while True:
        try:
            with db.connect(database_url, application="bursar-worker") as connection:
                row = connection.execute("SELECT count(*) FROM partitions").fetchone()
                assert row is not None
                return row[0]
        except (psycopg.OperationalError, psycopg.errors.UndefinedTable) as error:
            log.warning("worker.waiting_for_database", detail=str(error).strip()[:200])
            time.sleep(DATABASE_WAIT_S)
