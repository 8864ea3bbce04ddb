"""The HTTP endpoints of a worker: /metrics, /healthz, /readyz."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from reviewmesh_worker.settings import HttpSettings


class QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Scrapes every few seconds are no news."""


class Endpoints:
    """Serves in a thread of its own; `state` is loading, serving or draining."""

    def __init__(self, settings: HttpSettings, state: Callable[[], str]) -> None:
        self._state = state
        self._server: WSGIServer = make_server(
            settings.host, settings.port, self._answer, handler_class=QuietHandler
        )

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, name="http", daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()

    def _answer(
        self, environ: dict[str, object], start_response: Callable[..., object]
    ) -> list[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            start_response("200 OK", [("Content-Type", CONTENT_TYPE_LATEST)])
            return [generate_latest()]
        if path not in ("/healthz", "/readyz"):
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"expected /metrics, /healthz or /readyz\n"]
        good = path == "/healthz" or self._state() == "serving"
        status = "200 OK" if good else "503 Service Unavailable"
        start_response(status, [("Content-Type", "application/json")])
        return [json.dumps({"state": self._state()}).encode()]
