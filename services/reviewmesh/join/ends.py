"""Asks the broker where partitions end now, without blocking the polling thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import OFFSET_END, KafkaException

from reviewmesh.kafka.clients import make_consumer, reader_options
from reviewmesh.kafka.offsets import offsets_at
from reviewmesh.kafka.partitions import BrokerPartition
from reviewmesh.settings import Settings

REQUEST_TIMEOUT_S = 5.0
REQUESTS_AT_ONCE = 4


@dataclass(slots=True)
class OpenQuestions:
    """What is asked about one partition number; topics are named without the prefix."""

    # When each topic was asked for: those of the next request, and those of the one under way.
    waiting: dict[str, float] = field(default_factory=dict)
    asked: dict[str, float] = field(default_factory=dict)
    request: Future[dict[str, int]] | None = None
    # Topic -> (when it was asked for, its end).
    known: dict[str, tuple[float, int]] = field(default_factory=dict)


class EndOffsets:
    """One request at a time for the topics of a partition number.

    The end is the high watermark, open transactions included: a result that is about to be
    committed counts as written.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._options = reader_options(settings) | {"isolation.level": "read_uncommitted"}
        self._prefix = settings.prefix
        self._clock = clock
        # A partition without a leader fails its request after the timeout, and no other.
        self._threads = ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="end-offsets")
        self._consumer: Any = None
        self._replaced = settings.kafka.certificates.changes()
        self._questions: dict[int, OpenQuestions] = {}

    def ask(self, topic: str, partition: int) -> None:
        questions = self._questions.setdefault(partition, OpenQuestions())
        if not any(
            topic in topics for topics in (questions.waiting, questions.asked, questions.known)
        ):
            questions.waiting[topic] = self._clock()
        self._advance(partition, questions)

    def reached(
        self, partition: int, position: Callable[[str, int], int]
    ) -> list[tuple[str, float]]:
        """(topic, as of) of ends that `position` has reached; a failed question is forgotten."""
        questions = self._questions.get(partition)
        if questions is None:
            return []
        self._advance(partition, questions)
        reached = []
        for topic, (asked_at, end) in list(questions.known.items()):
            if position(topic, partition) >= end:
                del questions.known[topic]
                reached.append((topic, asked_at))
        return reached

    def forget(self, partition: int) -> None:
        self._questions.pop(partition, None)

    def _advance(self, partition: int, questions: OpenQuestions) -> None:
        """Take the answer of a request that is done, and make the next one."""
        if questions.request is not None:
            if not questions.request.done():
                return
            if questions.request.exception() is None:
                ends = questions.request.result()
                for topic, asked_at in questions.asked.items():
                    questions.known[topic] = (asked_at, ends[topic])
            questions.asked, questions.request = {}, None
        if questions.waiting:
            questions.asked, questions.waiting = questions.waiting, {}
            questions.request = self._threads.submit(self._ends, partition, list(questions.asked))

    def _ends(self, partition: int, topics: list[str]) -> dict[str, int]:
        consumer = self._consumer
        if consumer is None or self._replaced.found():
            consumer = self._consumer = make_consumer(self._options, lambda error: None)
        wanted = {topic: BrokerPartition(self._prefix + topic, partition) for topic in topics}
        try:
            ends = offsets_at(consumer, wanted.values(), OFFSET_END, REQUEST_TIMEOUT_S)
        except KafkaException:
            # It may have lost every address of the broker, or hold the epoch of an old leader.
            # Another thread may still use it, so it is dropped, not closed.
            self._consumer = None
            raise
        return {topic: ends[at] for topic, at in wanted.items()}
