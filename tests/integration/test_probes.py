"""What `ps` says of processes: not what their supervisor believes, but what they answer."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from reviewmesh.local import probes
from reviewmesh.local.ports import find_free
from reviewmesh.local.probes import Health, of_http


@contextmanager
def answering(**answers: tuple[int, object]) -> Iterator[int]:
    """A server with these answers by path; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content = answers[self.path.removeprefix("/")]
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server.server_port
        finally:
            server.shutdown()


ALIVE = (200, {"alive": True, "waiting_for": ""})


@pytest.mark.parametrize(
    ("healthz", "readyz", "health"),
    [
        (ALIVE, (200, {"ready": True, "waiting_for": ""}), Health(True, "ready")),
        (ALIVE, (200, {"waiting_for": "no worker"}), Health(True, "ready; no worker")),
        (ALIVE, (503, {"waiting_for": "the broker"}), Health(False, "the broker")),
        (
            (200, {"state": "loading"}),
            (503, {"state": "loading"}),
            Health(False, "loads its model"),
        ),
        ((503, {"waiting_for": ""}), ALIVE, Health(False, "hangs: its loop stands still")),
        (ALIVE, (503, b"\xff no JSON"), Health(False, "not ready")),
        (ALIVE, (503, [1]), Health(False, "not ready")),
    ],
)
def test_a_process_is_what_it_answers(
    healthz: tuple[int, object], readyz: tuple[int, object], health: Health
) -> None:
    with answering(healthz=healthz, readyz=readyz) as port:
        assert of_http(port) == health


def test_a_process_that_takes_connections_and_never_answers_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probes, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert of_http(port) == Health(False, "hangs: /healthz gives no answer in 0.2 s")


def test_a_process_that_does_not_listen_is_not_ready() -> None:
    assert of_http(find_free([])) == Health(False, "does not listen")
