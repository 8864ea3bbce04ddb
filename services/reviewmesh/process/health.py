"""The HTTP endpoints of a service: /metrics, /healthz, /readyz."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from reviewmesh.settings import HttpSettings

STALLED_AFTER_S = 60.0
CONNECTIONS_AT_MOST = 64
SILENCE_S = 5.0


class BoundedServer(ThreadingHTTPServer):
    """A thread for each connection, so many at once: when more come, the oldest is let go of.

    Connections that say nothing, or one byte now and then, thus keep nobody from an answer.
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
            # Its thread wakes up and closes it.
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock, suppress(ValueError):
            self._open.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away in the midst of its request is no news."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@dataclass(frozen=True, slots=True)
class State:
    """What /readyz says. Only `waiting_for` makes a process unready: one that does all that it can
    and waits for others must not block an update of itself."""

    waiting_for: str
    held_up_by: str = ""

    def body(self) -> dict[str, object]:
        reasons = [reason for reason in (self.waiting_for, self.held_up_by) if reason]
        return {"ready": not self.waiting_for, "waiting_for": "; ".join(reasons)}


def serve(
    settings: HttpSettings, heartbeat: Callable[[], float], state: Callable[[], State]
) -> ThreadingHTTPServer:
    """Serve in a thread of its own; the caller shuts it down.

    `heartbeat` gives the monotonic second of the loop's last turn.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = SILENCE_S

        def do_GET(self) -> None:
            if self.path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest())
            elif self.path == "/healthz":
                alive = time.monotonic() - heartbeat() < STALLED_AFTER_S
                self._answer_json(
                    alive, {"alive": alive, "waiting_for": state().body()["waiting_for"]}
                )
            elif self.path == "/readyz":
                now = state()
                self._answer_json(not now.waiting_for, now.body())
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

    server = BoundedServer((settings.host, settings.port), Handler)
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
    return server
