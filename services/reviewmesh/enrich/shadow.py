"""Writes the candidate's answers in shadow to the task's shadow topic.

Its producer is separate from the transactions of live results and does not wait for deliveries: an
answer may be lost or written twice.
"""

from __future__ import annotations

from typing import Any

import structlog
from confluent_kafka import Producer

from reviewmesh.avro.codec import Codec
from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.clock import Clock, milliseconds
from reviewmesh.enrich.items import Answer, WorkItem
from reviewmesh.enrich.results import (
    UnusableAnswer,
    failure_fields,
    lineage_of_answer,
    result_fields,
)
from reviewmesh.kafka.clients import RECONNECT
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import SHADOW_OF

CLOSE_WITHIN_S = 2.0
# Of a canary's result: its key and its headers.
SPARE_BYTES = 16 * 1024


class ShadowTopic:
    """Used from one event loop. `close` blocks for CLOSE_WITHIN_S at most."""

    def __init__(
        self, task: str, settings: Settings, codec: Codec, max_bytes: int, clock: Clock
    ) -> None:
        self._task = task
        self._topic = settings.prefix + SHADOW_OF[task]
        self._codec = codec
        self._max_bytes = max_bytes
        self._clock = clock
        self._log = structlog.get_logger(task=task)
        self._settings = settings.kafka
        self._replaced = settings.kafka.certificates.changes()
        self._producer = self._make_producer()
        # Replaced, with answers that are not sent yet.
        self._emptying: list[Producer] = []

    def _make_producer(self) -> Producer:
        return Producer(
            {
                "linger.ms": "50",
                "compression.type": "lz4",
                "queue.buffering.max.messages": "1000",
                "message.timeout.ms": "30000",
                "message.max.bytes": "16777216",
                "log_level": "0",
                **RECONNECT,
                **self._settings.as_librdkafka(),
                "enable.idempotence": "true",
            }
        )

    def send(self, item: WorkItem, answer: Answer) -> bool:
        """False if the answer is lost: it is too large, the queue is full, or no registry
        answers."""
        self._renew()
        try:
            value = self._codec.encode(self._result(item, answer))
            if len(value) > self._max_bytes:
                return False
            self._producer.produce(
                self._topic, key=item.review_id.encode(), value=value, partition=item.partition
            )
        except (BufferError, RegistryUnavailable) as error:
            self._log.warning("dropping an answer of the candidate", reason=str(error))
            return False
        self._producer.poll(0)
        return True

    def _renew(self) -> None:
        """Replace the producer after a certificate was replaced. The old one sends its queue."""
        if self._replaced.found():
            self._emptying.append(self._producer)
            self._producer = self._make_producer()
        for producer in self._emptying:
            producer.poll(0)
        self._emptying = [producer for producer in self._emptying if len(producer)]

    def why_unusable(self, item: WorkItem, answer: Answer) -> str:
        """Why no result of the task could be made of a canary's answer; empty where it could.

        Results have the same form and the same limit as the records of this topic.
        """
        if answer.output is None:
            return answer.error or "the candidate gave no reason"
        try:
            fields = result_fields(self._task, item.text, answer)
            size = len(self._codec.encode(self._record(item, fields)))
        except Exception as error:  # noqa: BLE001 - a worker may answer anything
            return str(error) or type(error).__name__
        at_most = self._max_bytes - SPARE_BYTES
        if size > at_most:
            return f"expected an answer of at most {at_most:,} bytes, got {size:,}"
        return ""

    def close(self) -> None:
        self._producer.flush(CLOSE_WITHIN_S)

    def _result(self, item: WorkItem, answer: Answer) -> dict[str, object]:
        try:
            if answer.output is None:
                raise UnusableAnswer(answer.error or "the worker gave no reason")
            fields = result_fields(self._task, item.text, answer)
        except Exception as error:  # noqa: BLE001 - a worker may answer anything
            fields = failure_fields(str(error), lineage_of_answer(answer))
        return self._record(item, fields)

    def _record(self, item: WorkItem, fields: dict[str, Any]) -> dict[str, object]:
        return {
            "review_id": item.review_id,
            "content_hash": item.content_hash,
            "accepted_partition": item.partition,
            "accepted_offset": item.offset,
            "produced_at": milliseconds(self._clock()),
            "language": item.language or None,
            **fields,
        }
