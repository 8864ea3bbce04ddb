"""Asks the broker, in a few batches, where partitions end and what groups have committed.

Through consumers, which find their way again when brokers come and go. librdkafka's admin client
does not: after a broker's restart its ListOffsets stays fenced by an old leader epoch, and its
requests to a group's coordinator that timed out can end the process when the broker comes back.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, KafkaError, KafkaException, TopicPartition

from reviewmesh.runtime import kafka
from reviewmesh.runtime.ledger import decode_finished
from reviewmesh.runtime.settings import Settings, variable

CALL_TIMEOUT_S = 2.0
ASK_AGAIN_S = 0.1
CALLS_AT_ONCE = 8
# A little over one batch: the broker gives a whole batch even where it is larger than this.
FETCH_BYTES = 16 * 1024

# What a group's coordinator answers for a moment, such as right after its broker's start.
MOVING = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
)

TOPICS_HOLD_S = 10.0

Place = tuple[str, int]
"""A topic as it is named on the broker, and a partition."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What a group committed for a partition, as it lies on the broker."""

    offset: int
    metadata: str

    def progress(self) -> Progress:
        """Metadata that the mesh did not write counts as none, as it does for the services."""
        return Progress(self.offset, decode_finished(self.offset, self.metadata))


@dataclass(frozen=True, slots=True)
class Progress:
    """What a group has finished of one partition."""

    committed: int
    finished: frozenset[int] = frozenset()
    """Offsets beyond `committed` that are finished too."""

    def covers(self, offset: int) -> bool:
        return offset < self.committed or offset in self.finished


@dataclass(frozen=True, slots=True)
class Ends:
    """How far a partition reaches."""

    start: int
    stable: int
    """The last stable offset: what follows is in open transactions, or behind them."""
    end: int
    """The high watermark, open transactions included: Kafka's own lag counts up to here."""

    def reached(self, progress: Progress) -> Progress:
        """What of it holds here. A commit beyond the end is of a topic that was deleted: its
        successor is read from the beginning."""
        return progress if progress.committed <= self.end else Progress(0)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something could not be asked; `gone` when there is nothing to ask about."""

    reason: str
    gone: bool = False


class Broker:
    """Consumers that are in no group and have nothing assigned but what a reader assigns."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.stable: Any = self._consumer("read_committed")
        self.open: Any = self._consumer("read_uncommitted")
        self._of_group: dict[str, Any] = {}
        self._threads = ThreadPoolExecutor(CALLS_AT_ONCE, thread_name_prefix="offsets")
        # The partitions of topics that exist, as far as known; None after a failure: look again.
        self._topics: Mapping[str, int] | None = None
        self._topics_at = 0.0

    def close(self) -> None:
        self._threads.shutdown()
        for consumer in (self.stable, self.open, *self._of_group.values()):
            consumer.close()

    def _consumer(self, isolation: str, group: str | None = None) -> Any:
        options = kafka.reader_options(self._settings) | {
            "isolation.level": isolation,
            "fetch.message.max.bytes": str(FETCH_BYTES),
            "queued.min.messages": "1",
        }
        if group is not None:
            options["group.id"] = group
        return kafka.make_consumer(options, lambda error: None)

    def away(self, failure: Failure) -> str:
        """What to say when nothing is answered."""
        return (
            f"the broker at {self._settings.kafka.bootstrap_servers} does not answer "
            f"({failure.reason}); check {variable('kafka', 'bootstrap_servers')} and that it is up"
        )

    # -- commits -----------------------------------------------------------------------------

    def committed(
        self, groups: Mapping[str, Collection[Place]]
    ) -> dict[str, dict[Place, Committed] | Failure]:
        """What each group has committed of these partitions.

        What lies in an open transaction is not committed yet.
        """
        for group in groups.keys() - self._of_group.keys():
            # Under read_committed the answer would wait for the end of an open transaction.
            self._of_group[group] = self._consumer("read_uncommitted", group)
        answers = self._threads.map(self._committed, groups.keys(), groups.values())
        return dict(zip(groups, answers, strict=True))

    def _committed(self, group: str, places: Collection[Place]) -> dict[Place, Committed] | Failure:
        try:
            answer = _asked_of_coordinator(self._of_group[group], places)
        except KafkaException as error:
            return Failure(error.args[0].str())
        for at in answer:
            if at.error is not None:
                return Failure(f"{at.topic}/{at.partition}: {at.error.str()}")
        return {
            (at.topic, at.partition): Committed(at.offset, at.metadata or "")
            for at in answer
            if at.offset >= 0
        }

    # -- ends --------------------------------------------------------------------------------

    def ends(self, places: Collection[Place]) -> dict[Place, Ends | Failure]:
        """Three requests to each leader, whatever the number of partitions."""
        topics = self._existing({topic for topic, _ in places})
        if isinstance(topics, Failure):
            return dict.fromkeys(places, topics)
        there = [place for place in places if place[0] in topics]
        found: dict[Place, Ends | Failure] = dict.fromkeys(
            places, Failure("there is no such topic; see `reviewmesh topics apply`", gone=True)
        )
        if there:
            found |= self._ends(there)
        if any(isinstance(ends, Failure) for ends in found.values()):
            self._topics = None
        return found

    def _ends(self, places: list[Place]) -> dict[Place, Ends | Failure]:
        asked = ((self.open, OFFSET_BEGINNING), (self.stable, OFFSET_END), (self.open, OFFSET_END))
        try:
            answers = [_offsets(consumer, places, at) for consumer, at in asked]
        except KafkaException as error:
            return dict.fromkeys(places, Failure(error.args[0].str()))
        return {place: _reach([answer[place] for answer in answers]) for place in places}

    def partitions(self, topic: str) -> int:
        """How many the topic has now; 0 where that is not known. Topics may grow."""
        topics = self._existing({topic})
        return 0 if isinstance(topics, Failure) else topics.get(topic, 0)

    def _existing(self, wanted: set[str]) -> Mapping[str, int] | Failure:
        """The topics that exist with their partitions, asked for now and again."""
        known = self._topics
        fresh = time.monotonic() - self._topics_at < TOPICS_HOLD_S
        if known is not None and fresh and wanted <= known.keys():
            return known
        try:
            found = self.open.list_topics(timeout=CALL_TIMEOUT_S).topics
        except KafkaException as error:
            return Failure(error.args[0].str())
        self._topics_at = time.monotonic()
        self._topics = {name: len(topic.partitions) for name, topic in found.items()}
        return self._topics


def _asked_of_coordinator(consumer: Any, places: Collection[Place]) -> list[Any]:
    """Asks again while the coordinator moves or reads its log, up to CALL_TIMEOUT_S in all."""
    wanted = [TopicPartition(*place) for place in places]
    deadline = time.monotonic() + CALL_TIMEOUT_S
    while True:
        try:
            answer: list[Any] = consumer.committed(wanted, timeout=CALL_TIMEOUT_S)
            return answer
        except KafkaException as error:
            if error.args[0].code() not in MOVING or time.monotonic() > deadline:
                raise
            time.sleep(ASK_AGAIN_S)


def _offsets(consumer: Any, places: Iterable[Place], at: int) -> dict[Place, Any]:
    wanted = [TopicPartition(*place, at) for place in places]
    answer = consumer.offsets_for_times(wanted, timeout=CALL_TIMEOUT_S)
    return {(found.topic, found.partition): found for found in answer}


def _reach(answers: list[Any]) -> Ends | Failure:
    for answer in answers:
        if answer.error is not None:
            return Failure(answer.error.str())
    start, stable, end = (answer.offset for answer in answers)
    return Ends(start, stable, max(stable, end))
