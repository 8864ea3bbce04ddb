"""Asks the broker where partitions end now, without holding up the polling thread."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec as _OffsetSpec  # type: ignore[attr-defined]

from reviewmesh.kafka.clients import make_admin
from reviewmesh.settings import Settings

REQUEST_TIMEOUT_S = 5.0
LATEST: Any = _OffsetSpec.latest()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Question:
    asked_at: float
    answer: Future[Any]


class EndOffsets:
    """One open question per partition at most.

    The end is the high watermark, open transactions included: a result that is about to be
    committed counts as written.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        self._kafka = settings.kafka
        self._admin = make_admin(settings.kafka)
        self._prefix = settings.prefix
        self._clock = clock
        self._questions: dict[tuple[str, int], Question] = {}
        self._known: dict[tuple[str, int], tuple[float, int]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="metadata")
        self._metadata: Future[Any] | None = None

    def ask(self, topic: str, partition: int) -> None:
        key = (topic, partition)
        if key in self._questions or key in self._known:
            return
        target = TopicPartition(self._prefix + topic, partition)
        asked_at = self._clock()
        answers = self._admin.list_offsets(
            {target: LATEST},
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=REQUEST_TIMEOUT_S,
        )
        self._questions[key] = Question(asked_at, answers[target])

    def reached(
        self, partition: int, position: Callable[[str, int], int]
    ) -> list[tuple[str, float]]:
        """(topic, as of) of ends that `position` has reached; a failed question is forgotten."""
        for key, question in list(self._questions.items()):
            if key[1] == partition and question.answer.done():
                del self._questions[key]
                try:
                    self._known[key] = (question.asked_at, question.answer.result().offset)
                except KafkaException:
                    self._fetch_metadata()
        reached = []
        for (topic, number), (asked_at, end) in list(self._known.items()):
            if number == partition and position(topic, number) >= end:
                del self._known[topic, number]
                reached.append((topic, asked_at))
        return reached

    def _fetch_metadata(self) -> None:
        """After a broker's restart the client would ask by the old leader epoch for ever.

        One that gets no metadata may have lost every address of the broker: it is replaced.
        """
        if self._metadata is not None:
            if not self._metadata.done():
                return
            if self._metadata.exception() is not None:
                self._admin = make_admin(self._kafka)
        self._metadata = self._thread.submit(self._admin.list_topics, timeout=REQUEST_TIMEOUT_S)

    def forget(self, partition: int) -> None:
        for key in [key for key in (*self._questions, *self._known) if key[1] == partition]:
            self._questions.pop(key, None)
            self._known.pop(key, None)
