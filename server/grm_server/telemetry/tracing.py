"""OpenTelemetry traces. Imported only if tracing is on: its packages are the extra `tracing`.

OpenTelemetry's own environment variables configure export and sampling: OTEL_EXPORTER_OTLP_ENDPOINT,
OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME and others. Nothing global is set. No span holds a text.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Value = str | bool | int | float | Sequence[int]
NAME = "grm-server"


class Span:
    """A span of a trace. Times are seconds on `time.monotonic`; None is now."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        return trace.format_trace_id(self._span.get_span_context().trace_id)

    def child(self, name: str, start_s: float | None = None, **attributes: Value) -> Span:
        """A child span that began at `start_s`. Attribute names get the prefix `grm.`."""
        span = self._tracer.start_span(
            name,
            trace.set_span_in_context(self._span),
            start_time=_wall_ns(start_s),
            attributes=_named(attributes),
        )
        return Span(self._tracer, span)

    def set(self, **attributes: Value) -> None:
        self._span.set_attributes(_named(attributes))

    def failed(self, code: str) -> None:
        self._span.set_attribute("error.type", code)
        self._span.set_status(trace.StatusCode.ERROR)

    def answered(self, route: str, status: int) -> None:
        """Set the name, route and status of an HTTP request's span, as in OpenTelemetry's semantic conventions."""
        self._span.update_name(route)
        self._span.set_attributes({"http.route": route, "http.response.status_code": status})
        if status >= 500:
            self.failed(str(status))

    def end(self, end_s: float | None = None) -> None:
        self._span.end(_wall_ns(end_s))


class Tracing:
    """Creates the spans of one server and exports them in a thread."""

    def __init__(self) -> None:
        resource = Resource.create({SERVICE_VERSION: version("grm-server")})
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: NAME}))
        # Shutdown must not wait for a collector that does not respond.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(NAME, version("grm-server"))
        self._incoming = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Iterator[Span]:
        """The span of one HTTP request, in the client's trace if it sent a `traceparent`."""
        with self._tracer.start_as_current_span(
            method,
            self._incoming.extract(headers),
            kind=trace.SpanKind.SERVER,
            attributes={"http.request.method": method},
            # The recorded exception would hold the error's message, which may quote a text.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield Span(self._tracer, span)

    def span(self, name: str, **attributes: Value) -> Span:
        """A span inside the current request's span; a root span outside of any request."""
        return Span(self._tracer, self._tracer.start_span(name, attributes=_named(attributes)))

    def close(self) -> None:
        """Export the remaining spans. Takes seconds if the collector does not respond."""
        self._provider.shutdown()


def _named(attributes: Mapping[str, Value]) -> dict[str, Value]:
    return {f"grm.{name}": value for name, value in attributes.items()}


def _wall_ns(monotonic_s: float | None) -> int | None:
    if monotonic_s is None:
        return None
    return time.time_ns() - int((time.monotonic() - monotonic_s) * 1e9)
