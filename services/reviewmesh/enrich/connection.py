"""The connection to one worker: a gRPC channel, over mutual TLS where certificates are given.

A channel keeps the certificate that it was opened with, so a renewed certificate needs another
channel. The new channel is opened before the old one is closed, so that no call fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from reviewmesh import metrics
from reviewmesh.settings import Settings, WrongSetting
from reviewmesh_kit.certificates import Certificate, CertificateFiles, CertificateProblem
from reviewmesh_kit.settings import variable
from reviewmesh_protos.inference.v1 import inference_pb2_grpc

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.keepalive_time_ms", 20000),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.enable_retries", 0),
)
RENEWED_WITHIN_S = 10.0
# Longer than any call, so that calls in flight end on their own channel.
LAST_CALLS_S = 180.0


def worker_certificates(settings: Settings) -> CertificateFiles | None:
    """The certificate for calls to workers; None for plaintext. Raises WrongSetting."""
    pem = settings.tls.files()
    if pem is None:
        return None
    try:
        files = CertificateFiles(pem, "workers").checked()
    except CertificateProblem as problem:
        raise WrongSetting(f"{variable('tls')}__…: {problem}") from problem
    metrics.CERTIFICATE_NOT_BEFORE.labels("workers").set_function(files.not_before)
    metrics.CERTIFICATE_NOT_AFTER.labels("workers").set_function(files.not_after)
    return files


class WorkerConnection:
    """Belongs to one event loop."""

    def __init__(self, address: str, host: str, tls: CertificateFiles | None) -> None:
        """`address`: IP and port. `host`: the name that the worker's certificate must have."""
        self._address = address
        self._host = host
        self._tls = tls
        self._renewing = False
        self._closed = asyncio.Event()
        certificate = None if tls is None else tls.current()
        self._take(certificate, self._open(certificate))

    def _take(self, certificate: Certificate | None, channel: grpc.aio.Channel) -> None:
        self._certificate = certificate
        self._channel = channel
        self.stub = inference_pb2_grpc.InferenceServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)

    def _open(self, certificate: Certificate | None) -> grpc.aio.Channel:
        if certificate is None:
            return grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS)
        credentials = grpc.ssl_channel_credentials(
            certificate.ca, certificate.key, certificate.chain
        )
        # The certificate has the name, not the address that the name resolved to.
        name = ("grpc.ssl_target_name_override", self._host)
        return grpc.aio.secure_channel(self._address, credentials, options=(*CHANNEL_OPTIONS, name))

    def outdated(self) -> bool:
        """Whether the files hold a newer certificate than the channel."""
        if self._tls is None or self._renewing or self._closed.is_set():
            return False
        return self._tls.current() is not self._certificate

    async def renew(self) -> None:
        """Open a channel with the certificate of the files; returns when the old one is closed.

        If the worker does not answer over the new channel, the old one stays and the caller tries
        again.
        """
        assert self._tls is not None
        self._renewing = True
        certificate, unused = self._tls.current(), self._channel
        channel = self._open(certificate)
        try:
            problem = await self._problem_of(channel)
            if problem or self._closed.is_set():
                unused = channel
            else:
                self._take(certificate, channel)
        finally:
            self._renewing = False
        log = structlog.get_logger(address=self._address)
        if problem:
            log.warning("no connection with the renewed certificate", reason=problem)
        elif unused is not channel:
            log.info("connected with the renewed certificate")
        await self._unless_closed(unused.close(grace=LAST_CALLS_S))
        await unused.close()

    async def _problem_of(self, channel: grpc.aio.Channel) -> str:
        """Why the worker does not answer over the channel; empty if it does.

        With TLS 1.3 a channel is ready before the worker has checked the certificate.
        """
        check = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=RENEWED_WITHIN_S, wait_for_ready=True
        )
        try:
            await self._unless_closed(check)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        return ""

    async def _unless_closed(self, work: Awaitable[object]) -> None:
        """Wait until `work` ends or the connection is closed. Raises what `work` raises."""
        closed = asyncio.create_task(self._closed.wait())
        running = asyncio.ensure_future(work)
        await asyncio.wait((closed, running), return_when=asyncio.FIRST_COMPLETED)
        closed.cancel()
        if running.done():
            running.result()
        else:
            running.cancel()

    async def close(self) -> None:
        self._closed.set()
        await self._channel.close()
