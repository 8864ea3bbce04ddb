"""One transactional producer per process: outputs and input offsets commit together or not at all.

librdkafka has no KIP-890. A commit without an answer is retried; when the retries end, or the
producer was fenced, the outcome is unknown until a new producer has fenced the old one and the
committed offsets are read. `OutcomeUnknown` reports that, and its handler rewinds.

Transactional calls may ignore their timeouts while the coordinator is away or the clock is set, and
some never return (librdkafka issues 5456 and 5511). So they are made in a thread that can be
abandoned: the next producer fences it. Most abandoned calls return once the coordinator is back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any, NoReturn

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from reviewmesh.kafka.clients import OnError, make_producer
from reviewmesh.kafka.record import Output

CALL_TIMEOUT_S = 5.0
RETRY_FOR_S = 20.0
TRANSACTION_DEADLINE_S = 30.0
# Of one call, which should return after CALL_TIMEOUT_S: a transaction makes several.
CALL_DEADLINE_S = 10.0
ABANDONED_AT_MOST = 5

# Errors of a record itself: it will be rejected every time.
OF_THE_RECORD = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError._BAD_MSG,
        KafkaError._INVALID_ARG,
    }
)


class OutcomeUnknown(RuntimeError):
    """The transaction may or may not be committed: replace the producer and rewind."""


class Aborted(RuntimeError):
    """Nothing of the transaction is visible: the same work may be retried.

    `over_a_record`: one of its records was rejected, and would be the next time too.
    """

    def __init__(self, reason: str, over_a_record: bool = False) -> None:
        super().__init__(reason)
        self.over_a_record = over_a_record


class StuckProducers(RuntimeError):
    """Calls of several producers do not return: only a new process helps."""


class TransactionalProducer:
    """Wraps librdkafka's transactional producers. Used by one thread, between two polls."""

    def __init__(self, options: Mapping[str, str], prefix: str, on_error: OnError) -> None:
        self._options = options
        self._prefix = prefix
        self._on_error = on_error
        self._session: ProducerSession | None = None
        self._thread = CallThread()
        self._abandoned: list[CallThread] = []

    @property
    def ready(self) -> bool:
        return self._session is not None

    def connect(self) -> None:
        """Fence the predecessor and end its open transaction.

        Raises KafkaException or OutcomeUnknown when no broker answers in time; call again later.
        """
        self._session = self._call(
            lambda: ProducerSession(self._options, self._prefix, self._on_error), CALL_DEADLINE_S
        )

    def poll(self) -> None:
        """Serve librdkafka's events between transactions, so that they do not accumulate."""
        if self._session is not None:
            self._session.producer.poll(0)

    def discard(self) -> None:
        """Drop a producer that was fenced or whose transaction has an unknown outcome."""
        self._session = None

    def commit(
        self, outputs: Sequence[Output], offsets: list[TopicPartition], group_metadata: object
    ) -> None:
        """Write outputs and offsets in one transaction.

        Raises Aborted or OutcomeUnknown.
        """
        session = self._session
        assert session is not None, "expected a producer that is ready"
        self._call(
            lambda: session.transact(outputs, offsets, group_metadata),
            TRANSACTION_DEADLINE_S,
            lambda: session.call_began,
        )

    def _call(
        self,
        action: Callable[[], Any],
        deadline_s: float,
        call_began: Callable[[], float] = lambda: 0.0,
    ) -> Any:
        """The action's result. Raises what it raises, and OutcomeUnknown after a deadline.

        `call_began`: when the latest of its calls to librdkafka began; CALL_DEADLINE_S counts from
        there.
        """
        try:
            return self._thread.call(action, deadline_s, call_began)
        except Empty:
            # Otherwise the next call would be one of the producer that hangs.
            self._session = None
            self._thread.end()
            self._abandoned = [one for one in (*self._abandoned, self._thread) if one.is_alive()]
            self._thread = CallThread()
            if len(self._abandoned) > ABANDONED_AT_MOST:
                raise StuckProducers(
                    f"{len(self._abandoned)} transactional calls did not return within their "
                    "deadlines, nor since"
                ) from None
            raise OutcomeUnknown(
                f"a call did not return within {CALL_DEADLINE_S:g} s, or all of a transaction "
                f"within {TRANSACTION_DEADLINE_S:g} s"
            ) from None


