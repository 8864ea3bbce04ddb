"""The HTTP endpoints of a worker: /metrics, /healthz, /readyz."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from reviewmesh_worker.serving.settings import HttpSettings

CONNECTIONS_AT_MOST = 64
SILENCE_S = 5.0


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


class Endpoints:
    """Serves in its own thread; `state` returns loading, serving or draining."""

    def __init__(self, settings: HttpSettings, state: Callable[[], str]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = SILENCE_S

            def do_GET(self) -> None:
                status, content_type, body = _answer(self.path, state())
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """No log line per scrape."""

        self._server = BoundedServer((settings.host, settings.port), Handler)

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, name="http", daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()


def _answer(path: str, state: str) -> tuple[int, str, bytes]:
    if path == "/metrics":
        return 200, CONTENT_TYPE_LATEST, generate_latest()
    if path not in ("/healthz", "/readyz"):
        return 404, "text/plain", b"expected /metrics, /healthz or /readyz\n"
    good = path == "/healthz" or state == "serving"
    return 200 if good else 503, "application/json", json.dumps({"state": state}).encode()
