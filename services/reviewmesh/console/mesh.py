"""The connection that all screens share: made when the broker answers, and made again after it was
away."""

from __future__ import annotations

import threading
import time

from reviewmesh.query.connection import Connection, connection_of
from reviewmesh.query.errors import CannotReach
from reviewmesh.settings import Settings

# A broker that is away is not asked by every request.
ASK_AGAIN_S = 2.0
# Topics and partitions may have been added.
MADE_AGAIN_S = 60.0


class Mesh:
    """Threads share it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._made_at = 0.0
        self._problem: CannotReach | None = None
        self._asked_at = -ASK_AGAIN_S

    def connection(self) -> Connection:
        """Raises CannotReach while the broker does not answer."""
        with self._lock:
            now = time.monotonic()
            if self._connection is not None and now - self._made_at < MADE_AGAIN_S:
                return self._connection
            if self._problem is not None and now - self._asked_at < ASK_AGAIN_S:
                raise self._problem
            try:
                made = connection_of(self.settings)
            except CannotReach as error:
                self._problem, self._asked_at = error, time.monotonic()
                if self._connection is None:
                    raise
                # What is known of topics stays useful, and each reader reports a broker itself.
                self._made_at = now
                return self._connection
            self._connection, self._made_at, self._problem = made, now, None
            return made
