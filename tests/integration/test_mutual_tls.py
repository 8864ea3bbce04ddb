"""Calls between enrichers and workers over mutual TLS: who is let in, and certificates that rotate.

The worker is its own server as a process; the client is the enricher's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from reviewmesh.local.authority import Authority, CertificatePaths
from reviewmesh_kit.certificates import CertificateFiles, PemFiles
from tests.inference import Driver, ScriptedWorker, soon

ENRICHER = "enricher-ner"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
NOT_AFTER = "reviewmesh_worker_certificate_not_after_timestamp_seconds"
SPIFFE = "spiffe://company.example/reviewmesh/enricher-ner"


def worker_settings(paths: CertificatePaths, allowed: str = ENRICHER) -> dict[str, str]:
    return {
        "REVIEWMESH_TLS__CA": str(paths.ca),
        "REVIEWMESH_TLS__CERTIFICATE": str(paths.certificate),
        "REVIEWMESH_TLS__KEY": str(paths.key),
        "REVIEWMESH_WORKER__ALLOWED_CLIENTS": allowed,
    }


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def worker(tmp_path: Path, authority: Authority) -> Iterator[ScriptedWorker]:
    paths = authority.issue("worker-ner", dns=("localhost",), addresses=("127.0.0.1",))
    with ExitStack() as stack:
        worker = ScriptedWorker(tmp_path / "worker", worker_settings(paths, f"{ENRICHER},{SPIFFE}"))
        stack.callback(worker.stop)
        worker.start()
        yield worker


def was_refused(driver: Driver) -> bool:
    why = driver.client.waiting_for()
    # Before an address is resolved, it is named without a reason.
    return "no worker" in why and "(" in why and "not checked yet" not in why


def driver_of(worker: ScriptedWorker, paths: CertificatePaths | None, host: str = "") -> Driver:
    address = f"{host or worker.host}:{worker.port}"
    tls = None
    if paths is not None:
        tls = CertificateFiles(PemFiles(paths.ca, paths.certificate, paths.key), "workers")
    return Driver([address], tls=tls)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("by", ["dns", "uri"])
def test_an_allowed_name_is_answered(
    worker: ScriptedWorker, authority: Authority, host: str, by: str
) -> None:
    paths = (
        authority.issue(ENRICHER) if by == "dns" else authority.issue("somebody", uris=(SPIFFE,))
    )
    driver = driver_of(worker, paths, host)
    try:
        driver.submit(["one", "two"])
        assert all(answer.output is not None for answer in driver.wait())
    finally:
        driver.client.close()


def test_others_are_refused_and_their_items_wait(
    worker: ScriptedWorker, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger")
    foreign = stranger.issue(ENRICHER)
    of = {
        "plaintext": driver_of(worker, None),
        "another authority": driver_of(
            worker, CertificatePaths(authority.ca, foreign.certificate, foreign.key)
        ),
        "another name": driver_of(worker, authority.issue("enricher-topic")),
    }
    try:
        for driver in of.values():
            driver.submit(["secret"])
        for what, driver in of.items():
            soon(partial(was_refused, driver), what)
            assert driver.finished() == 0, what
        assert "PERMISSION_DENIED" in of["another name"].client.waiting_for()
        assert "got enricher-topic" in of["another name"].client.waiting_for()
    finally:
        for driver in of.values():
            driver.client.close()
    assert worker.metric("reviewmesh_worker_items_total") == 0


def test_a_worker_that_shows_another_name_gets_nothing(
    tmp_path: Path, authority: Authority
) -> None:
    paths = authority.issue("worker-topic", dns=("worker-topic.example",))
    worker = ScriptedWorker(tmp_path / "worker", worker_settings(paths))
    try:
        worker.start()
        driver = driver_of(worker, authority.issue(ENRICHER))
        driver.submit(["secret"])
        soon(lambda: "UNAVAILABLE" in driver.client.waiting_for(), "it is not called")
        assert driver.finished() == 0
        assert worker.metric("reviewmesh_worker_items_total") == 0
        driver.client.close()
    finally:
        worker.stop()


def test_every_method_wants_an_allowed_name(worker: ScriptedWorker, authority: Authority) -> None:
    paths = authority.issue("enricher-topic")
    credentials = grpc.ssl_channel_credentials(
        paths.ca.read_bytes(), paths.key.read_bytes(), paths.certificate.read_bytes()
    )
    with grpc.secure_channel(worker.address, credentials) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        with pytest.raises(grpc.RpcError) as error:
            health.Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.RpcError) as error:
            next(health.Watch(health_pb2.HealthCheckRequest(), timeout=5))
        assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
        reflection: Any = channel.stream_stream(REFLECTION)
        with pytest.raises(grpc.RpcError) as error:
            next(reflection(iter([b""]), timeout=5))
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_certificates_rotate_under_load_without_a_failed_call(
    worker: ScriptedWorker, authority: Authority
) -> None:
    driver = driver_of(worker, authority.issue(ENRICHER))
    with capture_logs() as logs:
        try:
            driver.submit(["before"])
            driver.wait()
            first = worker.metric(NOT_AFTER)
            worker.script(delay_ms=50)
            later = timedelta(days=400)
            authority.issue("worker-ner", dns=("localhost",), addresses=("127.0.0.1",), valid=later)
            authority.issue(ENRICHER, valid=later)

            def rotated() -> bool:
                driver.submit(["during"] * 20)
                driver.wait()
                events = [log["event"] for log in logs]
                return (
                    worker.metric(NOT_AFTER) > first
                    and "connected with the renewed certificate" in events
                )

            soon(rotated, "both use their new certificates")
            driver.submit(["after"] * 20)
            assert all(answer.output is not None for answer in driver.wait())
        finally:
            driver.client.close()
    assert not [log for log in logs if log["log_level"] == "warning"]
    assert worker.refused("UNAVAILABLE") == worker.refused("PERMISSION_DENIED") == 0


def test_a_file_that_is_wrong_leaves_the_last_good_certificate_in_use(
    worker: ScriptedWorker, authority: Authority
) -> None:
    paths = authority.issue(ENRICHER)
    driver = driver_of(worker, paths)
    with capture_logs() as logs:
        try:
            paths.key.write_text("half a key")

            def said() -> list[str]:
                driver.submit(["meanwhile"])
                driver.wait()
                return [log["reason"] for log in logs if log["event"] == "certificate not renewed"]

            soon(lambda: bool(said()), "it says which file is wrong")
            assert said() == [f"{paths.key}: expected a private key in PEM, without a password"]
        finally:
            driver.client.close()
