"""The open partial records of a partition, read from `reviews.partial` when it is opened."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import structlog

from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.join.pipeline import MAX_PARTIALS
from reviewmesh.kafka.record import Headers, Record
from reviewmesh_schemas.names import TASKS


class OpenPartials:
    """Keeps records encoded until all are read: most of those read are not open any more."""

    def __init__(
        self, partial_codec: Codec, enriched_codec: Codec, log: structlog.stdlib.BoundLogger
    ) -> None:
        self._partial_codec = partial_codec
        self._enriched_codec = enriched_codec
        self._log = log
        self._open: dict[bytes, Record] = {}

    def take(self, record: Record) -> None:
        key = record.key or b""
        self._open.pop(key, None)
        if record.value is not None:
            self._open[key] = record
            if len(self._open) > MAX_PARTIALS:
                del self._open[next(iter(self._open))]

    def records(self) -> Iterator[tuple[dict[str, Any], Headers]]:
        """The open records, decoded; invalid ones are left out. Raises RegistryUnavailable."""
        for record in self._open.values():
            try:
                published = self._partial_codec.decode_ours(record.value or b"")["enriched"]
                enriched = self._enriched_codec.decode_ours(published)
                if missing := [task for task in TASKS if task not in enriched["tasks"]]:
                    raise ValueError(f"expected every task, got none of {missing}")
                if enriched["timings"]["enriched_at"] is None:
                    raise ValueError("expected the time at which it was published")
            except (DecodeError, ValueError, TypeError, KeyError) as error:
                self._log.warning(
                    "skipped a record that the joiner did not write",
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                    reason=str(error),
                )
                continue
            yield enriched, record.headers
