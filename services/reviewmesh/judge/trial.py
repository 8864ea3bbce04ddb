"""Reads the answers in one state of a running rollout, and adds them to the comparison.

Nothing is stored: a restarted judge reads the answers again, from the offsets in the record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from queue import Empty, Full, Queue
from typing import Any

import structlog

from reviewmesh.avro.codec import Codec
from reviewmesh.avro.followed import followed
from reviewmesh.enrich.pool import PoolConfig
from reviewmesh.enrich.rollouts import SHADOW
from reviewmesh.judge.answers import JudgedAnswer, judged_answer
from reviewmesh.judge.comparison import RolloutComparison
from reviewmesh.judge.labelled import LabelledTexts
from reviewmesh.judge.rollout import RolloutRecord
from reviewmesh.kafka.followed import FollowedTopic
from reviewmesh.kafka.record import Record, Unavailable
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import RESULT_OF, SHADOW_OF

MAX_QUEUED = 5_000
QUEUE_WAIT_S = 10.0
MAX_PER_POLL = 5_000


def topics_of(task: str, state: str) -> tuple[str, ...]:
    """The topics with the answers in a state."""
    shadow = (SHADOW_OF[task],) if state == SHADOW else ()
    return (RESULT_OF[task], *shadow)


class Trial:
    """Used by the judge's thread; each topic is followed in a thread of its own."""

    def __init__(
        self,
        record: RolloutRecord,
        settings: Settings,
        codec_of: Callable[[str], Codec],
        labelled: Sequence[Mapping[str, Any]],
        workers: Mapping[str, PoolConfig],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        bounds = record.parsed_bounds()
        self.rollout, self.state = record.rollout, record.state
        self._task = record.task
        self.shown = RolloutComparison(record.rollout, bounds, list(record.slices), record.model)
        self._queue: Queue[tuple[str, JudgedAnswer]] = Queue(MAX_QUEUED)
        self._topics: list[FollowedTopic] = []
        for topic in topics_of(record.task, record.state):
            since = {
                int(number): at
                for name, at in record.since.items()
                for of, _, number in [name.partition("/")]
                if of == topic
            }
            self._topics.append(
                followed(settings, topic, len(since), codec_of(topic), self._take, log, since=since)
            )
        self._labelled: LabelledTexts | None = None
        if labelled and record.state == SHADOW:
            self._labelled = LabelledTexts(record.task, record.rollout, labelled, workers)
        for followed_topic in self._topics:
            followed_topic.start()

    @property
    def labelled_remaining(self) -> int:
        return 0 if self._labelled is None else self._labelled.remaining

    @property
    def is_current(self) -> bool:
        """Whether all answers were read that existed when reading began."""
        return all(topic.is_current for topic in self._topics) and self._queue.empty()

    def poll(self) -> None:
        """Add the answers that have arrived; never blocks."""
        for _ in range(MAX_PER_POLL):
            try:
                topic, answer = self._queue.get_nowait()
            except Empty:
                break
            if topic == SHADOW_OF[self._task]:
                self.shown.add_copied_answer(answer)
            elif self.state == SHADOW:
                self.shown.add_own_answer(answer)
            else:
                self.shown.add_answer(answer)
        for both in () if self._labelled is None else self._labelled.poll():
            self.shown.add_labelled_text(both.language, both.own_right, both.candidate_right)

    def close(self) -> None:
        for topic in self._topics:
            topic.stop()
        if self._labelled is not None:
            self._labelled.close()

    def _take(self, record: Record, content: dict[str, Any] | None) -> None:
        if content is None:
            return
        try:
            self._queue.put(
                (record.topic, judged_answer(self._task, content)), timeout=QUEUE_WAIT_S
            )
        except Full:
            raise Unavailable("the judge does not keep up") from None
