"""The workers of one task: which are there, which is least loaded, which to leave alone for now."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from reviewmesh_protos.inference.v1 import inference_pb2, inference_pb2_grpc

MAX_MESSAGE_BYTES = 32 * 1024 * 1024
RESOLVE_EVERY_S = 5.0
PROBE_TIMEOUT_S = 2.0
FIRST_PROBE_S = 0.1
LONGEST_PROBE_S = 2.0
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 20000),
    ("grpc.keepalive_timeout_ms", 5000),
    ("grpc.enable_retries", 0),
)


class Endpoint:
    """One worker. It starts ejected and gets traffic after its first good health check."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        self.stub = inference_pb2_grpc.InferenceServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)
        self.serving = False
        self.in_flight = 0
        self.reported_by_others = 0
        self.not_before = 0.0
        self.probe: asyncio.Task[None] | None = None

    def took(self, load: inference_pb2.Load) -> None:
        """What the worker has beside our own items, by its snapshot."""
        self.reported_by_others = max(0, load.running + load.waiting - self.in_flight)

    def load(self) -> int:
        return self.in_flight + self.reported_by_others


class WorkerPool:
    """Lives in one event loop. `on_change` is called when a worker may take a call again."""

    def __init__(self, task: str, addresses: Sequence[str], on_change: Callable[[], None]) -> None:
        self._task = task
        self._addresses = tuple(addresses)
        self._on_change = on_change
        self._endpoints: dict[str, Endpoint] = {}
        self._resolver: asyncio.Task[None] | None = None
        self._log = structlog.get_logger(task=task)
        self._complained = False

    def start(self) -> None:
        self._resolver = asyncio.create_task(self._resolve_for_ever())

    async def close(self) -> None:
        if self._resolver is not None:
            self._resolver.cancel()
        for endpoint in self._endpoints.values():
            await self._retire(endpoint)

    def any_serving(self) -> bool:
        return any(endpoint.serving for endpoint in self._endpoints.values())

    def least_loaded(self) -> Endpoint | None:
        now = time.monotonic()
        free = [
            endpoint
            for endpoint in self._endpoints.values()
            if endpoint.serving and endpoint.not_before <= now
        ]
        return min(free, key=Endpoint.load, default=None)

    def hold_off(self, endpoint: Endpoint, seconds: float) -> None:
        """The worker is full: leave it alone for a while."""
        endpoint.not_before = time.monotonic() + seconds
        asyncio.get_running_loop().call_later(seconds, self._on_change)

    def eject(self, endpoint: Endpoint, reason: str) -> None:
        """Take it out until a health check says SERVING."""
        if endpoint.serving:
            self._log.warning("worker ejected", address=endpoint.address, reason=reason)
        endpoint.serving = False
        if endpoint.probe is None or endpoint.probe.done():
            endpoint.probe = asyncio.create_task(self._probe_until_serving(endpoint))

    async def _probe_until_serving(self, endpoint: Endpoint) -> None:
        pause = FIRST_PROBE_S
        request = health_pb2.HealthCheckRequest(service=self._task)
        while True:
            try:
                answer = await endpoint.health.Check(request, timeout=PROBE_TIMEOUT_S)
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    break
                reason = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
            except grpc.aio.AioRpcError as error:
                reason = f"{error.code().name}: {error.details()}"
            if not self.any_serving() and not self._complained and pause > 1:
                self._complained = True
                self._log.warning(
                    "no worker answers; reviews wait and nothing is lost",
                    address=endpoint.address,
                    reason=reason,
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PROBE_S)
        self._complained = False
        endpoint.serving = True
        endpoint.reported_by_others = 0
        self._log.info("worker serving", address=endpoint.address)
        self._on_change()

    async def _resolve_for_ever(self) -> None:
        while True:
            wanted: set[str] = set()
            for address in self._addresses:
                wanted |= await self._resolve(address)
            for address in wanted - self._endpoints.keys():
                endpoint = self._endpoints[address] = Endpoint(address)
                self.eject(endpoint, "not checked yet")
            for address in self._endpoints.keys() - wanted:
                await self._retire(self._endpoints.pop(address))
            await asyncio.sleep(RESOLVE_EVERY_S)

    async def _resolve(self, address: str) -> set[str]:
        """Every address behind a name; on a failure those that are known stay."""
        host, _, port = address.rpartition(":")
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host.strip("[]"), int(port), type=socket.SOCK_STREAM
            )
        except (OSError, ValueError) as error:
            self._log.warning("worker address does not resolve", address=address, error=str(error))
            return set(self._endpoints)
        return {
            f"[{entry[4][0]}]:{port}" if entry[0] == socket.AF_INET6 else f"{entry[4][0]}:{port}"
            for entry in found
        }

    async def _retire(self, endpoint: Endpoint) -> None:
        endpoint.serving = False
        if endpoint.probe is not None:
            endpoint.probe.cancel()
        await endpoint.channel.close(grace=1.0)
