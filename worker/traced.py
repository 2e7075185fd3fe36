"""The workers' spans. Imported only where tracing is on: it takes the place of the drainer and of the courier, which
know nothing of it (docs/decisions/0029)."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import psycopg
import structlog
from opentelemetry.trace import SpanKind, Status, StatusCode

from ledger import deliveries, traces
from ledger.deliveries import Due
from ledger.ids import command_id
from ledger.inbox import Nothing
from runtime.tracing import TRACEPARENT, Tracing, continued, traceparent_of
from worker.courier import Courier
from worker.drain import Drainer
from worker.sending import Answer

log = structlog.get_logger()

PURGE_EVERY_S = 60.0
Asked = TypeVar("Asked")


class TracedDrainer(Drainer):
    """A span for each traced command of a drain, as long as the drain was."""

    def __init__(self, tracing: Tracing, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._tracer = tracing.tracer
        self._began_ns = 0
        self._purged_at = float("-inf")

    def _drain_once(self, task_id: UUID | None) -> list[int] | Nothing:
        self._began_ns = time.time_ns()
        return super()._drain_once(task_id)

    def _tell(self, seqs: Sequence[int]) -> None:
        ended_ns = time.time_ns()
        super()._tell(seqs)
        for each in self._asked(lambda connection: traces.decided(connection, seqs)) or ():
            attributes = {
                "bursar.command": command_id(each.seq, each.accepted_at),
                "bursar.type": each.type,
                "bursar.status": each.status,
                "bursar.code": each.code,
                "bursar.drain_commands": len(seqs),
            }
            span = self._tracer.start_span(
                "drain",
                context=continued(each.traceparent),
                kind=SpanKind.CONSUMER,
                attributes=attributes,
                start_time=self._began_ns,
            )
            span.end(ended_ns)

    def enqueue_due(self) -> bool:
        if time.monotonic() - self._purged_at >= PURGE_EVERY_S:
            self._purged_at = time.monotonic()
            self._asked(traces.purge)
        return super().enqueue_due()

    def _asked(self, ask: Callable[[psycopg.Connection[Any]], Asked]) -> Asked | None:
        """None where PostgreSQL does not say: a trace must cost no drain."""
        try:
            connection = self._connected()
            with connection.transaction():
                return ask(connection)
        except psycopg.Error as fault:
            self.close()
            log.warning("tracing.fault", error=type(fault).__name__, detail=str(fault).strip()[:200])
            return None


class TracedCourier(Courier):
    """A span for each attempt to deliver the outcome of a traced command; the request carries its traceparent."""

    def __init__(self, tracing: Tracing, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._tracer = tracing.tracer
        self._traceparents: dict[int, str | None] = {}  # of what is in memory; None: it is not traced

    async def _fetch(self, connection: deliveries.Connection, now: datetime) -> None:
        await super()._fetch(connection, now)
        known = {seq for served in self._served.values() for seq in served.known}
        if new := known - self._traceparents.keys():
            found = await traces.of(connection, list(new))
            self._traceparents |= {seq: found.get(seq) for seq in new}
        for seq in self._traceparents.keys() - known:
            del self._traceparents[seq]

    async def _post(self, due: Due, url: str, headers: dict[str, str], body: bytes) -> Answer:
        traceparent = self._traceparents.get(due.seq)
        if traceparent is None:
            return await super()._post(due, url, headers, body)
        attributes = {"bursar.endpoint": due.endpoint_id, "bursar.attempt": due.attempts + 1}
        with self._tracer.start_as_current_span(
            "deliver", context=continued(traceparent), kind=SpanKind.CLIENT, attributes=attributes
        ) as span:
            others = {name: value for name, value in headers.items() if name.lower() != TRACEPARENT}
            answer = await super()._post(due, url, others | {TRACEPARENT: traceparent_of(span)}, body)
            if answer.status is not None:
                span.set_attribute("http.response.status_code", answer.status)
            if answer.failure is not None:
                span.set_status(Status(StatusCode.ERROR, answer.failure))
            return answer
