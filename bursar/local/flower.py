"""Flower, the window on Celery: behind a password, read-only, on loopback unless told otherwise."""

import os
import sys

from bursar.local.errors import LocalError

PORT = 5555
# A task only says "look at partition 3": ten thousand are ample for looking around, and small in memory.
MAX_TASKS = 10_000
# A worker that was restarted comes back under its own name; one that is gone for good should leave the list.
FORGET_WORKERS_AFTER_S = 600


def flower_command(*, port: int = PORT, host: str = "127.0.0.1") -> list[str]:
    """What to execute. The password goes by `flower_environment`, where `ps` does not show it."""
    options = [
        f"--address={host}",
        f"--port={port}",
        "--read_only",  # no shutdown, no revoke, no task of one's own
        f"--max_tasks={MAX_TASKS}",
        f"--purge_offline_workers={FORGET_WORKERS_AFTER_S}",
        "--tasks_columns=name,uuid,state,args,received,runtime,worker",
    ]
    return [sys.executable, "-m", "celery", "--app", "worker.app:celery", "--quiet", "flower", *options]


def flower_environment(basic_auth: str) -> dict[str, str]:
    """This process's environment and the `user:password` that Flower asks for."""
    foreign = {name for name in os.environ if name.startswith("FLOWER_")}  # it would read them as its options
    kept = {name: value for name, value in os.environ.items() if name not in foreign}
    return kept | {"FLOWER_BASIC_AUTH": basic_auth}


def run_flower(*, port: int = PORT, host: str = "127.0.0.1", basic_auth: str = "") -> None:
    """Become Flower. Raises LocalError without a `user:password`: nobody wants an open window."""
    user, _, password = basic_auth.partition(":")
    if not user or not password:
        raise LocalError("Flower needs BURSAR_FLOWER_BASIC_AUTH=user:password; it never runs without one.")
    argv = flower_command(port=port, host=host)
    os.execve(argv[0], argv, flower_environment(basic_auth))
