"""An OTLP endpoint over HTTP that keeps the spans it is sent, and can refuse them."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True)
class ReceivedSpan:
    service: str
    span: trace_pb2.Span

    @property
    def trace_id(self) -> str:
        return self.span.trace_id.hex()

    @property
    def span_id(self) -> str:
        return self.span.span_id.hex()

    @property
    def failed(self) -> bool:
        return bool(self.span.status.code == trace_pb2.Status.STATUS_CODE_ERROR)


class OtlpReceiver:
    """Listens on loopback until it is left."""

    def __init__(self) -> None:
        self.refuses = False
        self.refused = 0
        self._received: list[ReceivedSpan] = []
        self._lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(receiver.take(self.path, body))
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> OtlpReceiver:
        return self

    def __exit__(self, *raised: object) -> None:
        self._server.shutdown()

    def take(self, path: str, body: bytes) -> int:
        if path != "/v1/traces":
            return 404
        if self.refuses:
            self.refused += 1
            return 503
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for of_resource in request.resource_spans:
                attributes = {
                    item.key: item.value.string_value for item in of_resource.resource.attributes
                }
                for scope in of_resource.scope_spans:
                    self._received += [
                        ReceivedSpan(attributes["service.name"], span) for span in scope.spans
                    ]
        return 200

    def spans(self, trace_id: str = "") -> list[ReceivedSpan]:
        """Each once, whatever how often it was sent."""
        with self._lock:
            found = {
                (span.trace_id, span.span_id): span
                for span in self._received
                if trace_id in ("", span.trace_id)
            }
        return list(found.values())
