"""The enricher inside the loop: hundreds of reviews in flight, one per key at a time.

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
from reviewmesh.enrich.items import Answer, WorkItem, accepted_ms
from reviewmesh.enrich.payments import Payments
from reviewmesh.enrich.reprocess import InvalidRequest, Reprocessing
from reviewmesh.enrich.results import (
    UnusableAnswer,
    failure_fields,
    lineage_of_answer,
    result_fields,
)
from reviewmesh.enrich.routes import FALLBACK
from reviewmesh.enrich.spending import Change
from reviewmesh.kafka.exemplars import NO_EXEMPLARS, Exemplars
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
    """An accepted review in flight.

    `generation` tells it from the same offset after the partition was opened again.
    """

    record: Record
    review: dict[str, Any]
    generation: int
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
    # The joiner keeps a task's results while an earlier one is missing. Its window must be larger
    # than this one, transaction markers included.
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
        exemplars: Exemplars = NO_EXEMPLARS,
    ) -> None:
        """`payments`: None without a budget; then nothing leaves for a fallback."""
        self._payments = payments
        self._exemplars = exemplars
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
        metrics.start_at_zero(self.service, f"enrich.{task}", self.topics)
        self._inference_seconds = metrics.INFERENCE_SECONDS.labels(task)
        self._retries = metrics.RETRIES.labels(task)
        self._generations: dict[int, int] = {}
        self._generation = 0
        self._waiting: dict[tuple[int, str], deque[Work]] = {}
        # By partition: when each unfinished offset was appended, in milliseconds; the oldest first.
        self._open: dict[int, dict[int, int]] = {}
        self._in_flight = 0
        self._to_submit: list[WorkItem] = []
        self._units: list[Unit] = []

    # -- the loop's side ---------------------------------------------------------------------

    def load(self, partition: int, starts: dict[str, Start]) -> dict[Account, Spent] | None:
        """The sums that are spent; None without payments.

        Registers the schemas now, because a finished answer cannot wait for the registry.
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
        self._generation += 1
        self._generations[partition] = self._generation
        self._open[partition] = {}
        self._reprocessing.open(partition, self._generation)

    def close(self, partition: int) -> None:
        generation = self._generations.pop(partition, None)
        if generation is None:
            return
        del self._open[partition]
        if self._payments is not None:
            self._payments.close(partition)
        self._reprocessing.close(partition)
        self._to_submit = [item for item in self._to_submit if _work(item).generation != generation]
        self._client.cancel(
            lambda token: isinstance(token, Work) and token.generation == generation
        )
        for key in [key for key in self._waiting if key[0] == partition]:
            self._in_flight -= 1
            del self._waiting[key]
        self._units = [unit for unit in self._units if unit.partition != partition]

    def receive(self, record: Record) -> None:
        if record.topic == REPROCESS:
            self._receive_request(record)
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
        work = Work(record, review, self._generations[record.partition], self._clock())
        key = (record.partition, review["review_id"])
        self._open[record.partition][record.offset] = accepted_ms(record, review)
        queue = self._waiting.get(key)
        if queue is not None:
            queue.append(work)
            return
        self._waiting[key] = deque()
        self._in_flight += 1
        self._submit(work)

    def _receive_request(self, record: Record) -> None:
        try:
            self._reprocessing.receive(record)
        except InvalidRequest as error:
            # The enrichers of all tasks read the record. Only one of them writes the dead letter.
            reports = self._task == TASKS[0]
            outputs = self.set_aside(record, error.cause, str(error)) if reports else ()
            self._finish(record, outputs)

    def set_aside(self, record: Record, cause: str, message: str) -> tuple[Output, ...]:
        """A dead letter, and a FAILED result so that the review is still published.

        The review_id is taken from the key: parsing the value may have killed the process.
        """
        stage = f"enrich.{self._task}"
        dead_letter = self._dead_letters.output(
            record, stage, cause=cause, message=message, attempts=0, review_id=None
        )
        if record.topic == REPROCESS:
            # The published answer stays.
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
            if self._generations.get(work.record.partition) == work.generation:
                self._answered(work, answer)
        if self._to_submit:
            self._client.submit(self._to_submit)
            self._to_submit = []
        self._take_departure_steps()
        units, self._units = self._units, []
        oldest = [next(iter(opened.values())) for opened in self._open.values() if opened]
        return units + self._reprocessing.poll(min(oldest, default=None))

    def _take_departure_steps(self) -> None:
        if self._payments is None:
            return
        steps = [
            step
            for step in self._client.departure_steps()
            if self._generations.get(step.departure.item.partition)
            == _work(step.departure.item).generation
        ]
        self._units += self._payments.take(steps, self._client)
        self._payments.update_metrics()

    def transaction_outputs(self, units: Sequence[Unit]) -> Sequence[Output]:
        return () if self._payments is None else self._payments.transaction_outputs(units)

    def blocks(self, topic: str, partition: int) -> bool:
        """Blocked while no worker serves and ROOM_WHILE_STARVED reviews wait."""
        if topic == REPROCESS:
            return self._reprocessing.blocks(partition)
        return self._in_flight >= ROOM_WHILE_STARVED and self._client.starved()

    def waiting_for(self) -> str:
        return self._client.waiting_for()

    def waits_for(self, topic: str, partition: int) -> str:
        """Why the oldest record is unfinished. Others may wait for it if they have the same key."""
        if topic == REPROCESS:
            return self._reprocessing.waits_for(partition)
        oldest = next(iter(self._open.get(partition, ())), None)
        return "" if oldest is None else self._client.waits_for(partition, oldest)

    def idle(self) -> bool:
        """Also while no worker serves: the next owner reads records in flight again."""
        return not self._units and (not self._waiting or self._client.starved())

    def stop(self) -> None:
        self._client.close()
        self._reprocessing.stop()

    # -- work --------------------------------------------------------------------------------

    def _submit(self, work: Work) -> None:
        self._to_submit.append(WorkItem.of(work, work.record, work.review))

    def _answered(self, work: Work, answer: Answer) -> None:
        now = self._clock()
        origin_ms = work.review["source_timestamp"]
        took_ms = 0.0 if origin_ms is None else now * 1000 - origin_ms
        exemplar = self._exemplars.of(work.record.headers, took_ms)
        self._inference_seconds.observe(now - work.started, exemplar)
        committed, change = self._committed(work, answer)
        refused = (
            None
            if change is None
            else partial(self._charge_rejected_result, work.record.partition, change)
        )
        self._finish(work.record, self._outputs(work, answer), committed, refused, change)
        key = (work.record.partition, work.review["review_id"])
        queue = self._waiting[key]
        if queue:
            self._submit(queue.popleft())
        else:
            del self._waiting[key]
            self._in_flight -= 1

    def _committed(
        self, work: Work, answer: Answer
    ) -> tuple[Callable[[], None] | None, Change | None]:
        """The callback after the result's commit, and the change of the sums in its transaction."""
        partition, offset = work.record.partition, work.record.offset
        retries = answer.attempts - 1
        retried = partial(self._retries.inc, retries) if retries else None
        change = None
        if self._payments is not None and answer.route == FALLBACK:
            change = self._payments.settle(partition, offset, answer)
        if self._payments is None or change is None:
            return retried, None
        settled = partial(self._payments.spending.apply, partition, change)

        def committed() -> None:
            self._retries.inc(retries)
            settled()

        return committed, change

    def _charge_rejected_result(self, partition: int, change: Change, reason: str) -> None:
        """Count the cost of a call whose result the broker rejects. A dead letter replaces it."""
        if self._payments is not None:
            self._units.append(self._payments.spending.orphan_result(partition, change))

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
        """The result, or a failure if the answer is invalid."""
        if answer.output is None:
            return self._failed(work, answer, answer.error or "the worker gave no reason")
        try:
            return (self._answer(work, answer),)
        except UnusableAnswer as error:
            return self._failed(work, answer, str(error))
        except Exception as error:  # noqa: BLE001 - a worker may answer anything
            return self._failed(work, answer, f"{type(error).__name__}: {error}")

    def _answer(self, work: Work, answer: Answer) -> Output:
        """Raises UnusableAnswer."""
        review = work.review
        result = self._result(
            work.record,
            review["review_id"],
            review["content_hash"],
            result_fields(self._task, review["text"] or "", answer),
            language=review["language"],
        )
        size, at_most = _size(result), self._contract.max_result_bytes
        if size > at_most:
            raise UnusableAnswer(f"expected a result of at most {at_most:,} bytes, got {size:,}")
        return result

    def _failed(self, work: Work, answer: Answer, message: str) -> tuple[Output, ...]:
        """The dead letter, and a FAILED result so that the review is still published."""
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
        """Empty if the result is too large, which it is for no review that intake accepted."""
        fields = failure_fields(message, lineage)
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
