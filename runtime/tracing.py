"""Traces by OpenTelemetry, sent to a collector. Imported only where BURSAR_OTLP_ENDPOINT is set: the packages are an
extra, and cost memory.

A command has four spans of one trace: the request, `accept` (until its commit), `drain`, and `deliver` for each attempt
of each webhook. The last two continue from `accept`, whose traceparent (W3C Trace Context) is stored with the command.
"""

from collections.abc import Mapping
from importlib.metadata import version

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

TRACEPARENT = "traceparent"
SEND_EVERY_S = 1.0  # what a process that is killed takes with it at most
_propagator = TraceContextTextMapPropagator()


class Tracing:
    """One per process, made after the fork: it has a thread that sends."""

    def __init__(self, endpoint: str, *, ratio: float, service: str) -> None:
        """`ratio`: the share of traces that begin here which are recorded; of others, whoever began them decided."""
        resource = Resource.create({"service.name": service, "service.version": version("bursar")})
        self._provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(ratio)))
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1_000 * SEND_EVERY_S))
        self.tracer = self._provider.get_tracer("bursar")

    def stop(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def continued(traceparent: str | None, tracestate: str | None = None) -> Context:
    """Where a trace continues that somebody else began; with None, or what is no traceparent, a new one begins."""
    carrier: Mapping[str, str] = {TRACEPARENT: traceparent or "", "tracestate": tracestate or ""}
    return _propagator.extract(carrier, context=Context())


def traceparent_of(span: Span) -> str:
    """For whoever continues from this span."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, context=set_span_in_context(span))
    return carrier[TRACEPARENT]
