"""Finds topics that were deleted and created again under a running consumer.

The consumer keeps the leader epochs that it has seen, and those of the new topic begin at 0 again:
after any restart of a broker its fetches would be fenced for ever. So it has to be replaced.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from reviewmesh.kafka.topicids import is_another


class RecreatedTopics:
    """Topics whose id differs from the one that the consumer has read."""

    def __init__(self, topics: Collection[str]) -> None:
        """`topics`: the topics that the consumer reads and that its state is loaded from."""
        self._topics = topics
        # When the consumer was created, in monotonic seconds, and the ids of its topics.
        self._since = time.monotonic()
        self._ids: dict[str, int] = {}
        self.found: set[str] = set()

    def forget(self) -> None:
        """Start again: the consumer was replaced."""
        self._since = time.monotonic()
        self._ids.clear()
        self.found.clear()

    def note(self, topic_ids: Mapping[str, int], looked_at: float) -> None:
        """Take the ids that the broker gave at `looked_at`, in monotonic seconds.

        Ids from before this consumer may belong to the deleted topic.
        """
        if looked_at <= self._since:
            return
        for topic in self._topics:
            now = topic_ids.get(topic, 0)
            if is_another(self._ids.get(topic, 0), now):
                self.found.add(topic)
            elif now:
                self._ids[topic] = now
