"""One transactional producer per process: outputs and input offsets commit together or not at all.

librdkafka has no KIP-890, so a commit whose answer is lost is retried first; when that is over, or
the producer was fenced, the outcome is unknown and only a new producer and the committed offsets
can tell. `OutcomeUnknown` says so, and whoever catches it rewinds.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from reviewmesh.runtime.kafka import OnError, make_producer
from reviewmesh.runtime.record import Output

CALL_TIMEOUT_S = 5.0
SEND_OFFSETS_DEADLINE_S = 8.0
RETRY_FOR_S = 20.0
INIT_TIMEOUT_S = 5.0


class OutcomeUnknown(RuntimeError):
    """The transaction may or may not be committed: replace the producer and rewind."""


class Aborted(RuntimeError):
    """Nothing of the transaction is visible: the same work may be tried again."""


class TransactionalProducer:
    """Wraps librdkafka's transactional producer. Used by one thread, between two polls."""

    def __init__(self, options: Mapping[str, str], prefix: str, on_error: OnError) -> None:
        self._options = options
        self._prefix = prefix
        self._on_error = on_error
        self._producer: Any = None

    @property
    def ready(self) -> bool:
        return self._producer is not None

    def connect(self) -> None:
        """Fence the predecessor and end its open transaction.

        Raises KafkaException when no broker answers within INIT_TIMEOUT_S; call again later.
        """
        producer = make_producer(self._options, self._on_error)
        producer.init_transactions(INIT_TIMEOUT_S)
        self._producer = producer

    def poll(self) -> None:
        """Hear what librdkafka has to say between transactions: unheard, it piles up."""
        if self._producer is not None:
            self._producer.poll(0)

    def discard(self) -> None:
        """Let go of a producer that is fenced or whose transaction is of unknown outcome."""
        self._producer = None

    def commit(
        self, outputs: Sequence[Output], offsets: list[TopicPartition], group_metadata: object
    ) -> None:
        """Write outputs and offsets in one transaction.

        Raises Aborted or OutcomeUnknown.
        """
        try:
            self._producer.begin_transaction()
            for output in outputs:
                self._produce(output)
            self._send_offsets(offsets, group_metadata)
        except (KafkaException, BufferError) as error:
            self._abort(error)
        self._commit_or_abort()

    def _send_offsets(self, offsets: list[TopicPartition], group_metadata: object) -> None:
        """Raises what librdkafka raises, and OutcomeUnknown when it does not come back.

        The call ignores its timeout while the group's coordinator is away and may never return
        (librdkafka issues 5456 and 5511), so it has a thread that can be left behind: the next
        producer fences whatever it would still do.
        """
        producer = self._producer
        outcome: SimpleQueue[Exception | None] = SimpleQueue()

        def send() -> None:
            try:
                producer.send_offsets_to_transaction(offsets, group_metadata, CALL_TIMEOUT_S)
                outcome.put(None)
            except KafkaException as error:
                outcome.put(error)

        threading.Thread(target=send, name="send-offsets", daemon=True).start()
        try:
            error = outcome.get(timeout=SEND_OFFSETS_DEADLINE_S)
        except Empty as empty:
            raise OutcomeUnknown(
                f"send_offsets_to_transaction did not return within {SEND_OFFSETS_DEADLINE_S} s"
            ) from empty
        if error is not None:
            raise error

    def _produce(self, output: Output) -> None:
        deadline = time.monotonic() + CALL_TIMEOUT_S
        while True:
            try:
                self._producer.produce(
                    self._prefix + output.topic,
                    value=output.value,
                    key=output.key,
                    partition=output.partition,
                    headers=list(output.headers),
                )
                return
            except BufferError:
                if time.monotonic() > deadline:
                    raise
                self._producer.poll(0.05)

    def _commit_or_abort(self) -> None:
        deadline = time.monotonic() + RETRY_FOR_S
        while True:
            try:
                self._producer.commit_transaction(CALL_TIMEOUT_S)
                return
            except KafkaException as error:
                detail: KafkaError = error.args[0]
                if detail.txn_requires_abort():
                    self._abort(error)
                if not detail.retriable() or time.monotonic() > deadline:
                    raise OutcomeUnknown(f"commit_transaction: {detail.str()}") from error

    def _abort(self, cause: Exception) -> None:
        """Abort, then always raise: Aborted, or OutcomeUnknown when even that did not work."""
        deadline = time.monotonic() + RETRY_FOR_S
        while True:
            try:
                self._producer.abort_transaction(CALL_TIMEOUT_S)
                raise Aborted(str(cause)) from cause
            except KafkaException as error:
                detail: KafkaError = error.args[0]
                if not detail.retriable() or time.monotonic() > deadline:
                    raise OutcomeUnknown(f"{cause}; abort_transaction: {detail.str()}") from error
