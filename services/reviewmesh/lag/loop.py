"""Measures every second. While the broker is away the last known numbers stay."""

from __future__ import annotations

import threading
import time
from types import FrameType

import structlog

from reviewmesh.lag.meter import LagMeter
from reviewmesh.lag.metrics import LagCollector

EVERY_S = 1.0
SAID_AGAIN_AFTER_S = 60.0


class LagLoop:
    """Runs until it is stopped."""

    def __init__(
        self, meter: LagMeter, collector: LagCollector, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._meter = meter
        self._collector = collector
        self._log = log
        self._stop = threading.Event()
        self._said_at = float("-inf")
        self.heartbeat = time.monotonic()
        self.waiting_for = "the first measurement"
        self.held_up_by = ""

    def stop(self, number: int, frame: FrameType | None) -> None:
        """A signal's handler."""
        self._stop.set()

    def close(self) -> None:
        self._meter.close()

    def run(self) -> None:
        due = time.monotonic()
        try:
            while not self._stop.is_set():
                self.heartbeat = time.monotonic()
                self._measure()
                due = max(due + EVERY_S, time.monotonic())
                self._stop.wait(due - time.monotonic())
        finally:
            self.close()

    def _measure(self) -> None:
        snapshot = self._meter.measure()
        self._collector.show(snapshot)
        problems = "; ".join(snapshot.problems)
        if problems and (
            not self.waiting_for or time.monotonic() - self._said_at > SAID_AGAIN_AFTER_S
        ):
            self._said_at = time.monotonic()
            self._log.warning("not everything can be measured", problems=snapshot.problems[:5])
        if self.waiting_for and not problems:
            self._log.info("everything is measured", partitions=len(snapshot.rows))
        self.waiting_for = problems
