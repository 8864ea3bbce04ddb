"""Requests log ends and committed offsets from the broker, in a few batches.

Through consumers, which recover when brokers restart. librdkafka's admin client does not: its
ListOffsets stays fenced by an old leader epoch, and a request to a group's coordinator that timed
out can end the process when the broker comes back (decision 6).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from reviewmesh.kafka import clients as kafka
from reviewmesh.kafka.offsets import LogBounds, log_bounds
from reviewmesh.kafka.partitions import BrokerPartition
from reviewmesh.kafka.topicids import ExistingTopic, TopicFinder, is_another
from reviewmesh.loop.ledger import restore
from reviewmesh.settings import Settings
from reviewmesh_kit.settings import variable

CALL_TIMEOUT_S = 2.0
ASK_AGAIN_S = 0.1
RENEW_EVERY_S = 20.0
CALLS_AT_ONCE = 8
# A little over one batch: the broker gives a whole batch even where it is larger than this.
FETCH_BYTES = 16 * 1024

# Transient errors of a group's coordinator, as right after its broker's start.
MOVING = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
)


@dataclass(frozen=True, slots=True)
class Committed:
    """A group's committed offset and metadata of a partition."""

    offset: int
    metadata: str

    def progress(self) -> GroupProgress:
        """Metadata that the mesh did not write is ignored, as by the services."""
        restored = restore(self.offset, self.metadata)
        return GroupProgress(self.offset, restored.finished, restored.notes.topic_id)


@dataclass(frozen=True, slots=True)
class GroupProgress:
    """What a group has finished of one partition."""

    committed: int
    finished: frozenset[int] = frozenset()
    """Offsets beyond `committed` that are finished too."""
    topic_id: int = 0
    """Kafka's id of the topic of these offsets, shortened; 0 where it is unknown."""

    def covers(self, offset: int) -> bool:
        return offset < self.committed or offset in self.finished


@dataclass(frozen=True, slots=True)
class Ends(LogBounds):
    """How far a partition reaches, and of which topic it is. Kafka's own lag counts up to `end`."""

    topic_id: int

    def reached(self, progress: GroupProgress) -> GroupProgress:
        """The part of it that is valid for this log. A commit with another topic id, or beyond the
        end,
        is of a deleted topic: the new one is read from the beginning."""
        if is_another(progress.topic_id, self.topic_id) or progress.committed > self.end:
            return GroupProgress(0)
        return progress


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """Why a request failed; `gone`: the topic does not exist."""

    reason: str
    gone: bool = False


