"""Kafka's topic ids. A topic that was deleted and created again has another id."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection

from reviewmesh.kafka.clients import make_admin
from reviewmesh.settings import KafkaSettings

SHORT = (1 << 64) - 1
UNKNOWN = 0


@dataclass(frozen=True, slots=True)
class ExistingTopic:
    """An existing topic."""

    id: int
    """The first half of Kafka's id: short enough for a commit's metadata."""
    partitions: int


class TopicFinder:
    """Asks the broker which topics it has. Used by one thread at a time."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._replaced = settings.certificates.changes()
        self._admin = make_admin(settings)

    def find(self, names: Collection[str], timeout_s: float) -> dict[str, ExistingTopic]:
        """Those of the topics that exist now. Raises KafkaException."""
        if not names:
            return {}
        if self._replaced.found():
            self._admin = make_admin(self._settings)
        try:
            return _find(self._admin, names, timeout_s)
        except KafkaException:
            # A client may lose every address of a broker that is back (librdkafka issue 5301).
            self._admin = make_admin(self._settings)
            raise


def _find(admin: Any, names: Collection[str], timeout_s: float) -> dict[str, ExistingTopic]:
    asked = admin.describe_topics(TopicCollection(list(names)), request_timeout=timeout_s)
    found = {}
    for name, answer in asked.items():
        try:
            topic = answer.result(timeout_s + 1)
        except TimeoutError as error:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from error
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue
            raise
        found[name] = ExistingTopic(
            topic.topic_id.get_most_significant_bits() & SHORT, len(topic.partitions)
        )
    return found


def is_another(known: int, now: int) -> bool:
    """Whether the topic was created again. The id is unknown in commits of other tools."""
    return UNKNOWN not in (known, now) and known != now
