"""The gRPC server of a worker: starts it, reports health per task, drains it on a signal."""

from __future__ import annotations

import asyncio
import signal

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from reviewmesh_kit.certificates import CertificateFiles
from reviewmesh_protos.inference.v1 import inference_pb2, inference_pb2_grpc
from reviewmesh_worker.engines.interface import EngineDead
from reviewmesh_worker.serving import endpoints, metrics
from reviewmesh_worker.serving.deployment import Deployment
from reviewmesh_worker.serving.mutual_tls import AllowedClients, is_loopback, server_credentials
from reviewmesh_worker.serving.receiving import Receiving
from reviewmesh_worker.serving.servicer import (
    MAX_REQUEST_BYTES,
    MAX_RESPONSE_BYTES,
    InferenceServicer,
)
from reviewmesh_worker.serving.settings import Settings
from reviewmesh_worker.serving.streams import OpenStreams

LAST_ANSWERS_S = 1.0
CHECK_EVERY_S = 1.0
CALLS_PER_CONNECTION = 64
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_NAMES = (
    inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name,
    health.SERVICE_NAME,
    reflection.SERVICE_NAME,
)


async def serve(
    deployment: Deployment, settings: Settings, log: structlog.stdlib.BoundLogger
) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Raises CertificateProblem, EngineLoadError, OSError for a port, and EngineDead when the engine
    died while serving.
    """
    pem = settings.tls.files()
    tls = None if pem is None else CertificateFiles(pem, "workers").checked()
    allowed = () if tls is None else (AllowedClients(settings.worker.allowed_clients),)
    server = grpc.aio.server(
        interceptors=(*allowed, Receiving(), OpenStreams()),
        options=(
            ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
            ("grpc.max_send_message_length", MAX_RESPONSE_BYTES),
            # Further calls of a connection wait at the client; see `receiving`.
            ("grpc.max_concurrent_streams", CALLS_PER_CONNECTION),
            # Close connections that do not use HTTP/2 or disappeared without a FIN.
            ("grpc.server_handshake_timeout_ms", 5_000),
            # Connections of the mesh are never idle: each has a Watch open.
            ("grpc.max_connection_idle_ms", 60_000),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            # Else the window of each call grows to megabytes that nobody reads yet.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.so_reuseport", 0),
        ),
    )
    servicer = InferenceServicer(deployment, settings.max_in_flight, log)
    checks = ServingHealth(servicer, deployment)
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(checks.servicer, server)
    address = f"{settings.worker.host}:{settings.worker.port}"
    if tls is None:
        reflection.enable_server_reflection(SERVICE_NAMES, server)
        port = server.add_insecure_port(address)
        if not is_loopback(settings.worker.host):
            log.warning("anybody who reaches the port may call: no mutual TLS", address=address)
    else:
        port = server.add_secure_port(address, server_credentials(tls))
        metrics.CERTIFICATE_NOT_BEFORE.labels("workers").set_function(tls.not_before)
        metrics.CERTIFICATE_NOT_AFTER.labels("workers").set_function(tls.not_after)
    metrics.IN_FLIGHT.set_function(lambda: servicer.admission.items)
    metrics.WAITING.set_function(deployment.waiting)
    http = endpoints.serve(settings.http, checks.state, deployment.unavailable)
    await checks.publish()
    await server.start()
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    log.info("starting", port=port, tasks=sorted(deployment.tasks))
    dead: EngineDead | None = None
    try:
        if await started(deployment, stopping):
            servicer.state = "serving"
            await checks.publish()
            log.info("serving", port=port)
            dead = await stopped_or_dead(servicer, deployment, checks, stopping)
        servicer.state = "draining"
        log.info("draining", in_flight=servicer.admission.items)
        await checks.publish()
        # The port stays open, so that new calls are refused with the reason.
        await servicer.admission.emptied(settings.worker.grace_s)
    finally:
        await server.stop(LAST_ANSWERS_S)
        http.shutdown()
        await deployment.close()
    if dead is not None:
        raise dead
    log.info("stopped")


class ServingHealth:
    """The status in grpc.health.v1 and /readyz; a task is SERVING while its calls are accepted."""

    def __init__(self, servicer: InferenceServicer, deployment: Deployment) -> None:
        self.servicer = health.aio.HealthServicer()
        self._inference = servicer
        self._deployment = deployment
        self._published: dict[str, bool] = {}
        self._publishing = asyncio.Lock()

    def state(self) -> str:
        """loading, serving, draining or unavailable; also draining while every task switches its
        model."""
        if self._inference.state == "serving" and not any(self._serving().values()):
            return "unavailable" if self._deployment.unavailable() else "draining"
        return self._inference.state

    async def publish(self) -> None:
        async with self._publishing:
            overall = self.state() == "serving"
            services = {"": overall, SERVICE_NAMES[0]: overall} | self._serving()
            for service, serving in services.items():
                if self._published.get(service) is not serving:
                    await self.servicer.set(service, SERVING if serving else NOT_SERVING)
            self._published = services

    def _serving(self) -> dict[str, bool]:
        on = self._inference.state == "serving"
        return {task: on and self._deployment.is_serving(task) for task in self._deployment.tasks}


async def stopped_or_dead(
    servicer: InferenceServicer,
    deployment: Deployment,
    checks: ServingHealth,
    stopping: asyncio.Event,
) -> EngineDead | None:
    """Follow the selection until a signal, or until a call or a check finds an engine dead."""
    watching = asyncio.create_task(deployment.watch(checks.publish))
    try:
        while not stopping.is_set():
            servicer.alarm.clear()
            await checks.publish()
            try:
                deployment.check()
            except EngineDead as dead:
                return dead
            if watching.done():
                # It only ends with an unexpected error.
                return EngineDead(f"the aliases are no longer watched: {watching.exception()!r}")
            waits = [asyncio.ensure_future(event.wait()) for event in (stopping, servicer.alarm)]
            await asyncio.wait(waits, timeout=CHECK_EVERY_S, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        return None
    finally:
        watching.cancel()
        await asyncio.wait([watching], timeout=LAST_ANSWERS_S)


async def started(deployment: Deployment, stopping: asyncio.Event) -> bool:
    """Load, which may take minutes; False when a signal came first. Raises EngineLoadError."""
    loading = asyncio.create_task(deployment.start())
    signalled = asyncio.create_task(stopping.wait())
    await asyncio.wait((loading, signalled), return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    if loading.done():
        loading.result()
        return True
    loading.cancel()
    await asyncio.wait((loading,), timeout=LAST_ANSWERS_S)
    return False
