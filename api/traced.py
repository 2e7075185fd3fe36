"""The api's spans. Imported only where tracing is on: it takes the place of the edge and of the intake, which know
nothing of it (docs/decisions/0029)."""

from collections.abc import Sequence
from typing import Any

import psycopg
from opentelemetry.trace import SpanKind, Status, StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.intake import Intake
from ledger import traces
from ledger.ids import command_id
from ledger.inbox import Accepted, NewCommand
from runtime.tracing import Tracing, continued, traceparent_of

UNTRACED = {"/livez", "/readyz", "/metrics"}  # asked every few seconds, by machines


class TracedEdge:
    """A span for each request, which continues the caller's trace."""

    def __init__(self, edge: ASGIApp, tracing: Tracing) -> None:
        self._edge = edge
        self._tracer = tracing.tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in UNTRACED:
            await self._edge(scope, receive, send)
            return
        headers = {name: value for name, value in scope["headers"] if name in (b"traceparent", b"tracestate")}
        parent = continued(*(headers.get(name, b"").decode("latin-1") for name in (b"traceparent", b"tracestate")))
        method: str = scope["method"]
        with self._tracer.start_as_current_span(method, context=parent, kind=SpanKind.SERVER) as span:

            async def send_noting(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(Status(StatusCode.ERROR))
                await send(message)

            await self._edge(scope, receive, send_noting)
            state: dict[str, Any] = scope.get("state", {})
            span.set_attributes({"http.request.method": method, "bursar.request_id": state.get("request_id", "")})
            route = scope["app"].state.metrics.requests.route(scope)
            span.set_attribute("http.route", route)
            span.update_name(f"{method} {route}")


class TracedIntake(Intake):
    """Stores with each new command of a request that is traced where its trace continues."""

    def __init__(self, tracing: Tracing, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._tracer = tracing.tracer
        self._traceparents: dict[tuple[int, str], str] = {}  # by client and key, of what is on its way

    async def submit(self, commands: Sequence[NewCommand], *, atomic: bool = False) -> list[Accepted | None]:
        with self._tracer.start_as_current_span("accept", kind=SpanKind.PRODUCER) as span:
            if not span.is_recording():
                return await super().submit(commands, atomic=atomic)
            keys = [(command.client_id, command.idempotency_key) for command in commands]
            self._traceparents.update(dict.fromkeys(keys, traceparent_of(span)))
            try:
                answers = await super().submit(commands, atomic=atomic)
            finally:
                for key in keys:
                    self._traceparents.pop(key, None)
            span.set_attribute("bursar.commands", len(commands))
            if len(answers) == 1 and (accepted := answers[0]) is not None:
                span.set_attribute("bursar.command", command_id(accepted.seq, accepted.accepted_at))
                span.set_attribute("bursar.replayed", accepted.replayed)
            return answers

    async def _accept_once(
        self, connection: psycopg.AsyncConnection[Any], batch: list[NewCommand], *, atomic: bool
    ) -> Sequence[Accepted | None]:
        traceparents = [self._traceparents.get((command.client_id, command.idempotency_key)) for command in batch]
        if not any(traceparents):
            return await super()._accept_once(connection, batch, atomic=atomic)
        async with connection.transaction():
            answers = await super()._accept_once(connection, batch, atomic=atomic)
            new = {
                answer.seq: traceparent
                for answer, traceparent in zip(answers, traceparents, strict=True)
                if traceparent and answer is not None and not answer.replayed
            }
            if new:
                await traces.store(connection, new)
        return answers
