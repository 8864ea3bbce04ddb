"""Finds topics that were deleted and created again under a running consumer.

The consumer keeps the leader epochs that it has seen, and those of the new topic begin at 0 again:
after any restart of a broker its fetches would be fenced for ever. So it has to be replaced.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from reviewmesh.kafka.topicids import is_another


class RecreatedTopics:
    """The topics with another id than the one that the consumer has read."""

    def __init__(self, topics: Collection[str]) -> None:
        """`topics`: what the consumer reads, and what its state is made of."""
        self._topics = topics
        # Since when there has been this consumer, and the ids that its topics had.
        self._since = time.monotonic()
        self._ids: dict[str, int] = {}
        self.found: set[str] = set()

    def forget(self) -> None:
        """There is a new consumer."""
        self._since = time.monotonic()
        self._ids.clear()
        self.found.clear()

    def note(self, topic_ids: Mapping[str, int], looked_at: float) -> None:
        """Ids that the broker gave at `looked_at` (monotonic seconds).

        Those from before this consumer may be of the topic before.
        """
        if looked_at <= self._since:
            return
        for topic in self._topics:
            now = topic_ids.get(topic, 0)
            if is_another(self._ids.get(topic, 0), now):
                self.found.add(topic)
            elif now:
                self._ids[topic] = now
