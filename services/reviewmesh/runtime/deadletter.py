"""Dead letters: the record as it was, and why the mesh could not enrich it."""

from __future__ import annotations

from reviewmesh.runtime import metrics
from reviewmesh.runtime.clock import Clock, milliseconds
from reviewmesh.runtime.codec import Codec
from reviewmesh.runtime.record import TRACEPARENT, Output, Record

DEAD_LETTER = "reviews.dead-letter"
MAX_MESSAGE = 2_000


class DeadLetters:
    """Makes dead letters; the partition number is that of the record."""

    def __init__(self, codec: Codec, clock: Clock) -> None:
        self._codec = codec
        self._clock = clock

    def prepare(self) -> None:
        """Raises RegistryUnavailable; see `Codec.prepare`."""
        self._codec.prepare()

    def output(
        self,
        record: Record,
        stage: str,
        cause: str,
        message: str,
        attempts: int,
        review_id: str | None,
    ) -> Output:
        metrics.DEAD_LETTERS.labels(stage, cause).inc()
        value = self._codec.encode(
            {
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "key": record.key,
                "value": record.value,
                "headers": [{"key": name, "value": value} for name, value in record.headers],
                "review_id": review_id,
                "stage": stage,
                "cause": cause,
                "message": message[:MAX_MESSAGE],
                "attempts": attempts,
                "read_at": record.timestamp_ms,
                "failed_at": milliseconds(self._clock()),
            }
        )
        trace = record.header(TRACEPARENT)
        headers = ((TRACEPARENT, trace),) if trace else ()
        return Output(DEAD_LETTER, record.partition, record.key, value, headers)
