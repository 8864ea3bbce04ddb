"""Sends spans to an OTLP endpoint, with OpenTelemetry's own exporter.

The SDK's tracers make spans with ids of their own, for what happens now. These spans happened
before, in other processes, so they are given to the exporter as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from reviewmesh.settings import TracesSettings
from reviewmesh.trace.spans import SCHEMA_URL, Span
from reviewmesh_kit.version import running_version

TIMEOUT_S = 10
LONGEST_ERROR = 1_000


class OtlpEndpoint:
    """Used by one thread at a time."""

    def __init__(self, settings: TracesSettings, prefix: str) -> None:
        headers = None
        if settings.authorization is not None:
            headers = {"Authorization": settings.authorization.get_secret_value()}
        self._exporter = OTLPSpanExporter(
            endpoint=f"{settings.endpoint.rstrip('/')}/v1/traces",
            headers=headers,
            timeout=TIMEOUT_S,
        )
        self._prefix = prefix
        self._resources: dict[str, Resource] = {}
        self._scope = InstrumentationScope("reviewmesh", running_version(), SCHEMA_URL)

    def send(self, spans: Sequence[Span]) -> bool:
        """False where the endpoint did not take them within TIMEOUT_S, tries included."""
        found = self._exporter.export([self._readable(span) for span in spans])
        return found is SpanExportResult.SUCCESS

    def close(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _readable(self, span: Span) -> ReadableSpan:
        status = Status(StatusCode.UNSET)
        if span.error is not None:
            status = Status(StatusCode.ERROR, span.error[:LONGEST_ERROR])
        return ReadableSpan(
            name=span.name,
            context=_context(span.trace_id, span.span_id),
            parent=None if span.parent_id is None else _context(span.trace_id, span.parent_id),
            resource=self._resource(span.service),
            attributes=span.attributes,
            links=[Link(_context(*link)) for link in span.links],
            kind=span.kind,
            status=status,
            start_time=int(span.start_ms * 1e6),
            end_time=int(span.end_ms * 1e6),
            instrumentation_scope=self._scope,
        )

    def _resource(self, service: str) -> Resource:
        if service not in self._resources:
            # Not `create`, which adds this process's own.
            self._resources[service] = Resource(
                {
                    "service.name": f"reviewmesh-{service}",
                    "service.namespace": self._prefix.rstrip(".") or "reviewmesh",
                    "service.version": running_version(),
                },
                SCHEMA_URL,
            )
        return self._resources[service]


def _context(trace_id: int, span_id: int) -> SpanContext:
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(1))
