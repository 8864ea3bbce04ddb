"""The HTTP endpoints of a service: /metrics, /healthz, /readyz."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from reviewmesh.runtime.settings import HttpSettings

STALLED_AFTER_S = 60.0


def serve(
    settings: HttpSettings, heartbeat: Callable[[], float], waiting_for: Callable[[], str]
) -> ThreadingHTTPServer:
    """Serve in a thread of its own; the caller shuts it down.

    `heartbeat` gives the monotonic second of the loop's last turn, `waiting_for` what keeps the
    service from working, empty when nothing does.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest())
            elif self.path == "/healthz":
                alive = time.monotonic() - heartbeat() < STALLED_AFTER_S
                self._answer_json(alive, {"alive": alive, "waiting_for": waiting_for()})
            elif self.path == "/readyz":
                self._answer_json(
                    not waiting_for(), {"ready": not waiting_for(), "waiting_for": waiting_for()}
                )
            else:
                self._answer(404, "text/plain", b"expected /metrics, /healthz or /readyz\n")

        def _answer_json(self, good: bool, body: dict[str, object]) -> None:
            self._answer(200 if good else 503, "application/json", json.dumps(body).encode())

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes every few seconds are no news."""

    server = ThreadingHTTPServer((settings.host, settings.port), Handler)
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return server
