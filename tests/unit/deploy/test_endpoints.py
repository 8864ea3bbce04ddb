"""The HTTP endpoints answer whatever other connections do: services and workers alike."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from reviewmesh.process import health
from reviewmesh_kit.settings import HttpSettings
from reviewmesh_worker.serving import endpoints

ANSWERS_WITHIN_S = 5


@pytest.fixture(params=["service", "worker"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    if request.param == "service":
        server = health.serve(HttpSettings(), lambda: float("inf"), lambda: health.ReadyzState(""))
        yield server.server_port
        server.shutdown()
    else:
        server = endpoints.serve(HttpSettings(), lambda: "serving", lambda: "")
        yield server.server_port
        server.shutdown()


def answers(port: int) -> bool:
    for path in ("/healthz", "/readyz", "/metrics"):
        url = f"http://127.0.0.1:{port}{path}"
        with urllib.request.urlopen(url, timeout=ANSWERS_WITHIN_S) as response:
            assert response.status == 200
            assert response.read()
    return True


@pytest.mark.parametrize(
    "said", [b"", b"GET /metrics HTTP/1.1\r\nHost:", b"\0" * 1000, b"GET / HTTP/1.1\r\n" * 200]
)
@pytest.mark.parametrize("connections", [1, 100])
def test_connections_that_say_nothing_useful_keep_nobody_from_an_answer(
    port: int, said: bytes, connections: int
) -> None:
    with ExitStack() as stack:
        for _ in range(connections):
            idle = stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))
            idle.sendall(said)
        assert answers(port)


def test_a_client_that_goes_away_in_its_request_is_no_news(
    port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port), 5) as leaving:
            leaving.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert answers(port)
    assert "Traceback" not in capfd.readouterr().err
