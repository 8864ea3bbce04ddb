"""Keeps a picture of the mesh that is at most a few seconds old, for every screen and stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog
from confluent_kafka import KafkaException

from reviewmesh.avro.registry import RegistryUnavailable, registry_of
from reviewmesh.clock import wall_clock
from reviewmesh.console.processes import Processes, ProcessState
from reviewmesh.kafka.clients import make_admin
from reviewmesh.lag.groups import watched_groups
from reviewmesh.lag.meter import LagMeter, PartitionLag, Snapshot
from reviewmesh.lag.offsets import Broker
from reviewmesh.query.lag import GroupLag, grouped_lag, open_transactions
from reviewmesh.settings import Settings

EVERY_S = 1.5
CALL_TIMEOUT_S = 2.0
# A picture older than this is marked as old.
OLD_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class Backing:
    """The broker or the registry."""

    name: str
    answers: bool
    words: str
    asked_at: float


@dataclass(frozen=True, slots=True)
class Picture:
    """The mesh at one moment; parts that do not answer keep their last values."""

    number: int = 0
    """Rises with each picture."""
    backing: tuple[Backing, ...] = ()
    processes: tuple[ProcessState, ...] = ()
    groups: tuple[GroupLag, ...] = ()
    partitions: tuple[PartitionLag, ...] = ()
    measured_at: float = 0.0
    """When the lag was measured; 0 before the first time."""
    problems: tuple[str, ...] = ()

    def process(self, name: str) -> ProcessState | None:
        return next((state for state in self.processes if state.name == name), None)

    @property
    def troubles(self) -> tuple[str, ...]:
        """What does not answer, is not ready, or could not be measured."""
        return (
            *(f"{part.name}: {part.words}" for part in self.backing if not part.answers),
            *(f"{state.name}: {state.words}" for state in self.processes if not state.ready),
            *self.problems,
        )


class Watch:
    """Each part is asked in a thread of its own, so that one that hangs delays no other."""

    def __init__(
        self, settings: Settings, processes: Processes, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._settings = settings
        self._processes = processes
        self._log = log
        self._changed = threading.Condition()
        self._picture = Picture()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(ask,), name=name, daemon=True)
            for name, ask in (
                ("watch-broker", self._ask_broker),
                ("watch-registry", self._ask_registry),
                ("watch-processes", self._ask_processes),
            )
        ]
        self._threads.append(threading.Thread(target=self._measure, name="watch-lag", daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        with self._changed:
            self._changed.notify_all()

    @property
    def picture(self) -> Picture:
        return self._picture

    def newer_than(self, number: int, timeout_s: float) -> Picture | None:
        """The next picture; None after the timeout or a stop."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._picture.number > number or self._stop.is_set(), timeout_s
            )
            return self._picture if self._picture.number > number else None

    def _put(self, change: Callable[[Picture], Picture]) -> None:
        with self._changed:
            self._picture = replace(change(self._picture), number=self._picture.number + 1)
            self._changed.notify_all()

    def _repeat(self, ask: Callable[[], None]) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                ask()
            except Exception:  # noqa: BLE001 - the next time may be better, and the log says it
                self._log.exception("watching failed", part=threading.current_thread().name)
            self._stop.wait(max(0.1, EVERY_S - (time.monotonic() - began)))

    def _ask_broker(self) -> None:
        admin = make_admin(self._settings.kafka)
        while not self._stop.is_set():
            try:
                found = admin.list_topics(timeout=CALL_TIMEOUT_S)
            except KafkaException as error:
                self._put_backing(Backing("broker", False, error.args[0].str(), time.time()))
                return
            number = len(found.brokers)
            words = f"{number} broker{'s' if number != 1 else ''}"
            self._put_backing(Backing("broker", True, words, time.time()))
            self._stop.wait(EVERY_S)

    def _ask_registry(self) -> None:
        registry = registry_of(self._settings.registry, timeout_s=CALL_TIMEOUT_S)
        try:
            registry.ping()
        except RegistryUnavailable as error:
            self._put_backing(Backing("registry", False, str(error), time.time()))
        else:
            self._put_backing(Backing("registry", True, "answers", time.time()))

    def _put_backing(self, part: Backing) -> None:
        def put(picture: Picture) -> Picture:
            parts = {known.name: known for known in picture.backing} | {part.name: part}
            return replace(picture, backing=tuple(parts[name] for name in sorted(parts)))

        self._put(put)

    def _ask_processes(self) -> None:
        states = self._processes.ask()
        self._put(lambda picture: replace(picture, processes=states))

    def _measure(self) -> None:
        def measure() -> None:
            meter = LagMeter(Broker(self._settings), watched_groups(self._settings), wall_clock)
            try:
                while not self._stop.is_set():
                    began = time.monotonic()
                    self._put_lag(meter.measure())
                    self._stop.wait(max(0.1, EVERY_S - (time.monotonic() - began)))
            finally:
                meter.close()

        self._repeat(measure)

    def _put_lag(self, snapshot: Snapshot) -> None:
        problems = (*snapshot.problems, *open_transactions(snapshot))
        if snapshot.problems:
            self._put(lambda picture: replace(picture, problems=problems))
            return
        grouped = tuple(grouped_lag(snapshot, snapshot.measured_at))
        self._put(
            lambda picture: replace(
                picture,
                groups=grouped,
                partitions=snapshot.rows,
                measured_at=snapshot.measured_at,
                problems=problems,
            )
        )
