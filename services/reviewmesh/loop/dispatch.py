"""Passes records from the consumer to the stage in order, and pauses inputs for backpressure."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Literal

import structlog
from confluent_kafka import TopicPartition

from reviewmesh import metrics
from reviewmesh.kafka.batches import Impassable
from reviewmesh.kafka.record import Record, Unavailable, Unit, headers_of
from reviewmesh.loop.deadletter import UNREADABLE
from reviewmesh.loop.inputs import Input, Inputs
from reviewmesh.loop.outbox import Outbox
from reviewmesh.loop.poison import PoisonSearch
from reviewmesh.loop.readiness import Readiness
from reviewmesh.loop.stage import Stage

RETRY_UNAVAILABLE_S = 1.0
LONGEST_MESSAGE = 1_000
# For the records of one input between two polls, each of which may take a second: the size of a
# record says little of the time that its schema takes.
TURN_S = 0.5

SetAsideReason = Literal["raised", "aborted", "killed", "impassable"]


class Dispatcher:
    """Used by the polling thread."""

    def __init__(
        self,
        stage: Stage,
        inputs: Inputs,
        outbox: Outbox,
        prefix: str,
        readiness: Readiness,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._stage = stage
        self._inputs = inputs
        self._outbox = outbox
        self._prefix = prefix
        self._readiness = readiness
        self._log = log
        self._paused_until = 0.0

    def enqueue(self, message: Any) -> None:
        """Queue a message for the stage; drop it if its partition is no longer assigned."""
        item = self._input_of(message)
        if item is not None:
            item.queued.append(
                Record(
                    topic=item.topic,
                    partition=item.partition,
                    offset=message.offset(),
                    key=message.key(),
                    value=message.value(),
                    headers=headers_of(message),
                    timestamp_ms=message.timestamp()[1],
                )
            )

    def reached_end(self, message: Any) -> None:
        """Note the end of the partition: the event counts transaction markers, records do not."""
        item = self._input_of(message)
        if item is not None:
            item.end = message.offset()

    def dispatch(self) -> None:
        """Pass queued records to the stage until the stage or a ledger is full."""
        if time.monotonic() < self._paused_until:
            return
        for item in self._inputs_to_dispatch():
            taken = self._dispatch_input(item)
            if taken:
                metrics.RECORDS_READ.labels(self._stage.service, item.topic).inc(taken)
        for item in self._inputs:
            if not item.queued:
                item.ledger.reached_end(item.end)

    def _inputs_to_dispatch(self) -> Iterable[Input]:
        """All inputs, or only the one that is searched for a poison record.

        While records of one input only are in flight, a crash can be attributed to them.
        """
        now = time.monotonic()
        trying = [item for item in self._inputs if item.poison_search.is_active]
        for item in trying:
            item.poison_search.finish_group(now, item.ledger.in_flight, not item.queued)
        chosen = PoisonSearch.input_on_trial(trying)
        return self._inputs if chosen is None else [chosen]

    def apply_backpressure(self, consumer: Any) -> None:
        """Pause inputs that are full or blocked by the stage.

        Resume them well below the limit, so that they do not alternate at every poll.
        """
        pause, resume = [], []
        for item in self._inputs:
            blocked = bool(item.queued) or item.batch_rejected or not item.has_committed
            blocked = blocked or self._stage.blocks(item.topic, item.partition)
            if blocked and not item.paused:
                item.paused = True
                pause.append(TopicPartition(self._prefix + item.topic, item.partition))
            elif item.paused and not blocked and item.ledger.has_slack():
                item.paused = False
                resume.append(TopicPartition(self._prefix + item.topic, item.partition))
        if pause:
            consumer.pause(pause)
        if resume:
            consumer.resume(resume)

    def _input_of(self, message: Any) -> Input | None:
        return self._inputs.get(message.topic()[len(self._prefix) :], message.partition())

    def _dispatch_input(self, item: Input) -> int:
        """The number of records that the stage took."""
        taken = 0
        until = time.monotonic() + TURN_S
        while item.queued and item.has_committed and time.monotonic() <= until:
            record = item.queued[0]
            if isinstance(record, Impassable):
                if not self._skip_batch(item, record):
                    break
                item.queued.popleft()
                continue
            if not item.ledger.has_room_for(record.offset):
                break
            if item.ledger.is_new(record.offset):
                if not item.poison_search.may_pass(record.offset) or not self._pass_to_stage(
                    item, record
                ):
                    break
                taken += 1
            if record.offset > item.ledger.position:
                item.gaps.append((item.ledger.position, record.offset))
            item.ledger.deliver(record.offset)
            item.queued.popleft()
        return taken

    def _skip_batch(self, item: Input, batch: Impassable) -> bool:
        """Write one dead letter for all records of the batch, and continue after it.

        False while the ledger has no room.
        """
        ledger = item.ledger
        if not ledger.has_room_for(batch.next - 1):
            return False
        if batch.next > ledger.position:
            first = max(batch.offset, ledger.position)
            self._log.error(
                "skipping a batch that cannot be read: its records become one dead letter",
                topic=item.topic,
                partition=item.partition,
                first=first,
                next=batch.next,
                reason=batch.reason,
            )
            ledger.deliver(first)
            ledger.reached_end(batch.next)
            # The batch could not be read, so not even the key is known.
            record = Record(
                topic=item.topic, partition=item.partition, offset=first, key=None, value=None
            )
            message = batch._replace(offset=first).message
            self._set_aside(record, "impassable", message, batch.cause)
        return True

    def _pass_to_stage(self, item: Input, record: Record) -> bool:
        """False when the stage does not take the record now."""
        if self._stage.blocks(item.topic, item.partition):
            return False
        if item.poison_search.is_poison(record.offset):
            self._log.error(
                "dead-lettering a record: several processes died with no other record in flight",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
            )
            self._set_aside(record, "killed", "every process that took this record died")
        elif not self._receive(record):
            return False
        item.poison_search.passed_to_stage(time.monotonic(), record.offset)
        return True

    def _receive(self, record: Record) -> bool:
        """False when the stage asked to get the record again later."""
        try:
            self._stage.receive(record)
        except Unavailable as error:
            self._paused_until = time.monotonic() + RETRY_UNAVAILABLE_S
            self._readiness.set_waiting("records", str(error))
            self._log.warning(
                "the stage cannot take a record yet, retrying",
                reason=str(error),
                offset=record.offset,
            )
            return False
        except Exception as error:  # noqa: BLE001 - only this record fails
            self._log.exception(
                "the stage raised an error on a record: it becomes a dead letter",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
            )
            self._set_aside(record, "raised", f"{type(error).__name__}: {error}")
        self._readiness.clear("records")
        return True

    def _set_aside(
        self, record: Record, reason: SetAsideReason, message: str, cause: str = UNREADABLE
    ) -> None:
        """Dead-letter a record that the stage cannot process."""
        metrics.SET_ASIDE.labels(self._stage.service, reason).inc()
        outputs = self._stage.set_aside(record, cause, message[:LONGEST_MESSAGE])
        finished = ((record.topic, record.offset),)
        self._outbox.add([Unit(record.partition, finished, outputs, is_set_aside=True)])
