"""Probes batches that the client rejects, in threads of their own, while other partitions go on."""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue

import structlog

from reviewmesh.kafka.batches import Impassable, Prober, find_impassable
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.kafka.record import Unavailable
from reviewmesh.settings import Settings


class Refusals:
    """Used by the polling thread; one probe per partition at a time."""

    def __init__(self, settings: Settings, log: structlog.stdlib.BoundLogger) -> None:
        self._settings = settings
        self._log = log
        self._found: SimpleQueue[tuple[MeshPartition, int, Impassable | None]] = SimpleQueue()

    def look(self, partition: MeshPartition, offset: int) -> None:
        """The client returned an error for the batch at this offset."""
        threading.Thread(
            target=self._look, args=(partition, offset), name="refusal", daemon=True
        ).start()

    def found(self) -> list[tuple[MeshPartition, int, Impassable | None]]:
        """Finished probes with their offsets; None where the batch is readable or the probe failed:
        then the client tries again."""
        found = []
        while True:
            try:
                found.append(self._found.get_nowait())
            except Empty:
                return found

    def _look(self, partition: MeshPartition, offset: int) -> None:
        batch = None
        try:
            with Prober(self._settings, *partition) as prober:
                batch = find_impassable(prober, offset)
        except Unavailable as error:
            self._log.warning(
                "could not examine a batch that the client refuses", reason=str(error)
            )
        finally:
            self._found.put((partition, offset, batch))
