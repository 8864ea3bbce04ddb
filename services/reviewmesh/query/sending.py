"""Sends records to the mesh from outside: reviews, replays, campaigns and their requests."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import Producer

from reviewmesh.query.connection import Connection
from reviewmesh.query.errors import CannotReach

FLUSH_TIMEOUT_S = 30.0
QUEUE_FULL_TIMEOUT_S = 30.0
OnDelivery = Callable[[Any, Any], None]
"""Called with the error, None if the record was acknowledged, and the message."""


class Sender:
    """An idempotent producer: its retries write no record twice or out of order."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._producer: Any = Producer(
            {
                "linger.ms": "5",
                "compression.type": "lz4",
                "message.max.bytes": "16777216",
                "message.timeout.ms": "30000",
                # What waits here is in memory; the default is 1 GB.
                "queue.buffering.max.kbytes": "65536",
                "log_level": "0",
                **connection.settings.kafka.as_librdkafka(),
                "enable.idempotence": "true",
            }
        )
        self._refused: Counter[str] = Counter()

    def send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
        on_delivery: OnDelivery | None = None,
    ) -> None:
        """Produce, waiting while the queue is full. Raises CannotReach when it stays full.

        A caller with `on_delivery` reports the outcome of each record itself. Without it, `close`
        raises if the broker refused a record.
        """
        name = self._connection.topic(topic)
        deadline = time.monotonic() + QUEUE_FULL_TIMEOUT_S
        while True:
            try:
                self._producer.produce(
                    name,
                    key=key,
                    value=value,
                    partition=partition,
                    headers=list(headers),
                    on_delivery=on_delivery or self._count_refused,
                )
                self._producer.poll(0)
                return
            except BufferError:
                if time.monotonic() > deadline:
                    raise CannotReach(
                        f"the broker acknowledged nothing for {QUEUE_FULL_TIMEOUT_S:g} s; see "
                        "`reviewmesh ps`"
                    ) from None
                self._producer.poll(0.1)

    def close(self) -> None:
        """Wait for all acknowledgements. Raises CannotReach when one is missing or refused."""
        left = self._producer.flush(FLUSH_TIMEOUT_S)
        if left:
            raise CannotReach(
                f"{left} records were not acknowledged within {FLUSH_TIMEOUT_S:g} s; "
                "see `reviewmesh ps`"
            )
        if self._refused:
            reason, count = self._refused.most_common(1)[0]
            raise CannotReach(
                f"the broker refused {sum(self._refused.values())} records, {count} of them: "
                f"{reason}"
            )

    def _count_refused(self, error: Any, _message: Any) -> None:
        if error is not None:
            self._refused[error.str()] += 1
