"""The HTTP endpoints of a process, in a thread of their own."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from reviewmesh_kit.settings import HttpSettings
from reviewmesh_kit.version import running_version

CONNECTIONS_AT_MOST = 64
SILENCE_S = 5.0
METRICS = "/metrics"


class HttpAnswer(NamedTuple):
    status: int
    content_type: str
    body: bytes


def json_answer(good: bool, body: Mapping[str, object]) -> HttpAnswer:
    """200 or 503."""
    return HttpAnswer(200 if good else 503, "application/json", json.dumps(body).encode())


def metrics_answer(accept: str) -> HttpAnswer:
    """The metrics of this process: as OpenMetrics, which has exemplars, for who asks for it."""
    encode, content_type = choose_encoder(accept)
    return HttpAnswer(200, content_type, encode(REGISTRY))


class BoundedServer(ThreadingHTTPServer):
    """A thread per connection; beyond CONNECTIONS_AT_MOST the oldest connection is closed.

    So idle or very slow connections cannot keep others from an answer.
    """

    daemon_threads = True
    request_queue_size = 128
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._open: deque[socket.socket] = deque()
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.append(request)
            oldest = self._open.popleft() if len(self._open) > CONNECTIONS_AT_MOST else None
        if oldest is not None:
            # Wakes its thread, which closes the socket.
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock, suppress(ValueError):
            self._open.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """No traceback for a client that disconnects during its request."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def serve(settings: HttpSettings, answers: Mapping[str, Callable[[], HttpAnswer]]) -> BoundedServer:
    """Answer GET by path, /metrics and /version, until the caller shuts the server down.

    Raises OSError if the port is in use.
    """
    version = json_answer(True, {"version": running_version()})
    answers = {**answers, "/version": lambda: version}
    *others, last = (METRICS, *answers)
    not_found = HttpAnswer(404, "text/plain", f"expected {', '.join(others)} or {last}\n".encode())

    class Handler(BaseHTTPRequestHandler):
        timeout = SILENCE_S

        def do_GET(self) -> None:
            if self.path == METRICS:
                answer = metrics_answer(self.headers.get("Accept", ""))
            else:
                answer = answers[self.path]() if self.path in answers else not_found
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:
            """No log line per scrape."""

    server = BoundedServer((settings.host, settings.port), Handler)
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return server
