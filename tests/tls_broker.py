"""A real broker of a test's own that takes TLS only, and only clients with a certificate."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from reviewmesh.local import artifacts, broker
from reviewmesh.local.authority import CertificatePaths
from reviewmesh.local.ports import HOST
from tests.broker import wait_until
from tests.mesh import free_port

STARTED_WITHIN_S = 120


def client_options(paths: CertificatePaths) -> dict[str, str]:
    """librdkafka's, for a client with this certificate."""
    return {
        "security.protocol": "SSL",
        "ssl.ca.location": str(paths.ca),
        "ssl.certificate.location": str(paths.certificate),
        "ssl.key.location": str(paths.key),
    }


@contextmanager
def tls_broker(folder: Path, server: CertificatePaths, client: CertificatePaths) -> Iterator[str]:
    """Gives its address, ready; `client` is used to see that it is."""
    kafka_dir = artifacts.ensure().kafka_dir
    port, plain, controller = free_port(), free_port(), free_port()
    broker.prepare([broker.Node(1, folder, plain, controller)])
    keystore = folder / "keystore.pem"
    keystore.write_bytes(server.key.read_bytes() + server.certificate.read_bytes())
    file = broker.properties_file(folder)
    properties = dict(
        line.split("=", 1) for line in file.read_text().splitlines() if not line.startswith("#")
    )
    tls = f",TLS://{HOST}:{port}"
    properties["listeners"] += tls
    properties["advertised.listeners"] += tls
    properties["listener.security.protocol.map"] += ",TLS:SSL"
    properties |= {
        "ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keystore),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(server.ca),
    }
    file.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))
    address = f"{HOST}:{port}"
    with (folder / "broker.log").open("wb") as log:
        process = subprocess.Popen(broker.command(kafka_dir, folder), stdout=log, stderr=log)
    try:
        options: dict[str, str | int | float | bool] = {"bootstrap.servers": address}
        options |= {"log_level": 0, **client_options(client)}
        wait_until(lambda: _answers(options), STARTED_WITHIN_S, "the broker takes TLS")
        yield address
    finally:
        process.terminate()
        process.wait(60)


def _answers(options: dict[str, str | int | float | bool]) -> bool:
    try:
        return bool(AdminClient(options).list_topics(timeout=2).brokers)
    except KafkaException:
        return False
