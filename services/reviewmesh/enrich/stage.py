"""The enricher inside the loop: hundreds of reviews in flight, one at a time per key.

A review in flight blocks later records of the same key, no others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from reviewmesh import metrics
from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.clock import Clock, milliseconds
from reviewmesh.enrich.client import InferenceClient
from reviewmesh.enrich.items import Answer, WorkItem
from reviewmesh.enrich.payments import Payments
from reviewmesh.enrich.reprocess import NoRequest, Reprocessing
from reviewmesh.enrich.results import Unusable, answered, failed, lineage_of_answer
from reviewmesh.enrich.routes import FALLBACK
from reviewmesh.enrich.spending import Change
from reviewmesh.kafka.record import (
    Output,
    Record,
    Unavailable,
    Unit,
    headers_size,
    kept_headers,
)
from reviewmesh.leaving.accounts import Account
from reviewmesh.leaving.amounts import Spent
from reviewmesh.loop.deadletter import DeadLetters
from reviewmesh.loop.stage import Ledgers, Start
from reviewmesh_schemas.names import ACCEPTED, REPROCESS, RESULT_OF, SPEND, TASKS

ROOM_WHILE_STARVED = 2_000
HEADERS_KEPT = 16


@dataclass(frozen=True, slots=True)
class Work:
    """An accepted review in flight; `life` tells it from the same offset after a reopening."""

    record: Record
    review: dict[str, Any]
    life: int
    started: float


@dataclass(frozen=True, slots=True)
class EnrichContract:
    """The codecs of the topics that the enricher reads and writes, and its largest result."""

    accepted: Codec
    result: Codec
    max_result_bytes: int


class EnrichStage:
    """One task's enricher."""

    topics: tuple[str, ...] = (ACCEPTED, REPROCESS)
    state_topics: tuple[str, ...] = ()
    max_in_flight = 1_000
    # The joiner holds a task's results while an earlier one is missing; its window must exceed
    # this one, transaction markers included.
    max_window = 8_000

    def __init__(
        self,
        task: str,
        contract: EnrichContract,
        dead_letters: DeadLetters,
        client: InferenceClient,
        reprocessing: Reprocessing,
        clock: Clock,
        payments: Payments | None = None,
    ) -> None:
        """`payments`: without them nothing leaves for a fallback."""
        self._payments = payments
        if payments is not None:
            self.state_topics = (SPEND,)
        self.service = f"enricher-{task}"
        self._task = task
        self._result_topic = RESULT_OF[task]
        self._contract = contract
        self._dead_letters = dead_letters
        self._client = client
        self._reprocessing = reprocessing
        self._clock = clock
        metrics.start_at_zero(self.service, f"enrich.{task}")
        self._lives: dict[int, int] = {}
        self._life = 0
        self._waiting: dict[tuple[int, str], deque[Work]] = {}
        # Unfinished offsets and when they were appended, by partition: the first is the oldest.
        self._open: dict[int, dict[int, int]] = {}
        self._in_flight = 0
        self._to_submit: list[WorkItem] = []
        self._units: list[Unit] = []

    # -- the loop's side ---------------------------------------------------------------------

    def load(self, partition: int, starts: dict[str, Start]) -> dict[Account, Spent] | None:
        """What is spent.

        Registers the schemas now: a finished answer cannot wait for the registry.
        """
        try:
            self._contract.result.prepare()
            self._dead_letters.prepare()
            self._reprocessing.load()
        except RegistryUnavailable as error:
            raise Unavailable(str(error)) from error
        return None if self._payments is None else self._payments.read(partition)

    def open(self, partition: int, ledgers: Ledgers, loaded: dict[Account, Spent] | None) -> None:
        if self._payments is not None:
            self._units += self._payments.open(partition, loaded or {})
        self._life += 1
        self._lives[partition] = self._life
        self._open[partition] = {}
        self._reprocessing.open(partition, self._life)

    def close(self, partition: int) -> None:
        life = self._lives.pop(partition, None)
        if life is None:
            return
        del self._open[partition]
        if self._payments is not None:
            self._payments.close(partition)
        self._reprocessing.close(partition)
        self._to_submit = [item for item in self._to_submit if _work(item).life != life]
        self._client.cancel(lambda token: isinstance(token, Work) and token.life == life)
        for key in [key for key in self._waiting if key[0] == partition]:
            self._in_flight -= 1
            del self._waiting[key]
        self._units = [unit for unit in self._units if unit.partition != partition]

    def receive(self, record: Record) -> None:
        if record.topic == REPROCESS:
            self._receive_again(record)
            return
        try:
            review = self._contract.accepted.decode_ours(record.value or b"")
        except RegistryUnavailable as error:
            raise Unavailable(str(error)) from error
        except DecodeError as error:
            # Only intake writes here; a foreign record must not stop the partition.
            self._finish(record, self.set_aside(record, error.cause, str(error)))
            return
        if not isinstance(review["review_id"], str):
            self._finish(
                record, self.set_aside(record, "INVALID", "expected a review_id, got none")
            )
            return
        work = Work(record, review, self._lives[record.partition], self._clock())
        key = (record.partition, review["review_id"])
        self._open[record.partition][record.offset] = record.timestamp_ms
        queue = self._waiting.get(key)
        if queue is not None:
            queue.append(work)
            return
        self._waiting[key] = deque()
        self._in_flight += 1
        self._submit(work)

    def _receive_again(self, record: Record) -> None:
        try:
            self._reprocessing.receive(record)
        except NoRequest as error:
            # Every task's enricher reads it; one of them tells.
            tells = self._task == TASKS[0]
            outputs = self.set_aside(record, error.cause, str(error)) if tells else ()
            self._finish(record, outputs)

    def set_aside(self, record: Record, cause: str, message: str) -> tuple[Output, ...]:
        """A dead letter, and a FAILED result so that the review still comes out.

        The review_id is taken from the record's key: nothing else is read of a record that may
        have ended the process.
        """
        stage = f"enrich.{self._task}"
        dead_letter = self._dead_letters.output(
            record, stage, cause=cause, message=message, attempts=0, review_id=None
        )
        if record.topic == REPROCESS:
            # What is published stays as it is.
            return (dead_letter,)
        try:
            review_id = (record.key or b"").decode()
        except UnicodeDecodeError:
            review_id = ""
        if not review_id or record.value is None:
            return (dead_letter,)
        return (
            *self._failed_result(record, review_id, content_hash="", message=message, lineage=None),
            dead_letter,
        )

    def poll(self) -> Sequence[Unit]:
        for item, answer in self._client.completed():
            work = _work(item)
            if self._lives.get(work.record.partition) == work.life:
                self._answered(work, answer)
        if self._to_submit:
            self._client.submit(self._to_submit)
            self._to_submit = []
        self._take_steps()
        units, self._units = self._units, []
        oldest = [next(iter(opened.values())) for opened in self._open.values() if opened]
        return units + self._reprocessing.poll(min(oldest, default=None))

    def _take_steps(self) -> None:
        if self._payments is None:
            return
        steps = [
            step
            for step in self._client.departing()
            if self._lives.get(step.departure.item.partition) == _work(step.departure.item).life
        ]
        self._units += self._payments.take(steps, self._client)
        self._payments.measure()

    def transaction_outputs(self, units: Sequence[Unit]) -> Sequence[Output]:
        return () if self._payments is None else self._payments.transaction_outputs(units)

    def blocks(self, topic: str, partition: int) -> bool:
        """Without a worker, reading further ahead is of no use."""
        if topic == REPROCESS:
            return self._reprocessing.blocks(partition)
        return self._in_flight >= ROOM_WHILE_STARVED and self._client.starved()

    def waiting_for(self) -> str:
        return self._client.waiting_for()

    def waits_for(self, topic: str, partition: int) -> str:
        """Why the oldest record is unfinished; records of the same key wait for each other."""
        if topic == REPROCESS:
            return self._reprocessing.waits_for(partition)
        oldest = next(iter(self._open.get(partition, ())), None)
        return "" if oldest is None else self._client.waits_for(partition, oldest)

    def idle(self) -> bool:
        """Without a worker no answer comes; the next owner reads records in flight again."""
        return not self._units and (not self._waiting or self._client.starved())

    def stop(self) -> None:
        self._client.close()
        self._reprocessing.stop()

    # -- work --------------------------------------------------------------------------------

    def _submit(self, work: Work) -> None:
        self._to_submit.append(WorkItem.of(work, work.record, work.review))

    def _answered(self, work: Work, answer: Answer) -> None:
        metrics.INFERENCE_SECONDS.labels(self._task).observe(self._clock() - work.started)
        committed, change = self._committed(work, answer)
        refused = None if change is None else partial(self._in_vain, work.record.partition, change)
        self._finish(work.record, self._outputs(work, answer), committed, refused, change)
        key = (work.record.partition, work.review["review_id"])
        queue = self._waiting[key]
        if queue:
            self._submit(queue.popleft())
        else:
            del self._waiting[key]
            self._in_flight -= 1

    def _committed(self, work: Work, answer: Answer) -> tuple[Callable[[], None], Change | None]:
        """What to do once the result is committed, and what it settles."""
        partition, offset = work.record.partition, work.record.offset
        retried = partial(metrics.RETRIES.labels(self._task).inc, answer.attempts - 1)
        change = None
        if self._payments is not None and answer.route == FALLBACK:
            change = self._payments.settle(partition, offset, answer)
        if self._payments is None or change is None:
            return retried, None
        settled = partial(self._payments.spending.apply, partition, change)

        def committed() -> None:
            retried()
            settled()

        return committed, change

    def _in_vain(self, partition: int, change: Change, reason: str) -> None:
        """The result that was to settle this is refused, and a dead letter takes its place."""
        if self._payments is not None:
            self._units.append(self._payments.spending.in_vain(partition, change))

    def _finish(
        self,
        record: Record,
        outputs: tuple[Output, ...],
        committed: Callable[[], None] | None = None,
        refused: Callable[[str], None] | None = None,
        carries: Change | None = None,
    ) -> None:
        if record.topic == ACCEPTED:
            self._open[record.partition].pop(record.offset, None)
        finished = ((record.topic, record.offset),)
        unit = Unit(record.partition, finished, outputs, committed, refused, carries)
        self._units.append(unit)

    def _outputs(self, work: Work, answer: Answer) -> tuple[Output, ...]:
        """An invalid answer costs at most this item."""
        if answer.output is None:
            return self._failed(work, answer, answer.error or "the worker gave no reason")
        try:
            return (self._answer(work, answer),)
        except Unusable as error:
            return self._failed(work, answer, str(error))
        except Exception as error:  # noqa: BLE001 - a worker may answer anything
            return self._failed(work, answer, f"{type(error).__name__}: {error}")

    def _answer(self, work: Work, answer: Answer) -> Output:
        """Raises Unusable."""
        review = work.review
        result = self._result(
            work.record,
            review["review_id"],
            review["content_hash"],
            answered(self._task, review["text"] or "", answer),
            language=review["language"],
        )
        size, at_most = _size(result), self._contract.max_result_bytes
        if size > at_most:
            raise Unusable(f"expected a result of at most {at_most:,} bytes, got {size:,}")
        return result

    def _failed(self, work: Work, answer: Answer, message: str) -> tuple[Output, ...]:
        """The dead letter, and a FAILED result so that the review still comes out."""
        review = work.review
        dead_letter = self._dead_letters.output(
            work.record,
            f"enrich.{self._task}",
            cause="FAILED",
            message=message,
            attempts=answer.attempts,
            review_id=review["review_id"],
        )
        lineage = lineage_of_answer(answer)
        results = self._failed_result(
            work.record,
            review["review_id"],
            content_hash=review["content_hash"],
            message=message,
            lineage=lineage,
            language=review["language"],
        )
        return (*results, dead_letter)

    def _failed_result(
        self,
        record: Record,
        review_id: str,
        content_hash: str,
        message: str,
        lineage: dict[str, Any] | None,
        language: str | None = None,
    ) -> tuple[Output, ...]:
        """Empty where even that is too large, which no review accepted by intake is."""
        fields = failed(message, lineage)
        result = self._result(record, review_id, content_hash, fields, language)
        return (result,) if _size(result) <= self._contract.max_result_bytes else ()

    def _result(
        self,
        record: Record,
        review_id: str,
        content_hash: str,
        fields: dict[str, Any],
        language: str | None,
    ) -> Output:
        value = self._contract.result.encode(
            {
                "review_id": review_id,
                "content_hash": content_hash,
                "accepted_partition": record.partition,
                "accepted_offset": record.offset,
                "produced_at": milliseconds(self._clock()),
                "language": language,
                **fields,
            }
        )
        return Output(
            topic=self._result_topic,
            partition=record.partition,
            key=review_id.encode(),
            value=value,
            headers=kept_headers(record.headers)[:HEADERS_KEPT],
        )


def _size(output: Output) -> int:
    return len(output.key or b"") + len(output.value or b"") + headers_size(output.headers)


def _work(item: WorkItem) -> Work:
    assert isinstance(item.token, Work)
    return item.token
