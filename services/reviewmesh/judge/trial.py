"""Reads the answers in one state of a running rollout, and adds them to the comparison.

Nothing is stored: a restarted judge reads the answers again, from the offsets in the record. It
takes those of all topics in the order of their times, as they came the first time: one topic may
hold far fewer, and what is read far ahead of its pair would be forgotten.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
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
from reviewmesh.kafka.record import Record
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import RESULT_OF, SHADOW_OF

MAX_QUEUED = 5_000
QUEUE_WAIT_S = 0.5
MAX_PER_POLL = 5_000

Timed = tuple[int, JudgedAnswer]
"""With the time of its record, in milliseconds since 1970."""


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
        self._closing = threading.Event()
        self._topics: list[_Read] = []
        for topic in topics_of(record.task, record.state):
            since = {
                int(number): at
                for name, at in record.since.items()
                for of, _, number in [name.partition("/")]
                if of == topic
            }
            queue: Queue[Timed] = Queue(MAX_QUEUED)
            take = partial(self._take, queue)
            read = followed(settings, topic, len(since), codec_of(topic), take, log, since=since)
            self._topics.append(_Read(topic, read, queue))
        self._labelled: LabelledTexts | None = None
        if labelled and record.state == SHADOW:
            self._labelled = LabelledTexts(record.task, record.rollout, labelled, workers)
        for topic_read in self._topics:
            topic_read.followed.start()

    @property
    def labelled_remaining(self) -> int:
        return 0 if self._labelled is None else self._labelled.remaining

    @property
    def is_current(self) -> bool:
        """Whether all answers were read that existed when reading began."""
        return all(topic.is_read for topic in self._topics)

    def poll(self) -> None:
        """Add the answers that have arrived; never blocks."""
        for _ in range(MAX_PER_POLL):
            oldest = self._oldest()
            if oldest is None:
                break
            _, answer = oldest.take()
            if oldest.topic == SHADOW_OF[self._task]:
                self.shown.add_copied_answer(answer)
            elif self.state == SHADOW:
                self.shown.add_own_answer(answer)
            else:
                self.shown.add_answer(answer)
        for both in () if self._labelled is None else self._labelled.poll():
            self.shown.add_labelled_text(both.language, both.own_right, both.candidate_right)

    def close(self) -> None:
        self._closing.set()
        for topic in self._topics:
            topic.followed.stop()
        if self._labelled is not None:
            self._labelled.close()

    def _oldest(self) -> _Read | None:
        """The topic whose next answer is the oldest; None while an older one may still come."""
        if not all(topic.has_next() or topic.is_read for topic in self._topics):
            return None
        ready = [topic for topic in self._topics if topic.has_next()]
        return min(ready, key=lambda topic: topic.next_ms, default=None)

    def _take(self, queue: Queue[Timed], record: Record, content: dict[str, Any] | None) -> None:
        """Called by the thread that reads the topic, which waits here while it is far ahead.

        What it still reads once the trial is closed is dropped.
        """
        if content is None:
            return
        timed = record.timestamp_ms, judged_answer(self._task, content)
        while not self._closing.is_set():
            try:
                return queue.put(timed, timeout=QUEUE_WAIT_S)
            except Full:
                continue


class _Read:
    """A topic that is read, and its next answer. Used by the judge's thread."""

    def __init__(self, topic: str, followed: FollowedTopic, queue: Queue[Timed]) -> None:
        self.topic = topic
        self.followed = followed
        self._queue = queue
        self._next: Timed | None = None

    @property
    def is_read(self) -> bool:
        """Whether every answer that it holds was taken."""
        # In this order: what it had when it was current is in the queue by then.
        return self.followed.is_current and not self.has_next()

    @property
    def next_ms(self) -> int:
        assert self._next is not None
        return self._next[0]

    def has_next(self) -> bool:
        if self._next is None:
            try:
                self._next = self._queue.get_nowait()
            except Empty:
                return False
        return True

    def take(self) -> Timed:
        assert self._next is not None
        taken, self._next = self._next, None
        return taken
