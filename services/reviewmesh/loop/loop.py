"""The consumer loop: poll, pass records to the stage, commit finished work.

A transaction begins and ends between two polls in the polling thread, so it is open for
milliseconds and no rebalance callback runs inside of it. Assigned partitions are read only after
their committed offsets are known: under `read_committed` that request waits while another owner's
transaction is open, so two owners never process the same records.
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
from reviewmesh.loop.feed import Feed
from reviewmesh.loop.inputs import Input, Inputs
from reviewmesh.loop.ledger import CompletionLedger, Notes
from reviewmesh.loop.logends import LogEnds
from reviewmesh.loop.membership import Membership, Rebalance
from reviewmesh.loop.openings import Opened, Openings
from reviewmesh.loop.outbox import Outbox, OutputRejected
from reviewmesh.loop.overseer import Overseer
from reviewmesh.loop.readiness import Readiness
from reviewmesh.loop.recreated import RecreatedTopics
from reviewmesh.loop.renewal import ConsumerRenewal
from reviewmesh.loop.stage import Stage
from reviewmesh.loop.suspicion import Suspicion
from reviewmesh.settings import Settings

POLL_S = 0.02
POLL_RECORDS = 500
CHANGED_OVER_WITHIN_S = 10.0


class ConsumerLoop:
    """Runs one stage. `run` returns after `request_stop`, once all is committed or the grace is
    over."""

    def __init__(
        self,
        stage: Stage,
        settings: Settings,
        topics: Collection[str],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`topics`: all that the stage reads or writes."""
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
        self._assigned_again: list[int] | None = None
        self._renewal = ConsumerRenewal(
            settings, self._member.make_consumer, self._prefix + stage.topics[0], log
        )
        self._outbox = Outbox(stage, self._prefix, self.inputs, self._producer)
        self._stopping = False
        self.heartbeat = time.monotonic()
        self._feed = Feed(
            stage,
            self.inputs,
            self._outbox,
            prefix=self._prefix,
            readiness=self.readiness,
            log=log,
        )
        self._reader = PartitionReader(settings)
        self._ends = LogEnds(settings, stage.service, log)
        self._openings = Openings(settings, stage, self._ends, readiness=self.readiness, log=log)
        self._refusals = Refusals(settings, log)
        self._watch = LogWatch(settings, topics, log)
        self._overseer = Overseer(stage, self.inputs, self._ends, readiness=self.readiness, log=log)

    # -- for signal handlers -----------------------------------------------------------------

    def request_stop(self) -> None:
        self._stopping = True

    # -- running -----------------------------------------------------------------------------

    def run(self) -> None:
        """Raises what a rebalance callback or the stage raises, SlotTaken and StandsStill."""
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
            self._take(message)
        self._producer.poll()
        if self._member.failure is not None:
            raise self._member.failure
        if reason := self._member.is_lost(self._producer.ready and not self._broker.is_on):
            self._member.count_rejoin(reason)
            self._rejoin()
        if not self._producer.ready:
            return
        if self._broker.is_on and self._broker.ask(self._member.consumer):
            self._rejoin()
        if not self._broker.is_on and (renewed := self._renewal.connected()) is not None:
            self._change_over(renewed)
        for opened in self._openings.advance(self._member.consumer):
            self._start(opened)
        if self._recreated.found:
            self._read_recreated()
        self._pass_over()
        self._feed.work_off()
        self._collect()
        self._feed.balance(self._member.consumer)
        if self._outbox.is_due():
            self._transact()
            self._measure()
        self._oversee()

    def _rejoin(self) -> None:
        """Join the group with a new consumer; its partitions begin again when they are assigned."""
        for partition in self._owned:
            self._forget(partition)
        self._owned.clear()
        self._member.replace()
        self._recreated.forget()

    def _change_over(self, consumer: Any) -> None:
        """Go on with new clients, after a certificate was replaced. Records in flight stay so.

        The consumer takes over the static membership. As long as the generation is the same, nobody
        else has had the partitions; otherwise they are read again from their commits.
        """
        began = time.monotonic()
        self._collect()
        self._transact()
        generation = self._member.generation()
        self._producer.discard()
        self._connect()
        self._assigned_again = []
        self._member.replace(consumer)
        while not self._member.is_assigned and time.monotonic() - began < CHANGED_OVER_WITHIN_S:
            for message in consumer.consume(POLL_RECORDS, POLL_S):
                self._take(message)
            self.heartbeat = time.monotonic()
        assigned, self._assigned_again = self._assigned_again, None
        same = generation >= 0 and self._member.is_assigned
        if same and self._member.generation() == generation and set(assigned) >= self._owned:
            self._fetch(list(self.inputs))
        else:
            for partition in self._owned:
                self._forget(partition)
            self._owned.clear()
            if self._member.is_assigned:
                self._assign(assigned)
        self._log.info(
            "changed over to clients with the renewed certificate",
            seconds=round(time.monotonic() - began, 3),
            kept=sorted(self._owned),
        )

    def _read_recreated(self) -> None:
        """Read topics that were deleted and created again, with a new consumer."""
        self._log.warning(
            "a topic was deleted and created again: joining the group again to read it from its "
            "beginning",
            topics=sorted(self._recreated.found),
        )
        self._collect()
        self._transact(closing=self._owned)
        self._rejoin()
        self.readiness.waits("assignment", "partitions from the group's coordinator")

    def _finish(self) -> None:
        """Stop reading, finish records in flight within the grace time, commit."""
        deadline = time.monotonic() + self._settings.grace_s
        self._log.info("stopping", in_flight=self.inputs.in_flight())
        assigned = [self._kafka_partition(item) for item in self.inputs]
        if assigned:
            self._member.consumer.pause(assigned)
        while time.monotonic() < deadline and self._producer.ready:
            # Keep polling to stay in the group; records that still come are dropped.
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
        self.readiness.has("broker")
        if not self._owned:
            self.readiness.waits("assignment", "partitions from the group's coordinator")

    def _recover(self, reason: str) -> None:
        """The outcome of a transaction is unknown: new producer, rewind to what is committed."""
        self._log.warning("replacing the producer and rewinding", reason=reason)
        metrics.PRODUCERS_RECOVERED.labels(self._stage.service).inc()
        self._producer.discard()
        self.readiness.waits("broker", f"a new producer, since: {reason}")
        self._reopen(self._owned)

    def _reopen(self, partitions: Iterable[int]) -> None:
        """Drop these partitions and read them again from their committed offsets."""
        reopened = sorted(partitions)
        self._drop(reopened)
        self._openings.begin(reopened, own=True)

    def _oversee(self) -> None:
        """Reopen partitions that make no progress or whose log was truncated.

        Partitions that wait for the broker or for an aborted transaction are left out. Raises
        StandsStill when reopening did not help.
        """
        self._watch.watch(item.at for item in self.inputs)
        seen = self._watch.seen
        if seen.missing:
            names = ", ".join(self._prefix + topic for topic in seen.missing)
            self.readiness.waits(
                "topics", f"topics missing: {names}; run `reviewmesh topics apply`"
            )
        else:
            self.readiness.has("topics")
        self._recreated.note(seen.topic_ids, seen.looked_at)
        if self._recreated.found:
            return
        if self._broker.is_on or self.readiness.is_waiting_for("transactions"):
            self._overseer.excuse()
            return
        to_reopen = self._overseer.look(seen.logs, self._outbox.holds)
        if to_reopen:
            self._reopen(to_reopen)

    # -- rebalancing -------------------------------------------------------------------------

    def _assign(self, assigned: list[int]) -> None:
        self._log.info("assigned", partitions=sorted(assigned))
        self._member.consumer.incremental_assign([])
        if self._assigned_again is not None:
            self._assigned_again += assigned
            return
        partitions = [number for number in assigned if number < self._partitions]
        if len(partitions) < len(assigned):
            self._log.warning(
                "partitions beyond the mesh's number are not read: the mesh writes nothing there",
                topic=self._stage.topics[0],
                partitions=sorted(set(assigned) - set(partitions)),
            )
        self._owned.update(partitions)
        self._openings.begin(partitions)
        # A group may have more members than partitions: a spare one is ready too.
        self.readiness.has("assignment")

    def _revoke(self, partitions: list[int]) -> None:
        self._log.info("revoked", partitions=sorted(partitions))
        if self._producer.ready:
            self._collect()
            self._transact(closing=partitions)
        self._release(partitions)

    def _lose(self, partitions: list[int]) -> None:
        self._log.warning("lost", partitions=sorted(partitions))
        self._release(partitions)

    def _release(self, partitions: list[int]) -> None:
        self._drop(partitions)
        self._owned.difference_update(partitions)
        self._overseer.released(partitions)
        self.readiness.has("records")

    def _drop(self, partitions: list[int]) -> None:
        """Drop all state of these partitions and stop fetching them."""
        opened = [item for partition in partitions for item in self._forget(partition)]
        # Call incremental_unassign even with an empty list. Otherwise the client unassigns all
        # revoked partitions itself, and fails for those that were never assigned.
        self._member.consumer.incremental_unassign([self._kafka_partition(item) for item in opened])

    def _forget(self, partition: int) -> list[Input]:
        opened = self.inputs.remove(partition)
        if opened:
            self._stage.close(partition)
            self._openings.left(opened)
        self._openings.drop(partition)
        self._outbox.drop(partition)
        return opened

    def _start(self, opened: Opened) -> None:
        """Begin to fetch an opened partition."""
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
            suspicion = Suspicion(notes, notes.running and not opened.own, head)
            item = Input(
                topic=topic,
                partition=partition,
                ledger=ledger,
                suspicion=suspicion,
                redo_until=start.redo_until,
                topic_id=start.topic_id,
            )
            item.held.extend(opened.passages.get(topic, ()))
            inputs.append(item)
        self.inputs.add(inputs)
        self._stage.open(partition, self.inputs, opened.loaded)
        for item in inputs:
            # Paused until a commit has recorded that this process runs: without it the next owner
            # could not know that the process died.
            item.paused = True
        self._fetch(inputs)

    def _fetch(self, inputs: Iterable[Input]) -> None:
        """Let the consumer fetch what follows the last record received, or pause it there."""
        assigned, paused = [], []
        for item in inputs:
            at = self._kafka_partition(item)
            at.offset = item.following
            assigned.append(at)
            if item.paused:
                paused.append(at)
        self._member.consumer.incremental_assign(assigned)
        # librdkafka keeps the pauses of an earlier assignment, too.
        if paused:
            self._member.consumer.pause(paused)

    # -- records -----------------------------------------------------------------------------

    def _take(self, message: Any) -> None:
        error = message.error()
        if error is None:
            self._feed.hold(message)
        elif error.code() == KafkaError._PARTITION_EOF:
            self._feed.reached_end(message)
        else:
            if error.code() in kafka.REFUSED_BATCH and message.offset() >= 0:
                self._refused(message)
            self._member.consumer_failed(error)

    def _refused(self, message: Any) -> None:
        """The client returns this error at every fetch: find the end of the batch."""
        topic = message.topic().removeprefix(self._prefix)
        item = self.inputs.get(topic, message.partition())
        if item is None or item.refused:
            return
        item.refused = item.paused = True
        self._member.consumer.pause([self._kafka_partition(item)])
        self._refusals.look(item.at, item.following)

    def _pass_over(self) -> None:
        """Continue after batches that the client rejects."""
        for partition, at, batch in self._refusals.found():
            item = self.inputs.get(*partition)
            # It may have been released or reopened meanwhile.
            if item is None or not item.refused or item.following != at:
                continue
            item.refused = False
            if batch is not None:
                item.held.append(batch)
            target = self._kafka_partition(item)
            self._member.consumer.incremental_unassign([target])
            target.offset = item.following
            self._member.consumer.incremental_assign([target])
            self._member.consumer.pause([target])

    def _collect(self) -> None:
        self._outbox.add(self._stage.poll())

    # -- transactions ------------------------------------------------------------------------

    def _transact(self, closing: Collection[int] = ()) -> None:
        group_metadata = self._member.consumer.consumer_group_metadata()
        if self._member.generation() < 0:
            # Not a member now: the commit could not be fenced. Finished units wait for the next
            # one.
            return
        try:
            self._outbox.commit(group_metadata, closing)
        except Aborted as error:
            metrics.TRANSACTIONS_ABORTED.labels(self._stage.service).inc()
            self._log.warning("transaction aborted, trying again", reason=str(error))
            if self._outbox.aborts_again_and_again:
                self.readiness.waits("transactions", f"transactions are aborted: {error}")
        except OutputRejected as error:
            if error.is_set_aside:
                self._postpone(error)
            else:
                self._set_aside(error.unit, str(error))
        except OutcomeUnknown as error:
            self._recover(str(error))
        else:
            self.readiness.has("transactions")
            if not self._outbox.has_postponed:
                self.readiness.has("dead letters")

    def _postpone(self, refused: OutputRejected) -> None:
        """The dead-letter topic rejects a record, so its configuration was changed: retry later."""
        reason = f"{refused}: a dead letter waits until its topic takes it; see its configuration"
        if not self.readiness.is_waiting_for("dead letters"):
            self._log.error("a dead letter is refused", reason=reason)
        self.readiness.waits("dead letters", reason)
        self._outbox.postpone(refused.unit)

    def _set_aside(self, unit: Unit, reason: str) -> None:
        """Replace a unit whose output is rejected every time by a dead letter of its record."""
        if not unit.finished:
            self._log.error(
                "outputs are refused every time", partition=unit.partition, reason=reason
            )
            self._outbox.drop_first(unit)
            if unit.refused is not None:
                unit.refused(reason)
            return
        topic, offset = unit.finished[0]
        self._log.error(
            "an output is refused every time: its record is set aside as a dead letter",
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

    # -- small things ------------------------------------------------------------------------

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
