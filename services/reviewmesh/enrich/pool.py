"""The workers of one task: discovery, health checks, and which of them is least loaded.

Addresses come from a list or DNS and are resolved again every few seconds. Every worker's health is
checked all the time, so that one that hangs, drains or has died is ejected even without calls.
"""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2
from prometheus_client import Counter, Gauge

from reviewmesh.enrich.breaker import Breaker, State
from reviewmesh.enrich.connection import WorkerConnection
from reviewmesh_kit.certificates import CertificateFiles

RESOLVE_EVERY_S = 5.0
RESOLVE_TIMEOUT_S = 5.0
CHECK_EVERY_S = 2.0
CHECK_TIMEOUT_S = 3.0
# More than one, because a busy worker may miss a health check.
SILENT_CHECKS = 2
TIMER_MARGIN_S = 0.005
LOG_MISSING_AFTER_S = 2.0
LOG_MISSING_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """The workers of a pool, and how the pool is reported."""

    task: str
    addresses: tuple[str, ...]
    setting: str
    """The setting that the addresses come from, for messages."""
    serving: Gauge
    """The number of workers that serve."""
    calls: Counter
    """Calls that were sent to the workers."""
    empty_message: str = "reviews wait and nothing is lost"
    """Logged while no worker serves."""
    tls: CertificateFiles | None = None
    """None: calls in plaintext."""


class Worker:
    """One address: its connection, its circuit breaker, and the asyncio task of its health
    checks."""

    def __init__(
        self, address: str, host: str, tls: CertificateFiles | None, clock: Callable[[], float]
    ) -> None:
        self.address = address
        self.breaker = Breaker(clock)
        self.connection = WorkerConnection(address, host, tls)
        self.reason = "not checked yet"
        self.silent_checks = 0
        self.retired = False
        self.watch: asyncio.Task[None] | None = None


