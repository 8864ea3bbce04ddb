"""The registry client over TLS with certificates on both sides and basic auth, on a real server."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from reviewmesh.avro.registry import RegistryUnavailable, registry_of
from reviewmesh.settings import RegistrySettings

USER, PASSWORD = "mesh", "hunter2-s3cret"


class Handler(BaseHTTPRequestHandler):
    """Answers `/subjects` to who knows the password, as registries behind a proxy do."""

    def do_GET(self) -> None:
        known = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers["Authorization"] != f"Basic {known}":
            self._answer(401, b"")
        else:
            self._answer(200, json.dumps(["a"]).encode())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@dataclass
class Registry:
    port: int
    files: dict[str, str]

    def settings(self, user: str = "", **values: Any) -> RegistrySettings:
        return RegistrySettings(url=f"https://{user}localhost:{self.port}/ccompat", **values)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder: Path = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    client = authority.issue_cert("mesh.test")
    client.cert_chain_pems[0].write_to_path(folder / "mesh.pem")
    client.private_key_pem.write_to_path(folder / "mesh.key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    # Handshakes that fail on purpose are no news.
    server.handle_error = lambda request, client_address: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    files = {
        "ssl_ca_location": str(folder / "ca.pem"),
        "ssl_certificate_location": str(folder / "mesh.pem"),
        "ssl_key_location": str(folder / "mesh.key"),
    }
    yield Registry(server.server_port, files)
    server.shutdown()
    thread.join()
    server.server_close()


def test_certificates_and_password_are_used(registry: Registry) -> None:
    settings = registry.settings(username=USER, password=PASSWORD, **registry.files)
    registry_of(settings).ping()


def test_a_password_in_the_address_is_used(registry: Registry) -> None:
    registry_of(registry.settings(f"{USER}:{PASSWORD}@", **registry.files)).ping()


def test_a_server_that_nobody_trusts_is_refused(registry: Registry) -> None:
    with pytest.raises(RegistryUnavailable, match="certificate verify failed"):
        registry_of(registry.settings(username=USER, password=PASSWORD)).ping()


def test_a_client_without_certificate_is_refused(registry: Registry) -> None:
    only_authority = {"ssl_ca_location": registry.files["ssl_ca_location"]}
    settings = registry.settings(username=USER, password=PASSWORD, **only_authority)
    with pytest.raises(RegistryUnavailable):
        registry_of(settings).ping()


@pytest.mark.parametrize("user", ["", f"{USER}:wrong-{PASSWORD}@"])
def test_a_wrong_password_is_said_and_not_shown(registry: Registry, user: str) -> None:
    client = registry_of(registry.settings(user, **registry.files))
    with pytest.raises(RegistryUnavailable) as caught:
        client.ping()
    assert "401" in str(caught.value)
    assert "REVIEWMESH_REGISTRY__PASSWORD" in str(caught.value)
    assert PASSWORD not in str(caught.value)
