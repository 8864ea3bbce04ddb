"""Dead letters: the original record, and why the mesh could not enrich it."""

from __future__ import annotations

import hashlib
from typing import Any

from reviewmesh import metrics
from reviewmesh.avro.codec import Codec
from reviewmesh.avro.topics import load_topics, room_of
from reviewmesh.clock import Clock, milliseconds, plausible_ms
from reviewmesh.kafka.record import TRACEPARENT, Headers, Output, Record, headers_size
from reviewmesh.kafka.tracing import valid_traceparent
from reviewmesh_schemas.names import DEAD_LETTER

UNREADABLE = "UNREADABLE"
"""The cause of records that a stage or the client cannot read."""
MAX_MESSAGE = 2_000
LONGEST_REVIEW_ID = 1_000
# Bytes of key and headers that are kept of a record that does not fit; its value is truncated to
# fit.
KEY_KEPT = 4_096
HEADER_BYTES_KEPT = 64 * 1024
# Bytes for the other fields of a dead letter.
RESERVED = 32 * 1024


class DeadLetters:
    """Builds dead letters, in the record's partition modulo the topic's number of partitions."""

    def __init__(self, codec: Codec, clock: Clock) -> None:
        self._codec = codec
        self._clock = clock
        topic = next(topic for topic in load_topics().topics if topic.name == DEAD_LETTER)
        self._partitions = topic.partitions
        self._room = room_of(topic) - RESERVED

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
        key, original = self._original(record)
        value = self._codec.encode(
            {
                **original,
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
                "review_id": review_id if len(review_id or "") <= LONGEST_REVIEW_ID else None,
                "stage": stage,
                "cause": cause,
                # The message may quote text that UTF-8 cannot encode.
                "message": message[:MAX_MESSAGE].encode("utf-8", "backslashreplace").decode(),
                "attempts": attempts,
                "read_at": record.timestamp_ms if plausible_ms(record.timestamp_ms) else None,
                "failed_at": milliseconds(self._clock()),
            }
        )
        trace = valid_traceparent(record.header(TRACEPARENT))
        return Output(
            topic=DEAD_LETTER,
            partition=record.partition % self._partitions,
            key=key,
            value=value,
            headers=((TRACEPARENT, trace),) if trace else (),
            committed=metrics.DEAD_LETTERS.labels(stage, cause).inc,
        )

    def _original(self, record: Record) -> tuple[bytes | None, dict[str, Any]]:
        """The key of the dead letter, and the fields with the record, truncated if it is too
        large."""
        key, value, headers = record.key, record.value, record.headers
        # The key is written twice: also as the dead letter's own key.
        whole = 2 * len(key or b"") + len(value or b"") + headers_size(headers)
        cut: dict[str, Any] = {"value_length": None, "value_sha256": None}
        if whole > self._room:
            cut["value_length"] = len(value or b"")
            cut["value_sha256"] = hashlib.sha256(value or b"").hexdigest()
            key = None if key is None else key[:KEY_KEPT]
            headers = _first_of(headers)
            room = self._room - 2 * KEY_KEPT - headers_size(headers)
            value = None if value is None else value[:room]
        listed = [{"key": name, "value": content} for name, content in headers]
        return key, {"key": key, "value": value, "headers": listed, **cut}


def _first_of(headers: Headers) -> Headers:
    kept: list[tuple[str, bytes | None]] = []
    room = HEADER_BYTES_KEPT
    for header in headers:
        room -= headers_size((header,))
        if room < 0:
            break
        kept.append(header)
    return tuple(kept)