class ProducerSession:
    """One librdkafka producer, from `init_transactions` until it is dropped."""

    def __init__(self, options: Mapping[str, str], prefix: str, on_error: OnError) -> None:
        self._prefix = prefix
        self.call_began = perf_counter()
        # The errors of rejected records of the current transaction.
        refused: list[str] = []
        self._refused = refused

        # Not a method: object and producer would keep each other alive.
        def delivered(error: KafkaError | None, message: Any) -> None:
            if error is not None and error.code() in OF_THE_RECORD:
                refused.append(f"{message.topic()}: {error.str()}")

        self.producer: Any = make_producer(options, on_error, delivered)
        self.producer.init_transactions(CALL_TIMEOUT_S)

    def transact(
        self, outputs: Sequence[Output], offsets: list[TopicPartition], group_metadata: object
    ) -> None:
        self._refused.clear()
        try:
            self.call_began = perf_counter()
            self.producer.begin_transaction()
            for output in outputs:
                self._produce(output)
            self.call_began = perf_counter()
            self.producer.send_offsets_to_transaction(offsets, group_metadata, CALL_TIMEOUT_S)
        except (KafkaException, BufferError) as error:
            self._abort(error)
        self._commit_or_abort()

    def _produce(self, output: Output) -> None:
        self.call_began = perf_counter()
        deadline = time.monotonic() + CALL_TIMEOUT_S
        while True:
            try:
                self.producer.produce(
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
                self.producer.poll(0.05)
            except (KafkaException, TypeError, ValueError) as error:
                raise self._not_taken(output, error) from error

    def _not_taken(self, output: Output, error: Exception) -> KafkaException:
        detail = error.args[0] if isinstance(error, KafkaException) else None
        if detail is None:
            detail = KafkaError(KafkaError._INVALID_ARG, str(error))
        if detail.code() in OF_THE_RECORD:
            self._refused.append(f"{output.topic}: {detail.str()}")
        return KafkaException(detail)

    def _commit_or_abort(self) -> None:
        deadline = time.monotonic() + RETRY_FOR_S
        while True:
            self.call_began = perf_counter()
            try:
                self.producer.commit_transaction(CALL_TIMEOUT_S)
                return
            except KafkaException as error:
                detail: KafkaError = error.args[0]
                if detail.txn_requires_abort():
                    self._abort(error)
                if not detail.retriable() or time.monotonic() > deadline:
                    raise OutcomeUnknown(f"commit_transaction: {detail.str()}") from error

    def _abort(self, cause: Exception) -> NoReturn:
        """Abort, then raise Aborted, or OutcomeUnknown when the abort failed."""
        deadline = time.monotonic() + RETRY_FOR_S
        while True:
            self.call_began = perf_counter()
            try:
                self.producer.abort_transaction(CALL_TIMEOUT_S)
                break
            except KafkaException as error:
                detail: KafkaError = error.args[0]
                if not detail.retriable() or time.monotonic() > deadline:
                    raise OutcomeUnknown(f"{cause}; abort_transaction: {detail.str()}") from error
        reason = self._refused[0] if self._refused else str(cause)
        raise Aborted(reason, over_a_record=bool(self._refused)) from cause


class CallThread:
    """Makes one call at a time; a call that does not return is abandoned with its thread."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], SimpleQueue[Any]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="transactions", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> None:
        """End the thread when its call has returned, which frees what the call holds."""
        self._calls.put(None)

    def call(
        self, action: Callable[[], Any], deadline_s: float, call_began: Callable[[], float]
    ) -> Any:
        """Raises what the action raises, and Empty when it has not returned by a deadline.

        `call_began`: when the latest call to librdkafka began; each has CALL_DEADLINE_S. Both by
        `perf_counter`, the clock that no test replaces: a call that hangs takes real time.
        """
        outcome: SimpleQueue[tuple[Any, Exception | None]] = SimpleQueue()
        began = perf_counter()
        self._calls.put((action, outcome))
        while True:
            # Of the transaction before, until the thread begins with this one.
            latest = max(began, call_began())
            left = min(began + deadline_s, latest + CALL_DEADLINE_S) - perf_counter()
            with suppress(Empty):
                result, error = outcome.get(timeout=max(left, 0))
                break
            if left <= 0:
                raise Empty
        if error is not None:
            raise error
        return result

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            action, outcome = call
            try:
                outcome.put((action(), None))
            except Exception as error:  # noqa: BLE001 - raised again by `call`
                outcome.put((None, error))
