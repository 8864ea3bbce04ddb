"""The consumer loop: poll, hand to the stage, commit what is finished, between two polls.

One whole transaction happens between two polls in the polling thread, so it is open for
milliseconds and no rebalance callback can fall inside it. Partitions that were assigned are read
only after their committed offsets have resolved: under `read_committed` that answer waits while
another owner's transaction is open, which is the ownership fence.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping
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
from reviewmesh.loop.feed import UNREADABLE, Feed
from reviewmesh.loop.inputs import Input, Inputs
from reviewmesh.loop.ledger import CompletionLedger, Notes
from reviewmesh.loop.logends import LogEnds
from reviewmesh.loop.openings import Opened, Openings
from reviewmesh.loop.outbox import Outbox, Refused
from reviewmesh.loop.overseer import Overseer
from reviewmesh.loop.readiness import Readiness
from reviewmesh.loop.stage import Stage
from reviewmesh.loop.suspicion import Suspicion
from reviewmesh.settings import Settings

POLL_S = 0.02
POLL_RECORDS = 500
# Two processes with one slot fence each other again and again; restarts of a broker do not.
REJOINS_AT_MOST = 3
REJOINS_WITHIN_S = 60.0
# A rebalance is over in seconds where every member is well, and within `max.poll.interval.ms` else.
SOON_ASSIGNED_S = 15.0
ASSIGNED_WITHIN_S = 75.0
CLOSED_WITHIN_S = 10.0
ASK_BROKER_EVERY_S = 1.0
ASK_BROKER_TIMEOUT_S = 0.2
NEW_CLIENT_AFTER_S = 10.0


class SlotTaken(RuntimeError):
    """Another process runs with the same slot of the same service."""


class ConsumerLoop:
    """Runs one stage. `run` returns after `request_stop`, all committed or grace over."""

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
        self._group = f"{settings.prefix}reviewmesh-{stage.service}"
        self._prefix = settings.prefix
        self._partitions = partitions_read(stage.topics[0])
        self._producer = TransactionalProducer(
            kafka.producer_options(settings, self._group), self._prefix, self._on_error
        )
        self._consumer: Any = kafka.make_consumer(
            kafka.consumer_options(settings, self._group), self._on_consumer_error
        )
        self.inputs = Inputs()
        self._owned: set[int] = set()
        self._outbox = Outbox(stage.service, self._prefix, self.inputs, self._producer)
        self._stopping = False
        self._failure: BaseException | None = None
        self._fenced = ""
        # Since when partitions are awaited from the group; None while it has said which.
        self._unassigned_since: float | None = None
        self._rejoined_at: list[float] = []
        # Since when this consumer is a member, and the ids of the topics that it reads.
        self._joined_at = time.monotonic()
        self._topic_ids: dict[str, int] = {}
        # Those of them that have another id now.
        self._made_anew: set[str] = set()
        self.heartbeat = time.monotonic()
        self._brokers = settings.kafka.bootstrap_servers
        self._ask_broker_at = 0.0
        self._new_client_at = 0.0
        self.readiness = Readiness()
        self._feed = Feed(stage, self.inputs, self._outbox, self._prefix, self.readiness, log)
        self._reader = PartitionReader(settings)
        self._ends = LogEnds(settings, stage.service, log)
        self._openings = Openings(settings, stage, self._ends, self.readiness, log)
        self._refusals = Refusals(settings, log)
        self._watch = LogWatch(settings, topics, log)
        self._overseer = Overseer(stage, self.inputs, self._ends, self.readiness, log)
        self.readiness.waits("broker", f"the broker at {self._brokers}")

    # -- what health and signals see ---------------------------------------------------------

    def request_stop(self) -> None:
        self._stopping = True

    # -- running -----------------------------------------------------------------------------

    def run(self) -> None:
        """Raises what a rebalance callback or the stage raised, and SlotTaken; then it is over."""
        self._subscribe()
        self._watch.start()
        try:
            while not self._stopping:
                self._run_once()
            self._finish()
        finally:
            self._close()

    def _run_once(self) -> None:
        self.heartbeat = time.monotonic()
        if not self._producer.ready:
            self._connect()
        for message in self._consumer.consume(POLL_RECORDS, POLL_S):
            self._take(message)
        self._producer.poll()
        if self._failure is not None:
            raise self._failure
        if not self._fenced:
            self._fenced = self._left_out()
        if self._fenced:
            self._rejoin()
        if self.readiness.is_waiting_for("broker"):
            self._ask_for_the_broker()
        if not self._producer.ready:
            return
        for opened in self._openings.advance(self._consumer):
            self._start(opened)
        if self._made_anew:
            self._read_anew()
        self._pass_over()
        self._feed.work_off()
        self._collect()
        self._feed.balance(self._consumer)
        if self._outbox.is_due():
            self._transact()
            self._measure()
        self._oversee()

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            [self._prefix + self._stage.topics[0]],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )
        self._unassigned_since = time.monotonic()

    def _left_out(self) -> str:
        """Why this consumer should be replaced, though it is not fenced; empty when it should not.

        librdkafka can forget to join its group again after it was put out: seen where partitions
        had no leader for a while.
        """
        if self._unassigned_since is None:
            return ""
        if not self._producer.ready or self.readiness.is_waiting_for("broker"):
            self._unassigned_since = time.monotonic()
            return ""
        waited_s = time.monotonic() - self._unassigned_since
        if waited_s > SOON_ASSIGNED_S:
            self.readiness.waits(
                "assignment", f"partitions from the group's coordinator, for {waited_s:.0f} s"
            )
        if waited_s <= ASSIGNED_WITHIN_S:
            return ""
        return f"the group has given no partitions for {waited_s:.0f} s"

    def _rejoin(self) -> None:
        """Replace a consumer that the group has fenced, as a restarted broker may do.

        Raises SlotTaken when it happens so often that another process must be behind it.
        """
        reason, self._fenced = self._fenced, ""
        now = time.monotonic()
        self._rejoined_at = [at for at in self._rejoined_at if now - at < REJOINS_WITHIN_S]
        if len(self._rejoined_at) >= REJOINS_AT_MOST:
            raise SlotTaken(
                f"fenced {REJOINS_AT_MOST + 1} times within {REJOINS_WITHIN_S:g} s by slot "
                f"{self._settings.slot!r} of {self._group}: expected a REVIEWMESH_SLOT of its own "
                "for every replica"
            )
        self._rejoined_at.append(now)
        self._log.warning("joining the group anew", reason=reason)
        self._replace_consumer()

    def _replace_consumer(self) -> None:
        for partition in self._owned:
            self._forget(partition)
        self._owned.clear()
        replaced = self._consumer
        self._consumer = kafka.make_consumer(
            kafka.consumer_options(self._settings, self._group), self._on_consumer_error
        )
        # It may hang, and the group's static membership passes to the new one in any case.
        closing = threading.Thread(target=replaced.close, name="closing", daemon=True)
        closing.start()
        closing.join(CLOSED_WITHIN_S)
        self._fenced = ""
        self._made_anew.clear()
        self._topic_ids.clear()
        self._joined_at = time.monotonic()
        self._subscribe()

    def _read_anew(self) -> None:
        """Read topics that were made anew, with a new consumer.

        This one keeps the epochs of the leaders that it has seen, and those of a new topic begin at
        0 again: after any restart of a broker it would ask in vain for ever.
        """
        self._log.warning(
            "a topic was made anew: joining the group anew to begin with it",
            topics=sorted(self._made_anew),
        )
        self._collect()
        self._transact(closing=self._owned)
        self._replace_consumer()
        self.readiness.waits("assignment", "partitions from the group's coordinator")

    def _note_ids(self, topic_ids: Mapping[str, int]) -> None:
        for topic in (*self._stage.topics, *self._stage.state_topics):
            now = topic_ids.get(topic, 0)
            if is_another(self._topic_ids.get(topic, 0), now):
                self._made_anew.add(topic)
            elif now:
                self._topic_ids[topic] = now

    def _finish(self) -> None:
        """Stop reading, finish what is in flight within the grace time, commit."""
        deadline = time.monotonic() + self._settings.grace_s
        self._log.info("stopping", in_flight=self.inputs.in_flight())
        assigned = [self._kafka_partition(item) for item in self.inputs]
        if assigned:
            self._consumer.pause(assigned)
        while time.monotonic() < deadline and self._producer.ready:
            # Polling goes on so that the group keeps this member; what still comes is not taken.
            self._consumer.consume(POLL_RECORDS, POLL_S)
            self.heartbeat = time.monotonic()
            self._collect()
            if self._outbox:
                self._transact()
            elif self._stage.idle():
                break
        if self._producer.ready:
            self._collect()
            self._transact(closing=self._owned)

    def _close(self) -> None:
        self._watch.stop()
        self._stage.stop()
        self._consumer.close()

    # -- producer ----------------------------------------------------------------------------

    def _connect(self) -> None:
        try:
            self._producer.connect()
        except KafkaException as error:
            self._wait_for_the_broker(error.args[0].str())
            return
        except OutcomeUnknown as error:
            self._wait_for_the_broker(str(error))
            return
        self._log.info("transactional producer ready")
        self.readiness.has("broker")
        if not self._owned:
            self.readiness.waits("assignment", "partitions from the group's coordinator")

    def _wait_for_the_broker(self, error: str) -> None:
        if not self.readiness.is_waiting_for("broker"):
            self._new_client_at = time.monotonic() + NEW_CLIENT_AFTER_S
        self.readiness.waits("broker", f"the broker at {self._brokers}: {error}")
        self._log.warning(
            "waiting for the broker; check that it is up and REVIEWMESH_KAFKA__BOOTSTRAP_SERVERS",
            brokers=self._brokers,
            error=error,
        )

    def _ask_for_the_broker(self) -> None:
        """It was away, and no event tells that it is back: ask once a second."""
        now = time.monotonic()
        if now < self._ask_broker_at or not self._producer.ready:
            return
        self._ask_broker_at = now + ASK_BROKER_EVERY_S
        topic = self._prefix + self._stage.topics[0]
        try:
            self._consumer.list_topics(topic, ASK_BROKER_TIMEOUT_S)
        except KafkaException:
            if now > self._new_client_at:
                self._new_client_at = now + NEW_CLIENT_AFTER_S
                self._ask_with_a_new_client(topic)
            return
        self._log.info("the broker is back", brokers=self._brokers)
        self.readiness.has("broker")

    def _ask_with_a_new_client(self, topic: str) -> None:
        """A client may lose every address of a broker that is back (librdkafka issue 5301)."""
        try:
            kafka.make_admin(self._settings.kafka).list_topics(topic, ASK_BROKER_TIMEOUT_S)
        except KafkaException:
            return
        self._log.warning("the broker answers, but not this consumer: replacing it")
        self._replace_consumer()

    def _recover(self, reason: str) -> None:
        """The outcome of a transaction is unknown: new producer, rewind to what is committed."""
        self._log.warning("replacing the producer and rewinding", reason=reason)
        metrics.PRODUCERS_RECOVERED.labels(self._stage.service).inc()
        self._producer.discard()
        self.readiness.waits("broker", f"a new producer, since: {reason}")
        self._reopen(self._owned)

    def _reopen(self, partitions: Iterable[int]) -> None:
        """Forget these partitions and read them again from what is committed."""
        reopened = sorted(partitions)
        self._drop(reopened)
        self._openings.begin(reopened, own=True)

    def _oversee(self) -> None:
        """Reopen what stands still or has lost its log. Raises StandsStill when that did not help.

        What waits for the broker, or for a transaction that is refused, is not looked at.
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
        # An earlier look may be of the topic that was there before.
        if seen.looked_at > self._joined_at:
            self._note_ids(seen.topic_ids)
        if self._made_anew:
            return
        if self.readiness.is_waiting_for("broker") or self.readiness.is_waiting_for("transactions"):
            self._overseer.excuse()
            return
        to_reopen = self._overseer.look(seen.logs, self._outbox.holds)
        if to_reopen:
            self._reopen(to_reopen)

    # -- rebalancing -------------------------------------------------------------------------

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._guard(consumer, self._assign, partitions)

    def _on_revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._guard(consumer, self._revoke, partitions)

    def _on_lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._guard(consumer, self._lose, partitions)

    def _guard(self, consumer: Any, action: Any, partitions: list[TopicPartition]) -> None:
        if consumer is not self._consumer:
            # One that was replaced; what it had is forgotten.
            return
        # An exception inside a callback would surface from a poll with the partition assigned.
        try:
            action([item.partition for item in partitions])
        except Exception as error:  # noqa: BLE001
            self._failure = error

    def _assign(self, assigned: list[int]) -> None:
        self._log.info("assigned", partitions=sorted(assigned))
        self._unassigned_since = None
        self._consumer.incremental_assign([])
        partitions = [number for number in assigned if number < self._partitions]
        if len(partitions) < len(assigned):
            self._log.warning(
                "partitions beyond the mesh's number are not read: nothing of it writes there",
                topic=self._stage.topics[0],
                partitions=sorted(set(assigned) - set(partitions)),
            )
        self._owned.update(partitions)
        self._openings.begin(partitions)
        # A spare member of a group that has more of them than partitions is at work too.
        self.readiness.has("assignment")

    def _revoke(self, partitions: list[int]) -> None:
        self._log.info("revoked", partitions=sorted(partitions))
        self._unassigned_since = time.monotonic()
        if self._producer.ready:
            self._collect()
            self._transact(closing=partitions)
        self._release(partitions)

    def _lose(self, partitions: list[int]) -> None:
        self._log.warning("lost", partitions=sorted(partitions))
        self._unassigned_since = time.monotonic()
        self._release(partitions)

    def _release(self, partitions: list[int]) -> None:
        self._drop(partitions)
        self._owned.difference_update(partitions)
        self._overseer.released(partitions)
        self.readiness.has("records")

    def _drop(self, partitions: list[int]) -> None:
        """Forget everything of these partitions and stop fetching them."""
        opened = [item for partition in partitions for item in self._forget(partition)]
        # Inside a callback this must be said even of none: the client would otherwise take away
        # what it believes was assigned, and fail on partitions whose offsets never resolved.
        self._consumer.incremental_unassign([self._kafka_partition(item) for item in opened])

    def _forget(self, partition: int) -> list[Input]:
        opened = self.inputs.remove(partition)
        if opened:
            self._stage.close(partition)
        self._openings.drop(partition)
        self._outbox.drop(partition)
        return opened

    def _start(self, opened: Opened) -> None:
        """Fetch a partition from where its state begins."""
        partition, inputs = opened.partition, []
        self._note_ids({topic: start.topic_id for topic, start in opened.starts.items()})
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
            item = Input(topic, partition, ledger, suspicion, start.redo_until, start.topic_id)
            item.held.extend(opened.passages.get(topic, ()))
            inputs.append(item)
        self.inputs.add(inputs)
        self._stage.open(partition, self.inputs, opened.loaded)
        assigned = [self._kafka_partition(item) for item in inputs]
        for at, item in zip(assigned, inputs, strict=True):
            at.offset = item.following
            # Nothing is fetched before a commit says that this process runs: that it died of it
            # would not be known. librdkafka keeps the pause of an earlier assignment, too.
            item.paused = True
        self._consumer.incremental_assign(assigned)
        self._consumer.pause(assigned)

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
            self._on_consumer_error(error)

    def _refused(self, message: Any) -> None:
        """The client gives this error each time: find out how far the batch reaches."""
        topic = message.topic().removeprefix(self._prefix)
        item = self.inputs.get(topic, message.partition())
        if item is None or item.refused:
            return
        item.refused = item.paused = True
        self._consumer.pause([self._kafka_partition(item)])
        self._refusals.look(item.at, item.following)

    def _pass_over(self) -> None:
        """Go on behind batches that the client refuses."""
        for partition, at, batch in self._refusals.found():
            item = self.inputs.get(*partition)
            # It may have been let go of meanwhile, or reopened.
            if item is None or not item.refused or item.following != at:
                continue
            item.refused = False
            if batch is not None:
                item.held.append(batch)
            target = self._kafka_partition(item)
            self._consumer.incremental_unassign([target])
            target.offset = item.following
            self._consumer.incremental_assign([target])
            self._consumer.pause([target])

    def _collect(self) -> None:
        self._outbox.add(self._stage.poll())

    # -- transactions ------------------------------------------------------------------------

    def _transact(self, closing: Collection[int] = ()) -> None:
        group_metadata = self._consumer.consumer_group_metadata()
        if kafka.generation(group_metadata) < 0:
            # Not joined: a commit would not be fenced. What is finished waits for the next cycle.
            return
        try:
            self._outbox.commit(group_metadata, closing)
        except Aborted as error:
            metrics.TRANSACTIONS_ABORTED.labels(self._stage.service).inc()
            self._log.warning("transaction aborted, trying again", reason=str(error))
            if self._outbox.aborts_again_and_again:
                self.readiness.waits("transactions", f"transactions are aborted: {error}")
        except Refused as error:
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

    def _postpone(self, refused: Refused) -> None:
        """Somebody changed the topic; it takes its dead letters again once that is undone."""
        reason = f"{refused}: a dead letter waits until its topic takes it; see its configuration"
        if not self.readiness.is_waiting_for("dead letters"):
            self._log.error("a dead letter is refused", reason=reason)
        self.readiness.waits("dead letters", reason)
        self._outbox.postpone(refused.unit)

    def _set_aside(self, unit: Unit, reason: str) -> None:
        """A unit whose output is refused every time becomes the dead letter of its record."""
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

    # -- small things ------------------------------------------------------------------------

    def _measure(self) -> None:
        service = self._stage.service
        for topic in self._stage.topics:
            metrics.IN_FLIGHT.labels(service, topic).set(self.inputs.in_flight(topic))
        metrics.PAUSED.labels(service).set(sum(item.paused for item in self.inputs))
        metrics.ASSIGNED.labels(service).set(len(self._owned) - len(self._openings))

    def _kafka_partition(self, item: Input) -> TopicPartition:
        return TopicPartition(self._prefix + item.topic, item.partition)

    def _on_consumer_error(self, error: KafkaError) -> None:
        """A fenced consumer never reads again. A fenced producer raises at its next call."""
        if error.code() == KafkaError._FATAL or error.fatal():
            self._fenced = error.str()
        self._on_error(error)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN and not self._stopping:
            self._wait_for_the_broker(error.str())
            return
        self._log.warning("kafka", code=error.name(), error=error.str())