class WorkerPool:
    """Belongs to one event loop.

    `on_change` is called when a worker may take a call again, `on_hang` when a worker stops
    answering health checks, so that its items are sent to others.
    """

    def __init__(
        self,
        config: PoolConfig,
        on_change: Callable[[], None],
        on_hang: Callable[[Worker], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self.task = config.task
        self._addresses = config.addresses
        self._on_change = on_change
        self._on_hang = on_hang
        self._clock = clock
        self._workers: dict[str, Worker] = {}
        self._found: dict[str, dict[str, str]] = {}
        self._unresolved: dict[str, str] = {}
        self._resolver: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._log = structlog.get_logger(task=config.task)
        self._missing_since: float | None = None
        self._missing_logged_at = float("-inf")

    def start(self) -> None:
        self._resolver = asyncio.create_task(self._resolve_for_ever())

    async def close(self) -> None:
        if self._resolver is not None:
            self._resolver.cancel()
        for worker in self._workers.values():
            worker.retired = True
            if worker.watch is not None:
                worker.watch.cancel()
            await worker.connection.close()
        await asyncio.gather(*self._background)

    # -- choosing; called from other threads too, except `least_loaded`
    # -----------------------------

    def any_serving(self) -> bool:
        """Whether a worker is not ejected."""
        return any(w.breaker.state is not State.EJECTED for w in tuple(self._workers.values()))

    def any_answering(self) -> bool:
        """Whether a worker serves and does not fail its calls."""
        return any(
            w.breaker.state is State.SERVING
            or (w.breaker.state is State.HALF_OPEN and not w.breaker.fails_trials())
            for w in tuple(self._workers.values())
        )

    def missing(self) -> str:
        """That no worker serves, and the addresses that were tried; empty if one serves."""
        if self.any_serving():
            return ""
        tried = [f"{w.address} ({w.reason})" for w in tuple(self._workers.values())]
        tried += [f"{name} ({why})" for name, why in tuple(self._unresolved.items())]
        where = ", ".join(sorted(tried)) or ", ".join(self._addresses)
        return f"no worker for task {self.task} reachable at {where}"

    def has_room(self) -> bool:
        return any(worker.breaker.room() for worker in tuple(self._workers.values()))

    def least_loaded(self) -> Worker | None:
        """The worker to send to; None without room.

        Prefers workers that are not half-open: a trial call may cost an attempt.
        """
        free = [worker for worker in self._workers.values() if worker.breaker.room()]

        def rank(worker: Worker) -> tuple[bool, int]:
            return worker.breaker.state is State.HALF_OPEN, worker.breaker.load()

        return min(free, key=rank, default=None)

    # -- outcomes of calls -------------------------------------------------------------------

    def hold_off(self, worker: Worker, seconds: float) -> None:
        """Send the worker nothing for a while: it refused a call for lack of room."""
        worker.breaker.answered()
        pause_s = worker.breaker.hold_off(seconds)
        # A timer may fire slightly early, and nothing else may trigger another dispatch.
        asyncio.get_running_loop().call_later(pause_s + TIMER_MARGIN_S, self._on_change)

    def failed(self, worker: Worker, reason: str) -> None:
        """A call to the worker failed as a whole: eject it after several in a row."""
        if worker.breaker.failed():
            self.eject(worker, reason)

    def eject(self, worker: Worker, reason: str, because_of_calls: bool = True) -> None:
        """Send the worker nothing until a health check says SERVING."""
        if worker.retired or worker.breaker.state is State.EJECTED:
            return
        if worker.watch is not None:
            worker.watch.cancel()
        worker.watch = asyncio.create_task(
            self._watch(worker, self._eject_worker(worker, reason, because_of_calls))
        )

    def ended(self, worker: Worker, items: int, suspect: bool) -> None:
        """A call ended, with so many items that had no result before."""
        worker.breaker.ended(items, suspect)
        if worker.retired and not worker.breaker.calls:
            self._close_channel(worker)

    # -- health ------------------------------------------------------------------------------

    async def _watch(self, worker: Worker, pause: float) -> None:
        while True:
            await asyncio.sleep(pause)
            reason = await self._check(worker)
            if reason:
                hangs = worker.silent_checks >= SILENT_CHECKS
                pause = self._eject_worker(worker, reason, because_of_calls=hangs)
                if hangs:
                    self._on_hang(worker)
                self._log_missing()
                continue
            pause = CHECK_EVERY_S * random.uniform(0.75, 1.25)
            if worker.breaker.healthy():
                self._log.info("worker serving", address=worker.address)
                self._count()
                self._log_missing()
                self._on_change()

    async def _check(self, worker: Worker) -> str:
        """The status or error of a health check; empty when the worker is SERVING."""
        request = health_pb2.HealthCheckRequest(service=self.task)
        try:
            answer = await worker.connection.health.Check(request, timeout=CHECK_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            silent = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            worker.silent_checks = worker.silent_checks + 1 if silent else 0
            return f"{error.code().name}: {error.details()}"
        worker.silent_checks = 0
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            return ""
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def _eject_worker(self, worker: Worker, reason: str, because_of_calls: bool) -> float:
        """Eject the worker; returns the seconds until the next check."""
        if worker.breaker.state is not State.EJECTED:
            self._log.warning("worker ejected", address=worker.address, reason=reason)
        worker.reason = reason
        pause = worker.breaker.eject(because_of_calls)
        self._count()
        return pause

    def _count(self) -> None:
        states = [worker.breaker.state for worker in self._workers.values()]
        serving = sum(state is not State.EJECTED for state in states)
        self._config.serving.set(serving)

    def _log_missing(self) -> None:
        """Log that no worker serves, after COMPLAIN_AFTER_S and then every COMPLAIN_EVERY_S."""
        now = self._clock()
        if self.any_serving():
            self._missing_since = None
            self._missing_logged_at = float("-inf")
        elif self._missing_since is None:
            self._missing_since = now
        elif (
            now - self._missing_since >= LOG_MISSING_AFTER_S
            and now - self._missing_logged_at >= LOG_MISSING_EVERY_S
        ):
            self._missing_logged_at = now
            self._log.warning(self._config.empty_message, reason=self.missing())

    # -- addresses ---------------------------------------------------------------------------

    async def _resolve_for_ever(self) -> None:
        while True:
            await asyncio.gather(*(self._resolve(address) for address in self._addresses))
            self._set_addresses(
                {ip: host for found in self._found.values() for ip, host in found.items()}
            )
            self._renew_connections()
            self._log_missing()
            await asyncio.sleep(RESOLVE_EVERY_S)

    def _set_addresses(self, wanted: dict[str, str]) -> None:
        """Add and remove workers. `wanted`: host names by address."""
        for address in wanted.keys() - self._workers.keys():
            worker = Worker(address, wanted[address], self._config.tls, self._clock)
            self._workers[address] = worker
            worker.watch = asyncio.create_task(self._watch(worker, 0))
        for address in self._workers.keys() - wanted.keys():
            self._log.info(
                "worker removed: its name does not resolve to this address any more",
                address=address,
            )
            self._retire(self._workers.pop(address))
        self._count()

    async def _resolve(self, address: str) -> None:
        """Look up the addresses of a name. After a failure the known ones stay."""
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        try:
            found = await asyncio.wait_for(
                asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM),
                RESOLVE_TIMEOUT_S,
            )
        except ValueError:
            self._unresolvable(address, f"expected host:port in {self._config.setting}")
            return
        except TimeoutError:
            self._unresolvable(address, f"no answer from DNS in {RESOLVE_TIMEOUT_S:g} s")
            return
        except OSError as error:
            self._unresolvable(address, f"does not resolve: {error}")
            return
        self._unresolved.pop(address, None)
        self._found[address] = {
            f"[{entry[4][0]}]:{port}"
            if entry[0] == socket.AF_INET6
            else f"{entry[4][0]}:{port}": host
            for entry in found
        }

    def _unresolvable(self, address: str, reason: str) -> None:
        if self._unresolved.get(address) != reason:
            self._log.warning(
                "cannot resolve the address of a worker", address=address, reason=reason
            )
        self._unresolved[address] = reason

    def _retire(self, worker: Worker) -> None:
        """Send no new calls. Calls in flight end at their deadlines at the latest."""
        worker.retired = True
        worker.breaker.eject(because_of_calls=False)
        if worker.watch is not None:
            worker.watch.cancel()
        if not worker.breaker.calls:
            self._close_channel(worker)

    def _close_channel(self, worker: Worker) -> None:
        self._run_in_background(worker.connection.close())

    def _renew_connections(self) -> None:
        for worker in self._workers.values():
            if worker.connection.outdated():
                self._run_in_background(worker.connection.renew())

    def _run_in_background(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine; `close` waits for it."""
        running = asyncio.create_task(coroutine)
        self._background.add(running)
        running.add_done_callback(self._background.discard)
