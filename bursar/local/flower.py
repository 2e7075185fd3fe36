"""Flower, the window on Celery: behind a password, read-only, on loopback unless told otherwise."""

import os

from bursar.local.errors import LocalError
from bursar.local.places import LOOPBACK

PORT = 5555
# A task only says "look at partition 3": ten thousand are ample for looking around, and small in memory.
MAX_TASKS = 10_000
# A worker that was restarted comes back under its own name; one that is gone for good should leave the list.
FORGET_WORKERS_AFTER_S = 600
# Flower asks the workers several things at the same time, and each question holds one connection while it takes
# another. With the two that suffice for ringing, its first look at the workers would wait for itself for ever.
CONNECTIONS = 20


def run_flower(*, port: int = PORT, host: str = LOOPBACK, basic_auth: str) -> None:
    """Serve Flower until SIGTERM. Raises LocalError without a `user:password`: nobody wants an open window."""
    user, _, password = basic_auth.partition(":")
    if not user or not password:
        raise LocalError("Flower needs BURSAR_FLOWER_BASIC_AUTH=user:password; it never runs without one.")
    from runtime import log
    from runtime.celery_app import make_celery
    from runtime.settings import settings

    for name in [name for name in os.environ if name.startswith("FLOWER_")]:
        del os.environ[name]  # Flower takes them for its options, and they are not meant so: FLOWER_URL, say
    os.environ["FLOWER_BASIC_AUTH"] = basic_auth  # not as an argument: `ps` shows those to everybody
    log.configure(settings())
    celery = make_celery(settings(), partitions=1)  # Flower learns the true queues from the workers
    celery.conf.broker_pool_limit = CONNECTIONS
    celery.start(
        [
            "--quiet",
            "flower",
            f"--address={host}",
            f"--port={port}",
            "--read_only",  # no shutdown, no revoke, no task of one's own
            f"--max_tasks={MAX_TASKS}",
            f"--purge_offline_workers={FORGET_WORKERS_AFTER_S}",
            "--tasks_columns=name,uuid,state,args,received,runtime,worker",
        ]
    )
