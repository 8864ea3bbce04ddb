"""The consumer loop: polls, passes records to the stage, commits finished work.

A transaction begins and ends between two polls in the polling thread. So it is open for
milliseconds, and no rebalance callback runs during a transaction. An assigned partition is read
only after its committed offsets are known. The broker does not answer that request while another
owner's transaction is open, so two owners never process the same records.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from typing import Any

import structlog
from confluent_kafka import (
    KafkaError,
    KafkaException,
    TopicPartition,
)

from reviewmesh import metrics
from reviewmesh.avro.topics import partitions_read
from reviewmesh.kafka import clients as kafka
from reviewmesh.kafka.logwatch import LogWatch
from reviewmesh.kafka.reader import PartitionReader
from reviewmesh.kafka.record import Unit
from reviewmesh.kafka.refusals import Refusals
from reviewmesh.kafka.topicids import is_another
from reviewmesh.kafka.transactions import Aborted, OutcomeUnknown, TransactionalProducer
from reviewmesh.loop.brokerwait import BrokerWait
from reviewmesh.loop.deadletter import UNREADABLE
from reviewmesh.loop.dispatch import Dispatcher
from reviewmesh.loop.inputs import Input, Inputs
from reviewmesh.loop.ledger import CompletionLedger, Notes
from reviewmesh.loop.membership import Membership, Rebalance
from reviewmesh.loop.openings import Opened, Openings
from reviewmesh.loop.out_of_range import OutOfRangeOffsets
from reviewmesh.loop.outbox import Outbox, OutputRejected
from reviewmesh.loop.poison import PoisonSearch
from reviewmesh.loop.readiness import Readiness
from reviewmesh.loop.recreated import RecreatedTopics
from reviewmesh.loop.renewal import ConsumerRenewal
from reviewmesh.loop.stage import Stage
from reviewmesh.loop.stalls import StallDetector
from reviewmesh.settings import Settings

POLL_S = 0.02
POLL_RECORDS = 500
REPLACE_CLIENTS_WITHIN_S = 10.0


class ConsumerLoop:
    """Runs one stage. `run` returns after `request_stop`, once everything is committed or the grace
    period is over.
    """

    def __init__(
        self,
        stage: Stage,
        settings: Settings,
        topics: Collection[str],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`topics`: every topic that the stage reads or writes."""
        self._stage = stage
        self._settings = settings
        self._log = log
        self._prefix = settings.prefix
        self._partitions = partitions_read(stage.topics[0])
        self.readiness = Readiness()
        self._member = Membership(
            settings,
            stage,
            Rebalance(self._assign, self._revoke, self._lose),
            on_error=self._on_error,
            readiness=self.readiness,
            log=log,
        )
        self._broker = BrokerWait(settings, self._prefix + stage.topics[0], self.readiness, log)
        self._recreated = RecreatedTopics((*stage.topics, *stage.state_topics))
        self._producer = TransactionalProducer(
            kafka.producer_options(settings, self._member.group), self._prefix, self._on_error
        )
        self.inputs = Inputs()
        self._owned: set[int] = set()
        # What the group assigns to a consumer that takes over from another one; None: it does not.
        self._reassigned: list[int] | None = None
        self._renewal = ConsumerRenewal(
            settings, self._member.make_consumer, self._prefix + stage.topics[0], log
        )
        self._outbox = Outbox(stage, self._prefix, self.inputs, self._producer)
        self._stopping = False
        self.heartbeat = time.monotonic()
        self._dispatcher = Dispatcher(
            stage,
            self.inputs,
            self._outbox,
            prefix=self._prefix,
            readiness=self.readiness,
            log=log,
        )
        self._reader = PartitionReader(settings)
        self._ends = OutOfRangeOffsets(settings, stage.service, log)
        self._openings = Openings(settings, stage, self._ends, readiness=self.readiness, log=log)
        self._refusals = Refusals(settings, log)
        self._watch = LogWatch(settings, topics, log)
        self._stalls = StallDetector(
            stage, self.inputs, self._ends, readiness=self.readiness, log=log
        )

    # -- for signal handlers -----------------------------------------------------------------

    def request_stop(self) -> None:
        self._stopping = True

    # -- running -----------------------------------------------------------------------------

    def run(self) -> None:
        """Run until `request_stop`.

        Raises SlotTaken, StandsStill, and the errors of rebalance callbacks and of the stage.
        """
        self._member.subscribe()
        self._watch.start()
        try:
            while not self._stopping:
                self._run_once()
            self._finish()
        finally:
            self._watch.stop()
            self._stage.stop()
            self._member.consumer.close()

    def _run_once(self) -> None:
        self.heartbeat = time.monotonic()
        if not self._producer.ready:
            self._connect()
        for message in self._member.consumer.consume(POLL_RECORDS, POLL_S):
            self._handle_message(message)
        self._producer.poll()
        if self._member.failure is not None:
            raise self._member.failure
        if reason := self._member.why_replace(self._producer.ready and not self._broker.is_waiting):
            self._member.count_rejoin(reason)
            self._rejoin()
        if not self._producer.ready:
            return
        if self._broker.is_waiting and self._broker.ask(self._member.consumer):
            self._rejoin()
        if not self._broker.is_waiting and (renewed := self._renewal.connected()) is not None:
            self._replace_clients(renewed)
        for opened in self._openings.advance(self._member.consumer):
            self._start(opened)
        if self._recreated.found:
            self._read_recreated()
        self._skip_rejected_batches()
        self._dispatcher.dispatch()
        self._collect()
        self._dispatcher.apply_backpressure(self._member.consumer)
        if self._outbox.is_due():
            self._transact()
            self._measure()
        self._check_progress()

    def _rejoin(self) -> None:
        """Join the group with a new consumer, which is assigned its partitions again."""
        self._drop_all()
        self._member.replace()
        self._recreated.forget()

    def _drop_all(self) -> None:
        """Drop all state of the partitions, which whoever gets them next reads from their
        commits."""
        for partition in self._owned:
            self._drop_partition(partition)
        self._stalls.released(self._owned)
        self._owned.clear()

    def _replace_clients(self, consumer: Any) -> None:
        """Replace the clients after a certificate was replaced. Records in flight stay in flight.

        The new consumer takes over the static membership. If the generation is still the same, no
        other process has had the partitions. Otherwise they are read again from their commits.
        """
        began = time.monotonic()
        self._collect()
        self._transact()
        generation = self._member.generation()
        self._producer.discard()
        self._connect()
        self._reassigned = []
        self._member.replace(consumer)
        while not self._member.is_assigned and time.monotonic() - began < REPLACE_CLIENTS_WITHIN_S:
            for message in consumer.consume(POLL_RECORDS, POLL_S):
                self._handle_message(message)
            self.heartbeat = time.monotonic()
        assigned, self._reassigned = self._reassigned, None
        same = generation >= 0 and self._member.is_assigned
        if same and self._member.generation() == generation and set(assigned) >= self._owned:
            self._fetch(list(self.inputs))
        else:
            self._drop_all()
            if self._member.is_assigned:
                self._assign(assigned)
        self._log.info(
            "replaced the Kafka clients: a certificate was renewed",
            seconds=round(time.monotonic() - began, 3),
            kept=sorted(self._owned),
        )

    def _read_recreated(self) -> None:
        """Read topics that were deleted and created again, with a new consumer."""
        self._log.warning(
            "a topic was deleted and created again: rejoining the group to read it from the start",
            topics=sorted(self._recreated.found),
        )
        self._collect()
        self._transact(closing=self._owned)
        self._rejoin()
        self.readiness.set_waiting("assignment", "partitions from the group's coordinator")

    def _finish(self) -> None:
        """Stop reading, finish records in flight within the grace period, commit."""
        deadline = time.monotonic() + self._settings.grace_s
        self._log.info("stopping", in_flight=self.inputs.in_flight())
        assigned = [self._kafka_partition(item) for item in self.inputs]
        if assigned:
            self._member.consumer.pause(assigned)
        while time.monotonic() < deadline and self._producer.ready:
            # Polling keeps the membership. The records are dropped: the next owner reads them
            # again.
            self._member.consumer.consume(POLL_RECORDS, POLL_S)
            self.heartbeat = time.monotonic()
            self._collect()
            if self._outbox:
                self._transact()
            elif self._stage.idle():
                break
        if self._producer.ready:
            self._collect()
            self._transact(closing=self._owned)

    # -- producer ----------------------------------------------------------------------------

    def _connect(self) -> None:
        try:
            self._producer.connect()
        except KafkaException as error:
            self._broker.begin(error.args[0].str())
            return
        except OutcomeUnknown as error:
            self._broker.begin(str(error))
            return
        self._log.info("transactional producer ready")
        self._broker.reached()
        if not self._owned:
            self.readiness.set_waiting("assignment", "partitions from the group's coordinator")

    def _recover(self, reason: str) -> None:
        """Replace the producer and read again from the committed offsets.

        Called when the outcome of a transaction is unknown.
        """
        self._log.warning(
            "the outcome of a transaction is unknown: replacing the producer and rewinding",
            reason=reason,
        )
        metrics.PRODUCERS_RECOVERED.labels(self._stage.service).inc()
        self._producer.discard()
        self.readiness.set_waiting("broker", f"a new producer, because: {reason}")
        self._reopen(self._owned)

    def _reopen(self, partitions: Iterable[int]) -> None:
        """Drop these partitions and read them again from their committed offsets."""
        reopened = sorted(partitions)
        self._drop(reopened)
        self._openings.begin(reopened, own=True)

    def _check_progress(self) -> None:
        """Reopen partitions that make no progress or whose log was truncated.

        Partitions that wait for the broker or for an aborted transaction are left out. Raises
        StandsStill when reopening did not help.
        """
        self._watch.watch(item.at for item in self.inputs)
        seen = self._watch.seen
        if seen.missing:
            names = ", ".join(self._prefix + topic for topic in seen.missing)
            self.readiness.set_waiting(
                "topics", f"topics missing: {names}; run `reviewmesh topics apply`"
            )
        else:
            self.readiness.clear("topics")
        self._recreated.note(seen.topic_ids, seen.looked_at)
        if self._recreated.found:
            return
        if self._broker.is_waiting or self.readiness.is_waiting_for("transactions"):
            self._stalls.restart_timers()
            return
        to_reopen = self._stalls.check(seen.logs, self._outbox.holds)
        if to_reopen:
            self._reopen(to_reopen)

    # -- rebalancing -------------------------------------------------------------------------

    def _assign(self, assigned: list[int]) -> None:
        self._log.info("partitions assigned", partitions=sorted(assigned))
        self._member.consumer.incremental_assign([])
        if self._reassigned is not None:
            self._reassigned += assigned
            return
        partitions = [number for number in assigned if number < self._partitions]
        if len(partitions) < len(assigned):
            self._log.warning(
                "ignoring partitions beyond the number in topics.yaml, which stay empty",
                topic=self._stage.topics[0],
                partitions=sorted(set(assigned) - set(partitions)),
            )
        self._owned.update(partitions)
        self._openings.begin(partitions)
        # Ready even without partitions: a group may have more members than partitions.
        self.readiness.clear("assignment")

    def _revoke(self, partitions: list[int]) -> None:
        self._log.info("partitions revoked", partitions=sorted(partitions))
        if self._producer.ready:
            self._collect()
            self._transact(closing=partitions)
        self._release(partitions)

    def _lose(self, partitions: list[int]) -> None:
        self._log.warning("partitions lost", partitions=sorted(partitions))
        self._release(partitions)

    def _release(self, partitions: list[int]) -> None:
        self._drop(partitions)
        self._owned.difference_update(partitions)
        self._stalls.released(partitions)
        self.readiness.clear("records")

    def _drop(self, partitions: list[int]) -> None:
        """Drop all state of these partitions and stop fetching from them."""
        opened = [item for partition in partitions for item in self._drop_partition(partition)]
        # Call incremental_unassign even with an empty list. Otherwise the client unassigns all
        # revoked partitions itself, and fails for those that were never assigned.
        self._member.consumer.incremental_unassign([self._kafka_partition(item) for item in opened])

    def _drop_partition(self, partition: int) -> list[Input]:
        opened = self.inputs.remove(partition)
        if opened:
            self._stage.close(partition)
            self._openings.released(opened)
        self._openings.drop(partition)
        self._outbox.drop(partition)
        return opened

    def _start(self, opened: Opened) -> None:
        """Begin to fetch from an opened partition."""
        partition, inputs = opened.partition, []
        ids = {topic: start.topic_id for topic, start in opened.starts.items()}
        self._recreated.note(ids, looked_at=time.monotonic())
        for topic, start in opened.starts.items():
            assert start.offset is not None, "expected an offset within the log"
            head = start.offset
            ledger = CompletionLedger(
                head, start.finished, self._stage.max_in_flight, self._stage.max_window
            )
            notes = opened.notes[topic]
            if is_another(notes.topic_id, start.topic_id):
                notes = Notes()
            poison_search = PoisonSearch(notes, notes.running and not opened.own, head)
            item = Input(
                topic=topic,
                partition=partition,
                ledger=ledger,
                poison_search=poison_search,
                redo_until=start.redo_until,
                topic_id=start.topic_id,
            )
            item.queued.extend(opened.passages.get(topic, ()))
            inputs.append(item)
        self.inputs.add(inputs)
        self._stage.open(partition, self.inputs, opened.loaded)
        for item in inputs:
            # Paused until the first commit says that this process runs. Otherwise the next owner
            # could not tell that the process died.
            item.paused = True
        self._fetch(inputs)

    def _fetch(self, inputs: Iterable[Input]) -> None:
        """Fetch from the offset after the last received record, unless the input is paused."""
        assigned, paused = [], []
        for item in inputs:
            at = self._kafka_partition(item)
            at.offset = item.next_offset
            assigned.append(at)
            if item.paused:
                paused.append(at)
        self._member.consumer.incremental_assign(assigned)
        # librdkafka also keeps the pauses of an earlier assignment.
        if paused:
            self._member.consumer.pause(paused)

    # -- records -----------------------------------------------------------------------------

    def _handle_message(self, message: Any) -> None:
        error = message.error()
        if error is None:
            self._dispatcher.enqueue(message)
        elif error.code() == KafkaError._PARTITION_EOF:
            self._dispatcher.reached_end(message)
        else:
            if error.code() in kafka.REFUSED_BATCH and message.offset() >= 0:
                self._reject_batch(message)
            self._member.consumer_failed(error)

    def _reject_batch(self, message: Any) -> None:
        """Pause an input whose next batch the client rejects, and look for the end of the batch.

        The client would return the same error at every fetch.
        """
        topic = message.topic().removeprefix(self._prefix)
        item = self.inputs.get(topic, message.partition())
        if item is None or item.batch_rejected:
            return
        item.batch_rejected = item.paused = True
        self._member.consumer.pause([self._kafka_partition(item)])
        self._refusals.look(item.at, item.next_offset)

    def _skip_rejected_batches(self) -> None:
        """Continue behind batches that the client rejects, once their ends are known."""
        for partition, at, batch in self._refusals.found():
            item = self.inputs.get(*partition)
            # The partition may have been released or reopened meanwhile.
            if item is None or not item.batch_rejected or item.next_offset != at:
                continue
            item.batch_rejected = False
            if batch is not None:
                item.queued.append(batch)
            target = self._kafka_partition(item)
            self._member.consumer.incremental_unassign([target])
            target.offset = item.next_offset
            self._member.consumer.incremental_assign([target])
            self._member.consumer.pause([target])

    def _collect(self) -> None:
        self._outbox.add(self._stage.poll())

    # -- transactions ------------------------------------------------------------------------

    def _transact(self, closing: Collection[int] = ()) -> None:
        group_metadata = self._member.consumer.consumer_group_metadata()
        if self._member.generation() < 0:
            # Not a member now, so a commit could not be fenced. Finished units stay in the outbox.
            return
        try:
            self._outbox.commit(group_metadata, closing)
        except Aborted as error:
            metrics.TRANSACTIONS_ABORTED.labels(self._stage.service).inc()
            self._log.warning("transaction aborted, retrying", reason=str(error))
            if self._outbox.keeps_aborting:
                self.readiness.set_waiting("transactions", f"transactions are aborted: {error}")
        except OutputRejected as error:
            if error.is_set_aside:
                self._postpone(error)
            else:
                self._set_aside(error.unit, str(error))
        except OutcomeUnknown as error:
            self._recover(str(error))
        else:
            self.readiness.clear("transactions")
            if not self._outbox.has_postponed:
                self.readiness.clear("dead letters")

    def _postpone(self, refused: OutputRejected) -> None:
        """Retry a dead letter later that a topic rejects because of the topic's configuration."""
        reason = f"{refused}: a topic rejects a dead letter; check the topic's configuration"
        if not self.readiness.is_waiting_for("dead letters"):
            self._log.error(
                "a dead letter is rejected, retrying until the topic accepts it", reason=reason
            )
        self.readiness.set_waiting("dead letters", reason)
        self._outbox.postpone(refused.unit)

    def _set_aside(self, unit: Unit, reason: str) -> None:
        """Dead-letter the record of a unit whose output is always rejected."""
        if not unit.finished:
            self._log.error(
                "outputs are rejected every time: dropping them",
                partition=unit.partition,
                reason=reason,
            )
            self._outbox.drop_first(unit)
            if unit.refused is not None:
                unit.refused(reason)
            return
        topic, offset = unit.finished[0]
        self._log.error(
            "an output is rejected every time: its record becomes a dead letter",
            topic=topic,
            partition=unit.partition,
            offset=offset,
            reason=reason,
        )
        metrics.SET_ASIDE.labels(self._stage.service, "aborted").inc()
        record = self._reader.read_one(topic, unit.partition, offset)
        self._outbox.replace(unit, self._stage.set_aside(record, UNREADABLE, reason))
        if unit.refused is not None:
            unit.refused(reason)

    # -- helpers -----------------------------------------------------------------------------

    def _measure(self) -> None:
        service = self._stage.service
        for topic in self._stage.topics:
            metrics.IN_FLIGHT.labels(service, topic).set(self.inputs.in_flight(topic))
        metrics.PAUSED.labels(service).set(sum(item.paused for item in self.inputs))
        metrics.ASSIGNED.labels(service).set(len(self._owned) - len(self._openings))

    def _kafka_partition(self, item: Input) -> TopicPartition:
        return TopicPartition(self._prefix + item.topic, item.partition)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN and not self._stopping:
            self._broker.begin(error.str())
            return
        self._log.warning("kafka", code=error.name(), error=error.str())
