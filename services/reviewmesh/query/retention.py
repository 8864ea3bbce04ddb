"""How long the broker keeps the records of a topic, from its current configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]

from reviewmesh.query.connection import Connection
from reviewmesh.query.errors import CannotReach

CALL_TIMEOUT_S = 10.0
CHECK_INTERVAL = "log.retention.check.interval.ms"
FOR_EVER = -1


@dataclass(frozen=True)
class Kept:
    """The configuration that decides when a record of a topic is deleted; times in milliseconds."""

    cleanup_policy: str
    timestamp_type: str
    retention_ms: int
    segment_ms: int
    # How often brokers look for segments to delete, and how long they keep the files after that.
    check_ms: int
    delay_ms: int

    @property
    def no_time(self) -> str:
        """Why no time can be given; empty when one can."""
        if "compact" in self.cleanup_policy:
            return "when its key is replaced or erased and the topic is compacted"
        if self.retention_ms == FOR_EVER:
            return f"never, because retention.ms is {FOR_EVER}"
        if self.timestamp_type != "LogAppendTime":
            return f"unknown, because message.timestamp.type is {self.timestamp_type}"
        return ""

    def deleted_by(self, timestamp_ms: int) -> int | None:
        """When a record of that time is deleted at the latest, in milliseconds since 1970.

        Kafka deletes a segment once the retention of its last record is over. A segment takes
        records for `segment.ms` after its first one, so that its last record is at most so much
        later than any other. None where `no_time` says why.
        """
        if self.no_time:
            return None
        return timestamp_ms + self.segment_ms + self.retention_ms + self.check_ms + self.delay_ms


def kept_by_topic(connection: Connection, topics: list[str]) -> dict[str, Kept]:
    """By topic, without the prefix. Raises CannotReach when the broker gives no configuration."""
    brokers = [
        ConfigResource(ResourceType.BROKER, str(broker))
        for broker in connection.admin.list_topics(timeout=CALL_TIMEOUT_S).brokers
    ]
    check_ms = max(
        int(options[CHECK_INTERVAL]) for options in _described(connection, brokers).values()
    )
    resources = [ConfigResource(ResourceType.TOPIC, connection.topic(topic)) for topic in topics]
    described = _described(connection, resources)
    return {topic: _kept(described[connection.topic(topic)], check_ms) for topic in topics}


def _described(connection: Connection, resources: list[Any]) -> dict[str, dict[str, str]]:
    """The options of each resource, by its name."""
    found = {}
    # The client accepts one broker per request.
    for resource in resources:
        [future] = connection.admin.describe_configs(
            [resource], request_timeout=CALL_TIMEOUT_S
        ).values()
        try:
            options = future.result(CALL_TIMEOUT_S)
        except KafkaException as error:
            raise CannotReach(
                f"the configuration of {resource.name}: {error.args[0].str()}; the right to "
                "describe the configuration of topics and of the cluster is needed"
            ) from error
        found[resource.name] = {name: option.value for name, option in options.items()}
    return found


def _kept(options: Mapping[str, str], check_ms: int) -> Kept:
    return Kept(
        cleanup_policy=options["cleanup.policy"],
        timestamp_type=options["message.timestamp.type"],
        retention_ms=int(options["retention.ms"]),
        segment_ms=int(options["segment.ms"]),
        check_ms=check_ms,
        delay_ms=int(options["file.delete.delay.ms"]),
    )
