"""A process without the consumer loop: first its startup, then work of its own."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from types import FrameType

from reviewmesh.process.startup import Startup


class OwnWork(ABC):
    """`_work` sets `_heartbeat` again and again, and `_problem` to what it waits for."""

    def __init__(self, startup: Startup, problem: str = "") -> None:
        """`problem`: what it waits for when its work begins."""
        self._startup = startup
        self._started = False
        self._stop = threading.Event()
        self._heartbeat = time.monotonic()
        self._problem = problem
        self.held_up_by = ""

    @property
    def heartbeat(self) -> float:
        return self._heartbeat if self._started else self._startup.heartbeat

    @property
    def waiting_for(self) -> str:
        return self._problem if self._started else self._startup.readiness.waiting_for

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self._startup.request_stop()
        self._stop.set()

    @abstractmethod
    def close(self) -> None:
        """Release resources when `run` will not be called."""

    def run(self) -> None:
        """Returns after a stop."""
        self._startup.wait()
        self._started = True
        self._work()

    @abstractmethod
    def _work(self) -> None:
        """Returns after a stop."""
