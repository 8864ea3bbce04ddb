"""The topics of insights: two of the contract, and three that the service creates for itself."""

from __future__ import annotations

from typing import NamedTuple

from confluent_kafka.admin import AdminClient

from reviewmesh.clock import milliseconds
from reviewmesh.kafka.replication import create_topics
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import ENRICHED, INSIGHTS, INSIGHTS_OWN

CALL_TIMEOUT_S = 10.0
# Buckets stay known to the second step a while longer than to the first, which sends to it.
SECOND_STEP_MS = 3_600_000


class TopicNames(NamedTuple):
    """The topics, of these settings."""

    enriched: str
    insights: str
    partials: str
    contributions: str
    totals: str

    @classmethod
    def of(cls, settings: Settings) -> TopicNames:
        return cls(*(settings.prefix + name for name in (ENRICHED, INSIGHTS, *INSIGHTS_OWN)))


class Topics:
    """Creates the missing ones at the start, once those of the contract exist."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._names = TopicNames.of(settings)
        self.partitions = 0
        """Of each topic; 0 until `problem` was asked and found none."""

    def problem(self, admin: AdminClient) -> str:
        """Create what is missing; returns what prevents the start, or nothing.

        All topics need one number of partitions: a review's contribution has the partition number
        of its enriched record, and a total that of its insight. Raises KafkaException.
        """
        found = self._found(admin)
        missing = [name for name in self._own() if name not in found]
        if missing:
            self._create(admin, missing, found[self._names.enriched])
            found = self._found(admin)
        if absent := [name for name in self._names if name not in found]:
            return f"topics that were created: {', '.join(absent)}"
        if len(set(found.values())) > 1:
            return f"topics with equal numbers of partitions, found {found}"
        self.partitions = found[self._names.enriched]
        return ""

    def _found(self, admin: AdminClient) -> dict[str, int]:
        topics = admin.list_topics(timeout=CALL_TIMEOUT_S).topics
        return {name: len(topics[name].partitions) for name in self._names if name in topics}

    def _create(self, admin: AdminClient, names: list[str], partitions: int) -> None:
        create_topics(admin, dict.fromkeys(names, partitions), self._own(), CALL_TIMEOUT_S)

    def _own(self) -> dict[str, dict[str, str]]:
        """Those that this service creates, with their options."""
        kept_ms = milliseconds(self._settings.insights.retention_s) + 2 * SECOND_STEP_MS
        compacted = {"retention.ms": str(kept_ms), "cleanup.policy": "compact,delete"}
        return {
            self._names.partials: {**compacted, "cleanup.policy": "delete"},
            self._names.contributions: compacted,
            self._names.totals: compacted,
        }
