"""Running drains until nothing is left: transactions, retries, and what to do with a command that breaks them.

run ──► one drain: claim → lock → decide → write → commit      (ledger.inbox, ledger.drain)
 ▲          │ announce the outcomes
 └──────────┘ until a look finds nothing; the doorbell is cleared before the last look
"""

import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg
import structlog

from ledger import db, drain, expiry, inbox, journal
from ledger.commands import Command
from ledger.errors import BooksMoved
from ledger.inbox import Nothing
from ledger.journal import Written
from runtime.announce import Announcer
from runtime.doorbell import COURIERS, Doorbell
from worker.metrics import DrainMetrics, WokenBy

log = structlog.get_logger()

# Commands of one drain. Larger batches gain little (a drain's fixed cost is a tenth of its time by here) and hold
# their locks longer: 500 commit in about 30 ms, far below lock_timeout.
DRAIN_MAX = 500
# One run serves for at most this long, then rings for what is left: other queues get their turn, a shutdown is not
# kept waiting, and an operator sees tasks come and go in Flower.
RUN_MAX_S = 1.0
# While commands keep coming, a run stays on duty, lets this much time pass between drains, and keeps the doorbell
# quiet: larger batches cost less per command. A drain of fewer than BUSY_MIN commands means that they do not.
GATHER_S = 0.010
BUSY_MIN = 3
# Drains that a command may break before it is quarantined: one for bad luck, one to be sure, one for the log.
ATTEMPTS_MAX = 3
ATTEMPT_PAUSE_S = 0.2  # bad luck gets time to pass; the partition's other commands wait as long

# Faults of the surroundings: connection, timeouts, deadlocks, disk, schema. The batch stays pending and is tried
# again; no command is ever blamed for them.
_FAULTS = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.InsufficientPrivilege,
    psycopg.InternalError,
    psycopg.NotSupportedError,
    MemoryError,
)


