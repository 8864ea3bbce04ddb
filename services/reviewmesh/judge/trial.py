"""A running rollout in one of its states: reads the answers and adds them to the comparison.

Its state is read from the topics, from the offsets in the record: a restarted judge reads them
again.
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
from reviewmesh.judge.answers import JudgedAnswer, seen
from reviewmesh.judge.comparison import RolloutComparison
from reviewmesh.judge.labelled import LabelledTexts
from reviewmesh.judge.rollout import RolloutRecord
from reviewmesh.kafka.followed import FollowedTopic
from reviewmesh.kafka.record import Record, Unavailable
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import RESULT_OF, SHADOW_OF

READ_AHEAD = 5_000
READ_AHEAD_WAIT_S = 10.0
TAKEN_AT_ONCE = 5_000


def topics_of(task: str, state: str) -> tuple[str, ...]:
    """The topics that are read in a state."""
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
        bounds = record.bounds_in_force()
        self.rollout, self.state = record.rollout, record.state
        self._task = record.task
        self.shown = RolloutComparison(record.rollout, bounds, list(record.slices), record.model)
        self._queue: Queue[tuple[str, JudgedAnswer]] = Queue(READ_AHEAD)
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
    def labelled_left(self) -> int:
        return 0 if self._labelled is None else self._labelled.left

    @property
    def is_current(self) -> bool:
        """Whether all existing answers were read: nothing from before a restart is missing."""
        return all(topic.is_current for topic in self._topics) and self._queue.empty()

    def poll(self) -> None:
        """Add the answers that have arrived; never blocks."""
        for _ in range(TAKEN_AT_ONCE):
            try:
                topic, answer = self._queue.get_nowait()
            except Empty:
                break
            if topic == SHADOW_OF[self._task]:
                self.shown.copied_answer(answer)
            elif self.state == SHADOW:
                self.shown.own_answer(answer)
            else:
                self.shown.answer(answer)
        for both in () if self._labelled is None else self._labelled.poll():
            self.shown.labelled(both.language, both.own_right, both.candidate_right)

    def close(self) -> None:
        for topic in self._topics:
            topic.stop()
        if self._labelled is not None:
            self._labelled.close()

    def _take(self, record: Record, content: dict[str, Any] | None) -> None:
        if content is None:
            return
        try:
            self._queue.put((record.topic, seen(self._task, content)), timeout=READ_AHEAD_WAIT_S)
        except Full:
            raise Unavailable("the judge does not keep up") from None
