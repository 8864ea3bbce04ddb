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
from reviewmesh.loop.readiness import Readiness
from reviewmesh.loop.stage import Stage
from reviewmesh.loop.suspicion import Suspicion

RETRY_UNAVAILABLE_S = 1.0
LONGEST_MESSAGE = 1_000
# For the records of one input between two polls, each of which may take a second: the size of a
# record says little of the time that its schema takes.
TURN_S = 0.5

SetAsideReason = Literal["raised", "aborted", "killed", "impassable"]


class Feed:
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
        self._held_until = 0.0

    def hold(self, message: Any) -> None:
        """Queue a message for the stage; drop it if its partition is no longer owned."""
        item = self._input_of(message)
        if item is not None:
            item.held.append(
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
        """The end-of-partition event has the true end, markers included."""
        item = self._input_of(message)
        if item is not None:
            item.end = message.offset()

    def work_off(self) -> None:
        """Pass queued records to the stage, as far as it and the ledgers have room."""
        if time.monotonic() < self._held_until:
            return
        for item in self._in_turn():
            taken = self._work_off(item)
            if taken:
                metrics.RECORDS_READ.labels(self._stage.service, item.topic).inc(taken)
        for item in self._inputs:
            if not item.held:
                item.ledger.reached_end(item.end)

    def _in_turn(self) -> Iterable[Input]:
        """All inputs, or only the one on trial, so that a death can be attributed to its
        records."""
        now = time.monotonic()
        trying = [item for item in self._inputs if item.suspicion.is_trying]
        for item in trying:
            item.suspicion.settle(now, item.ledger.in_flight, not item.held)
        chosen = Suspicion.whose_turn(trying)
        return self._inputs if chosen is None else [chosen]

    def balance(self, consumer: Any) -> None:
        """Pause inputs that are full or blocked by the stage; resume them with hysteresis."""
        pause, resume = [], []
        for item in self._inputs:
            blocked = bool(item.held) or item.refused or not item.is_named
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

    def _work_off(self, item: Input) -> int:
        taken = 0
        until = time.monotonic() + TURN_S
        while item.held and item.is_named and time.monotonic() <= until:
            record = item.held[0]
            if isinstance(record, Impassable):
                if not self._pass_over(item, record):
                    break
                item.held.popleft()
                continue
            if not item.ledger.has_room_for(record.offset):
                break
            if item.ledger.is_new(record.offset):
                if not item.suspicion.may_take(record.offset) or not self._take(item, record):
                    break
                taken += 1
            if record.offset > item.ledger.position:
                item.gaps.append((item.ledger.position, record.offset))
            item.ledger.deliver(record.offset)
            item.held.popleft()
        return taken

    def _pass_over(self, item: Input, batch: Impassable) -> bool:
        """Write one dead letter for all its records, committed with the offset after them."""
        ledger = item.ledger
        if not ledger.has_room_for(batch.next - 1):
            return False
        if batch.next > ledger.position:
            first = max(batch.offset, ledger.position)
            self._log.error(
                "a batch that cannot be read is passed over: its records are one dead letter",
                topic=item.topic,
                partition=item.partition,
                first=first,
                next=batch.next,
                reason=batch.reason,
            )
            ledger.deliver(first)
            ledger.reached_end(batch.next)
            # Not even its key is known.
            record = Record(
                topic=item.topic, partition=item.partition, offset=first, key=None, value=None
            )
            message = batch._replace(offset=first).message
            self._set_aside(record, "impassable", message, batch.cause)
        return True

    def _take(self, item: Input, record: Record) -> bool:
        if self._stage.blocks(item.topic, item.partition):
            return False
        if item.suspicion.condemns(record.offset):
            self._log.error(
                "the process ended again and again with this record alone in hand: it is set aside",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
            )
            self._set_aside(
                record, "killed", "the process ended each time that it took this record"
            )
        elif not self._receive(record):
            return False
        item.suspicion.took(time.monotonic(), record.offset)
        return True

    def _receive(self, record: Record) -> bool:
        try:
            self._stage.receive(record)
        except Unavailable as error:
            self._held_until = time.monotonic() + RETRY_UNAVAILABLE_S
            self._readiness.waits("records", str(error))
            self._log.warning("record waits", reason=str(error), offset=record.offset)
            return False
        except Exception as error:  # noqa: BLE001 - it costs this record only
            self._log.exception(
                "a record that the stage cannot take is set aside as a dead letter",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
            )
            self._set_aside(record, "raised", f"{type(error).__name__}: {error}")
        self._readiness.has("records")
        return True

    def _set_aside(
        self, record: Record, reason: SetAsideReason, message: str, cause: str = UNREADABLE
    ) -> None:
        """Dead-letter one record that makes the stage raise or the process die."""
        metrics.SET_ASIDE.labels(self._stage.service, reason).inc()
        outputs = self._stage.set_aside(record, cause, message[:LONGEST_MESSAGE])
        finished = ((record.topic, record.offset),)
        self._outbox.add([Unit(record.partition, finished, outputs, is_set_aside=True)])
