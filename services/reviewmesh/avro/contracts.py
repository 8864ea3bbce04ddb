"""The codecs of this mesh's topics, with its prefix and registry."""

from __future__ import annotations

from reviewmesh.avro.codec import Codec, load_schema
from reviewmesh.avro.registry import registry_of
from reviewmesh.avro.topics import TopicContract, load_topics, room_of
from reviewmesh.settings import Settings


class Contracts:
    """One registry client and one codec per topic; topics are named without the prefix."""

    def __init__(self, settings: Settings) -> None:
        self._registry = registry_of(settings.registry)
        self._prefix = settings.prefix
        file = load_topics()
        self._topics: dict[str, TopicContract] = {topic.name: topic for topic in file.topics}
        self._used: dict[str, TopicContract] = {}

    @property
    def used(self) -> list[TopicContract]:
        """The topics whose codec was requested: those that the service reads or writes."""
        return list(self._used.values())

    def check_schemas(self) -> None:
        """Raises RegistryUnavailable or SubjectMissing for the used topics."""
        for topic in self.used:
            self._registry.id_of(f"{self._prefix}{topic.name}-value", load_schema(topic.schema))

    def codec(self, topic: str) -> Codec:
        used = self._used[topic] = self._topics[topic]
        subject = f"{self._prefix}{topic}-value"
        return Codec(self._registry, subject, used.schema, used.max_message_bytes)

    def max_bytes(self, topic: str) -> int:
        """The largest record, with room for the batch overhead."""
        return room_of(self._topics[topic])

    def partitions(self, topic: str) -> int:
        return self._topics[topic].partitions
