"""Certificates that are replaced while reviews flow: to Kafka and to the workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reviewmesh.local.authority import Authority, CertificatePaths
from tests.broker import TestStack
from tests.mesh import SERVICES, Mesh, assert_exactly_once
from tests.stream import Stream
from tests.tls_broker import client_options, tls_broker

CHANGED = "replaced the Kafka clients: a certificate was renewed"
REFUSED = "no connection to Kafka with the renewed certificate"
ROUNDS = 3
# Two seconds are promised. A busy machine gets more.
LONGEST_CHANGE_S = 8.0


class SecureMesh(Mesh):
    """Mutual TLS on every hop but the registry's."""

    def __init__(self, stack: TestStack, prefix: str, folder: Path, authority: Authority) -> None:
        self.authority = authority
        super().__init__(stack, prefix, folder)
        services, worker = self.issue()
        self.kafka |= client_options(authority.issue("test"))
        self.settings = {
            f"REVIEWMESH_KAFKA__{name.upper().replace('.', '_')}": value
            for name, value in client_options(services).items()
        } | tls_settings(services)
        self.worker = tls_settings(worker) | {"REVIEWMESH_WORKER__ALLOWED_CLIENTS": "services"}

    def __enter__(self) -> SecureMesh:
        return self

    def issue(self) -> tuple[CertificatePaths, CertificatePaths]:
        """New certificates in place of the ones before."""
        valid = timedelta(minutes=3)
        return (
            self.authority.issue("services", valid=valid),
            self.authority.issue("worker", addresses=("127.0.0.1",), valid=valid),
        )

    def add(self, name: str, *args: Any, **options: Any) -> Any:
        process = super().add(name, *args, **options)
        if name in self.worker_ports:
            process.environment |= self.worker
        return process

    def changes(self, name: str) -> list[dict[str, Any]]:
        """What a service logged each time that it changed over."""
        lines = self.processes[name].log.read_text().splitlines()
        return [entry for entry in map(json.loads, lines) if entry["event"] == CHANGED]


def tls_settings(paths: CertificatePaths) -> dict[str, str]:
    return {
        "REVIEWMESH_TLS__CA": str(paths.ca),
        "REVIEWMESH_TLS__CERTIFICATE": str(paths.certificate),
        "REVIEWMESH_TLS__KEY": str(paths.key),
    }


def has_enriched(stream: Stream, count: int) -> bool:
    return len(stream.enriched()) >= count


@pytest.fixture
def mesh(stack: TestStack, prefix: str, tmp_path: Path) -> Iterator[SecureMesh]:
    authority = Authority(tmp_path / "authority")
    server = authority.issue("broker", addresses=("127.0.0.1",))
    with tls_broker(tmp_path / "broker", server, authority.issue("test")) as address:
        secure = TestStack(address, stack.registry_url, None)
        with SecureMesh(secure, prefix, tmp_path, authority) as mesh:
            mesh.start()
            yield mesh


def has_changed(mesh: SecureMesh, times: int) -> bool:
    return all(len(mesh.changes(name)) >= times for name in SERVICES)


def test_reviews_flow_while_certificates_are_replaced(mesh: SecureMesh, tmp_path: Path) -> None:
    with Stream(mesh, every_s=0.02) as stream:
        mesh.wait_for(partial(has_enriched, stream, 20), 60, "reviews come out")
        for turn in range(1, ROUNDS + 1):
            mesh.issue()
            mesh.wait_for(partial(has_changed, mesh, turn), 60, f"all use certificate {turn + 1}")
            mesh.wait_for(partial(has_enriched, stream, len(stream.enriched()) + 20), 60, "output")
        stranger = Authority(tmp_path / "stranger").issue("services")
        mine = mesh.authority.folder / "services"
        mine.with_suffix(".key").write_bytes(stranger.key.read_bytes())
        mine.with_suffix(".pem").write_bytes(stranger.certificate.read_bytes())
        for name in SERVICES:
            log = mesh.processes[name].log
            mesh.wait_for(lambda log=log: REFUSED in log.read_text(), 60, f"{name} says no")  # type: ignore[misc]
        mesh.wait_for(partial(has_enriched, stream, len(stream.enriched()) + 20), 60, "output")
    assert_exactly_once(stream.published, stream.wait_enriched())
    for name in SERVICES:
        assert len(mesh.changes(name)) == ROUNDS
        for change in mesh.changes(name):
            assert len(change["kept"]) == 6, f"{name} lost partitions: {change}"
            assert change["seconds"] < LONGEST_CHANGE_S, name
        logged = mesh.processes[name].log.read_text()
        for sign in ("revoked", "lost", "replacing the producer", "joining the group again"):
            assert f'"event": "{sign}' not in logged, f"{name}: {sign}"
    assert mesh.processes["worker"].metric("reviewmesh_worker_refused_total") == 0


@pytest.mark.nightly
def test_certificates_are_replaced_while_replicas_come_and_go(mesh: SecureMesh) -> None:
    """The group may rebalance in the middle of a change."""
    with Stream(mesh, every_s=0.01) as stream:
        mesh.wait_for(partial(has_enriched, stream, 20), 60, "reviews come out")
        for turn in range(1, ROUNDS + 1):
            replicas = [mesh.add(name, slot="1") for name in SERVICES]
            for replica in replicas:
                replica.start()
            mesh.issue()
            mesh.wait_for(lambda: all(r.is_ready() for r in replicas), 120, "replicas")  # noqa: B023
            mesh.issue()
            for replica in replicas:
                assert replica.terminate() == 0
                del mesh.processes[replica.name]
            mesh.wait_for(partial(has_changed, mesh, 2 * turn), 60, "all have changed over")
    assert_exactly_once(stream.published, stream.wait_enriched())