class Drainer:
    """One connection, used by one thread. `partitions` are those that this worker serves."""

    def __init__(
        self,
        database_url: str,
        doorbell: Doorbell,
        announcer: Announcer,
        partitions: Sequence[int],
        *,
        metrics: DrainMetrics | None = None,
    ) -> None:
        self._database_url = database_url
        self._doorbell = doorbell
        self._announcer = announcer
        self.partitions = partitions
        self._metrics = metrics or DrainMetrics()
        self._turns = deque(partitions)  # in the order in which the next claim serves them
        self._connection: psycopg.Connection[Any] | None = None
        self._tally: Counter[tuple[type[Command], str, str]] = Counter()  # outcomes of this drain
        self._clients: set[int] = set()  # in whose feeds outcomes are that were not announced yet
        self._deliveries = 0  # owed, and the couriers have not been rung for

    def run(self, *, task_id: UUID | None, by: WokenBy = "doorbell") -> int:
        """Drain until nothing is left or RUN_MAX_S is over; the number of commands that got their outcome.

        A fault of the surroundings ends the run early: what is pending stays so, and the look-out comes by.
        """
        done = 0
        started = time.monotonic()
        cleared = False  # whether the doorbell could ring since before the last drain
        silenced = False  # whether this run keeps it from ringing
        try:
            while time.monotonic() - started < RUN_MAX_S:
                began = time.monotonic()
                seqs = self._drain_once(task_id)
                if self._tally:
                    self._metrics.drained(by, time.monotonic() - began, self._tally)
                    self._tally.clear()
                if isinstance(seqs, Nothing):
                    # BUSY: whoever holds the rest looks again when it is done. The flags are not ours to clear, then,
                    # unless we set them: a doorbell of another partition may have kept still meanwhile.
                    if cleared or (seqs is Nothing.BUSY and not silenced):
                        return done
                else:
                    done += len(seqs)
                    self._tell(seqs)
                    if len(seqs) >= BUSY_MIN:
                        self._doorbell.silence(self.partitions)
                        cleared, silenced = False, True
                        if len(seqs) < DRAIN_MAX:
                            time.sleep(GATHER_S)
                        continue
                # Little to do: most likely the next look is the last. What comes after that must be able to ring.
                self._doorbell.clear(self.partitions)
                cleared, silenced = True, False
            self._doorbell.clear(self.partitions)
            self._doorbell.ring_all(self.partitions)
        except _FAULTS as fault:
            self.close()
            self._tally.clear()
            self._metrics.failed("fault")
            log.warning("drain.fault", error=type(fault).__name__, detail=str(fault).strip()[:200])
        return done

    def _tell(self, seqs: Sequence[int]) -> None:
        """After the commit: whoever waits for these outcomes."""
        clients, self._clients = self._clients, set()
        self._announcer.announce(seqs, clients)
        if self._deliveries:
            self._doorbell.ring(COURIERS)
        self._deliveries = 0

    def overdue(self, age_s: float) -> bool:
        """Whether a command has been pending in these partitions for longer than this."""
        connection = self._connected()
        with connection.transaction():
            return inbox.overdue(connection, self.partitions, age_s=age_s)

    def enqueue_due(self) -> bool:
        """Put the holds and credits that are past their time into the inbox, and ring; whether there were any."""
        connection = self._connected()
        with connection.transaction():
            partitions = expiry.enqueue_due(connection)
        if partitions:
            self._doorbell.ring_all(partitions)
        return bool(partitions)

    def close(self) -> None:
        """Drop the connection; PostgreSQL rolls back what was under way."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = db.connect(self._database_url, application="bursar-worker")
        return self._connection

    def _drain_once(self, task_id: UUID | None) -> list[int] | Nothing:
        """One batch, whole or not at all; the seqs that got their outcome."""
        connection = self._connected()
        claim = None
        try:
            with connection.transaction():
                claim = inbox.claim(connection, list(self._turns), max_rows=DRAIN_MAX)
                if isinstance(claim, Nothing):
                    return claim
                self._turns.rotate(-1)  # with a long queue the first one fills the batch: the next is another's turn
                if not claim.commands:
                    return []
                written = drain.apply(connection, claim, task_id=task_id)
            return self._noted(claim.commands, written)
        except BooksMoved:
            return []
        except _FAULTS:
            raise
        except Exception:
            if claim is None or isinstance(claim, Nothing):
                raise
            self._metrics.failed("broken")
            log.exception("drain.broken", commands=len(claim.commands), hint="looking for the command that broke it")
            return self._isolate(inbox.units(claim.commands), task_id)

    def _noted(self, commands: Sequence[Command], written: Written) -> list[int]:
        """After the commit: what is to be told of these outcomes. Their seqs."""
        self._clients.update(command.client_id for command in commands)
        self._deliveries += written.deliveries
        self._tally.update(written.tally)
        return written.seqs

    def _isolate(self, units: Sequence[Sequence[Command]], task_id: UUID | None) -> list[int]:
        """Apply the batch in smaller and smaller pieces, in order, so that only the poison command is held back. A
        group is a piece that is not divided."""
        connection = self._connected()
        try:
            with connection.transaction():
                claim = inbox.reclaim(connection, [command for unit in units for command in unit])
                if claim is None:
                    return []
                written = drain.apply(connection, claim, task_id=task_id)
            return self._noted(claim.commands, written)
        except BooksMoved:
            return self._isolate(units, task_id)
        except _FAULTS:
            raise
        except Exception as error:
            if len(units) > 1:
                half = len(units) // 2
                return self._isolate(units[:half], task_id) + self._isolate(units[half:], task_id)
            return self._blame(units[0], error, task_id)

    def _blame(self, unit: Sequence[Command], error: Exception, task_id: UUID | None) -> list[int]:
        """This command alone breaks its drain: count it, in its own transaction; after ATTEMPTS_MAX, quarantine."""
        connection = self._connected()
        with connection.transaction():
            attempts = inbox.count_attempt(connection, unit[0].seq)
        if attempts < ATTEMPTS_MAX:
            time.sleep(ATTEMPT_PAUSE_S)
            return self._isolate([unit], task_id) if attempts else []
        with connection.transaction():
            claim = inbox.reclaim(connection, unit)
            if claim is None:
                return []
            written = journal.quarantine(connection, unit, claim.now, task_id=task_id)
            named = {"command": inbox.public_id(connection, unit[0].seq), "wallet": unit[0].wallet}
        self._metrics.quarantined.inc(len(unit))
        log.error("command.quarantined", **named, seq=unit[0].seq, attempts=attempts, error=repr(error)[:500])
        return self._noted(unit, written)