class Broker:
    """Consumers that join no group, for requests and for readers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stable: Any = None
        self._open: Any = None
        self._of_group: dict[str, Any] = {}
        self._renewed_at = time.monotonic()
        self._replaced = settings.kafka.certificates.changes()
        self._threads = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="offsets")
        self._finder = TopicFinder(settings.kafka)
        # Kafka's ids of the topics that these clients have asked about.
        self._topic_ids: dict[str, int] = {}

    def close(self) -> None:
        self._threads.shutdown()
        for consumer in self._of_group.values():
            consumer.close()
        self._close_readers()

    @property
    def stable(self) -> Any:
        """Reads committed records. May be replaced after each measurement."""
        if self._stable is None:
            self._stable = self._consumer("read_committed")
        return self._stable

    @property
    def open(self) -> Any:
        """Reads open transactions too. May be replaced after each measurement."""
        if self._open is None:
            self._open = self._consumer("read_uncommitted")
        return self._open

    def _close_readers(self) -> None:
        for consumer in (self._stable, self._open):
            if consumer is not None:
                consumer.close()
        self._stable = self._open = None

    def _consumer(self, isolation: str, group: str | None = None) -> Any:
        options = kafka.reader_options(self._settings) | {
            "isolation.level": isolation,
            "fetch.message.max.bytes": str(FETCH_BYTES),
            "queued.min.messages": "1",
        }
        if group is not None:
            options["group.id"] = group
        return kafka.make_consumer(options, lambda error: None)

    def renew(self) -> None:
        """Drop clients that get no answer: one may have lost every address of a broker that is back
        (librdkafka issue 5301). At most every RENEW_EVERY_S: the broker may just be away."""
        if time.monotonic() - self._renewed_at > RENEW_EVERY_S:
            self._renewed_at = time.monotonic()
            self._of_group.clear()
            self._stable = self._open = None

    def _renew_if_replaced(self) -> None:
        """Drop clients that were made with a certificate that was replaced."""
        if self._replaced.found():
            self._of_group.clear()
            self._stable = self._open = None

    def away(self, failure: RequestFailure) -> str:
        """The message when nothing is answered."""
        return (
            f"the broker at {self._settings.kafka.bootstrap_servers} does not answer "
            f"({failure.reason}); check {variable('kafka', 'bootstrap_servers')} and that it is up"
        )

    # -- commits -----------------------------------------------------------------------------

    def committed(
        self, groups: Mapping[str, Collection[BrokerPartition]]
    ) -> dict[str, dict[BrokerPartition, Committed] | RequestFailure]:
        """The committed offsets of each group on these partitions, without open transactions."""
        self._renew_if_replaced()
        for group in groups.keys() - self._of_group.keys():
            # Under read_committed the answer would wait for the end of an open transaction.
            self._of_group[group] = self._consumer("read_uncommitted", group)
        answers = self._threads.map(self._committed, groups.keys(), groups.values())
        return dict(zip(groups, answers, strict=True))

    def _committed(
        self, group: str, partitions: Collection[BrokerPartition]
    ) -> dict[BrokerPartition, Committed] | RequestFailure:
        try:
            answer = _asked_of_coordinator(self._of_group[group], partitions)
        except KafkaException as error:
            return RequestFailure(error.args[0].str())
        for at in answer:
            if at.error is not None:
                return RequestFailure(f"{at.topic}/{at.partition}: {at.error.str()}")
        return {
            BrokerPartition(at.topic, at.partition): Committed(at.offset, at.metadata or "")
            for at in answer
            if at.offset >= 0
        }

    # -- ends --------------------------------------------------------------------------------

    def ends(
        self, partitions: Collection[BrokerPartition]
    ) -> dict[BrokerPartition, Ends | RequestFailure]:
        """Four requests, three of them to each leader, whatever the number of partitions."""
        names = {topic for topic, _ in partitions}
        topics = self._existing(names)
        if isinstance(topics, RequestFailure):
            return dict.fromkeys(partitions, topics)
        found = self._ends_of(partitions, topics)
        if any(isinstance(ends, RequestFailure) and not ends.gone for ends in found.values()):
            # A topic that is deleted meanwhile fails the request for all: repeat it without.
            left = self._existing(names)
            if not isinstance(left, RequestFailure) and left.keys() < topics.keys():
                found = self._ends_of(partitions, left)
        return found

    def _ends_of(
        self, partitions: Collection[BrokerPartition], topics: Mapping[str, ExistingTopic]
    ) -> dict[BrokerPartition, Ends | RequestFailure]:
        gone = RequestFailure("there is no such topic; see `reviewmesh topics apply`", gone=True)
        found: dict[BrokerPartition, Ends | RequestFailure] = dict.fromkeys(partitions, gone)
        there = [at for at in partitions if at.topic in topics]
        if not there:
            return found
        try:
            answers = log_bounds(self.stable, self.open, there, CALL_TIMEOUT_S)
        except KafkaException as error:
            return found | dict.fromkeys(there, RequestFailure(error.args[0].str()))
        for at, bounds in answers.items():
            if isinstance(bounds, KafkaError):
                found[at] = RequestFailure(bounds.str())
            else:
                found[at] = Ends(bounds.start, bounds.stable, bounds.end, topics[at.topic].id)
        return found

    def partitions(self, topic: str) -> int:
        """The topic's number of partitions, which may grow; 0 where it is unknown."""
        topics = self._existing({topic})
        return topics[topic].partitions if not isinstance(topics, RequestFailure) and topics else 0

    def _existing(self, names: set[str]) -> Mapping[str, ExistingTopic] | RequestFailure:
        """Those of the topics that exist."""
        try:
            found = self._finder.find(names, CALL_TIMEOUT_S)
        except KafkaException as error:
            return RequestFailure(error.args[0].str())
        for name in names:
            now = found[name].id if name in found else 0
            known = self._topic_ids.setdefault(name, now)
            if known != now:
                # A client keeps the leader epochs of the deleted topic and is fenced.
                self._close_readers()
                self._topic_ids[name] = now
        return found


def _asked_of_coordinator(consumer: Any, partitions: Collection[BrokerPartition]) -> list[Any]:
    """Retries while the coordinator moves or loads, up to CALL_TIMEOUT_S in all."""
    wanted = [TopicPartition(*at) for at in partitions]
    deadline = time.monotonic() + CALL_TIMEOUT_S
    while True:
        try:
            answer: list[Any] = consumer.committed(wanted, timeout=CALL_TIMEOUT_S)
            return answer
        except KafkaException as error:
            if error.args[0].code() not in MOVING or time.monotonic() > deadline:
                raise
            time.sleep(ASK_AGAIN_S)
