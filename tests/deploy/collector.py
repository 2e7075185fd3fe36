"""An OpenTelemetry collector for tests: a receiver of OTLP over HTTP, and the spans that it was sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.receivers import Request


@dataclass(frozen=True)
class Sent:
    """A span. Ids in hexadecimal digits, as a traceparent has them."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    took_ns: int


def spans(requests: Sequence[Request]) -> list[Sent]:
    found: list[Sent] = []
    for request in requests:
        assert request.target == "/v1/traces"
        message = ExportTraceServiceRequest()
        message.ParseFromString(request.body)
        for resource in message.resource_spans:
            service = _values(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                found.extend(_sent(service, span) for span in scope.spans)
    return found


def _sent(service: str, span: Any) -> Sent:
    took_ns = span.end_time_unix_nano - span.start_time_unix_nano
    ids = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
    return Sent(service, span.name, *ids, _values(span.attributes), took_ns)


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
