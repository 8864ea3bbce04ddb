"""What takes a while to read: read while somebody looks, kept, and marked once it is old."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import structlog
from confluent_kafka import KafkaException

from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.console.watch import OLD_AFTER_S
from reviewmesh.query.errors import CannotReach

EVERY_S = 1.5
# A page waits so long for what is read for it, and then shows the last values.
WAIT_S = 2.0
# The first one waits until a broker that is away is known to be.
FIRST_WAIT_S = 6.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """The last values, and when they were read."""

    value: T | None = None
    """None before the first time."""
    read_at: float = 0.0
    """Seconds since 1970."""
    problem: str = ""
    """Why the last try failed."""

    def is_old(self, now: float) -> bool:
        return bool(self.problem) or now - self.read_at > OLD_AFTER_S

    def needed(self, what: str) -> T:
        """The values. Raises CannotReach before the first time."""
        if self.value is None:
            raise CannotReach(self.problem or f"{what} are being read; load it again")
        return self.value


class KeptReading(Generic[T]):
    """Threads share it; one of them reads at a time, and nobody reads while nobody looks."""

    def __init__(self, read: Callable[[], T], log: structlog.stdlib.BoundLogger) -> None:
        self._read = read
        self._log = log
        self._lock = threading.Lock()
        self._reading: Reading[T] = Reading()
        self._done: threading.Event | None = None
        self._tried_at = -EVERY_S

    def reading(self) -> Reading[T]:
        """What is read now, if that takes no longer than a page waits, else the last values."""
        with self._lock:
            if self._done is None:
                if time.monotonic() - self._tried_at < EVERY_S:
                    return self._reading
                self._done = threading.Event()
                threading.Thread(target=self._try, args=(self._done,), daemon=True).start()
            done = self._done
            is_first = not self._reading.read_at and not self._reading.problem
        done.wait(FIRST_WAIT_S if is_first else WAIT_S)
        return self._reading

    def _try(self, done: threading.Event) -> None:
        try:
            reading = Reading(self._read(), time.time())
        except (CannotReach, KafkaException, RegistryUnavailable) as error:
            reading = replace(self._reading, problem=str(error))
        except Exception as error:  # noqa: BLE001 - said on the page and in the log
            self._log.exception("reading for a screen failed")
            reading = replace(self._reading, problem=f"{type(error).__name__}: {error}")
        with self._lock:
            self._reading = reading
            self._tried_at, self._done = time.monotonic(), None
        done.set()
