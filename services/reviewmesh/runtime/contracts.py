"""The codecs of this mesh's topics, under its prefix and from its registry."""

from __future__ import annotations

from reviewmesh.runtime.codec import Codec
from reviewmesh.runtime.registry import SchemaRegistry
from reviewmesh.runtime.settings import Settings
from reviewmesh.runtime.topics import Topic, load_topics


class Contracts:
    """One registry client and one codec per topic; topics are named without the prefix."""

    def __init__(self, settings: Settings) -> None:
        registry = settings.registry
        self._registry = SchemaRegistry(registry.url, registry.username, registry.password)
        self._prefix = settings.prefix
        file = load_topics()
        self._topics: dict[str, Topic] = {topic.name: topic for topic in file.topics}

    def codec(self, topic: str) -> Codec:
        return Codec(self._registry, f"{self._prefix}{topic}-value", self._topics[topic].schema)

    def max_bytes(self, topic: str) -> int:
        """What a record's value may measure, with room for key, headers and batch."""
        return self._topics[topic].max_message_bytes * 15 // 16

    def partitions(self, topic: str) -> int:
        return self._topics[topic].partitions
