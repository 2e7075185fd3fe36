"""The look-out: what no doorbell announced is found here, a second later, and what is due, as soon as it is.

Every worker process has one. It needs PostgreSQL only: with Redis gone, spends still apply, and holds still expire.
"""

import threading
import time
from collections.abc import Callable

import structlog

from worker.drain import Drainer

log = structlog.get_logger()

LOOK_EVERY_S = 0.5  # what is due is back within this and a drain: well inside the two seconds that are promised
OVERDUE_S = 1.0  # a doorbell takes milliseconds: what waits this long was not announced, or all workers are busy


class Lookout(threading.Thread):
    """Looks every LOOK_EVERY_S for what is due, and for pending commands older than OVERDUE_S, and drains them on a
    connection of its own."""

    def __init__(self, drainer: Drainer, *, busy: Callable[[], bool]) -> None:
        super().__init__(name="lookout", daemon=True)
        self._drainer = drainer
        self._busy = busy

    def run(self) -> None:
        while True:
            time.sleep(LOOK_EVERY_S)
            try:
                due = self._drainer.enqueue_due()
                if self._busy():
                    continue  # this process is draining already, every partition in its turn
                if due:
                    self._drainer.run(task_id=None, by="due")
                while self._drainer.overdue(OVERDUE_S) and not self._busy():
                    if done := self._drainer.run(task_id=None, by="lookout"):
                        log.info("lookout.drained", commands=done, hint="no doorbell came; is Redis up?")
                    else:
                        break
            except Exception as error:
                self._drainer.close()
                log.warning("lookout.fault", error=type(error).__name__, detail=str(error).strip()[:200])
