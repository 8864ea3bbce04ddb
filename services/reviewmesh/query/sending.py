"""Sends records to the mesh from outside: reviews, and dead letters again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from confluent_kafka import Producer

from reviewmesh.kafka.record import Headers
from reviewmesh.query.connection import Connection
from reviewmesh.query.errors import CannotReach

FLUSH_TIMEOUT_S = 30.0
QUEUE_FULL_TIMEOUT_S = 30.0


def idempotent_producer(connection: Connection) -> Producer:
    """Idempotent, so that a retry of its own writes nothing twice or out of order."""
    return Producer(
        {
            "linger.ms": "5",
            "compression.type": "lz4",
            "message.max.bytes": "16777216",
            "message.timeout.ms": "30000",
            "log_level": "0",
            **connection.settings.kafka.as_librdkafka(),
            "enable.idempotence": "true",
        }
    )


def send(
    producer: Producer,
    topic: str,
    partition: int,
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes | None]],
    on_delivery: Callable[[Any, Any], None],
) -> None:
    """Produce; a full queue is waited for. Raises CannotReach when it stays full."""
    anyhow: Any = producer
    deadline = time.monotonic() + QUEUE_FULL_TIMEOUT_S
    while True:
        try:
            anyhow.produce(
                topic,
                key=key,
                value=value,
                partition=partition,
                headers=headers,
                on_delivery=on_delivery,
            )
            anyhow.poll(0)
            return
        except BufferError:
            if time.monotonic() > deadline:
                raise CannotReach(
                    f"the broker took nothing for {QUEUE_FULL_TIMEOUT_S:g} s; see `reviewmesh ps`"
                ) from None
            anyhow.poll(0.1)


def flush(producer: Producer) -> None:
    """Raises CannotReach when the broker does not acknowledge in time."""
    left = producer.flush(FLUSH_TIMEOUT_S)
    if left:
        raise CannotReach(
            f"{left} records were not acknowledged within {FLUSH_TIMEOUT_S:g} s; "
            "see `reviewmesh ps`"
        )


class Sender:
    """Sends, and tells at the end what the broker refused."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._producer = idempotent_producer(connection)
        self._refused: Counter[str] = Counter()

    def send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes,
        headers: Headers,
    ) -> None:
        name = self._connection.topic(topic)
        send(self._producer, name, partition, key, value, list(headers), self._delivered)

    def close(self) -> None:
        """Raises CannotReach."""
        flush(self._producer)
        if self._refused:
            reason, count = self._refused.most_common(1)[0]
            raise CannotReach(
                f"the broker refused {sum(self._refused.values())} records, {count} of them: "
                f"{reason}"
            )

    def _delivered(self, error: Any, _message: Any) -> None:
        if error is not None:
            self._refused[error.str()] += 1
