"""The topics of the mesh, and bringing a cluster and a registry to what they should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml
from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from reviewmesh.runtime.codec import load_schema
from reviewmesh.runtime.kafka import quiet
from reviewmesh.runtime.registry import IncompatibleSchema, SchemaRegistry

CALL_TIMEOUT_S = 15.0
HOUR_S = 3600


class TopicsError(ValueError):
    """The topics cannot be brought to what the contract says; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic without its prefix."""

    name: str
    schema: str
    partitions: int
    compatibility: str
    cleanup_policy: str
    retention_hours: int
    timestamp_type: str
    max_message_bytes: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    isolation: str

    def config(self) -> dict[str, str]:
        """Kafka's topic options."""
        options = {
            "cleanup.policy": self.cleanup_policy,
            "message.timestamp.type": self.timestamp_type,
            "max.message.bytes": str(self.max_message_bytes),
            "retention.ms": str(self.retention_hours * HOUR_S * 1000),
            # Kafka deletes and compacts closed segments only: how much longer a record may stay.
            "segment.ms": str(6 * HOUR_S * 1000),
        }
        if "compact" in self.cleanup_policy:
            options |= {
                "min.cleanable.dirty.ratio": "0.1",
                "delete.retention.ms": str(24 * HOUR_S * 1000),
            }
        return options


@dataclass(frozen=True, slots=True)
class TopicsFile:
    topics: tuple[Topic, ...]


def room_of(topic: Topic) -> int:
    """What a record of the topic may measure, with room for the batch around it."""
    return topic.max_message_bytes * 15 // 16


def load_topics() -> TopicsFile:
    """Reads topics.yaml of the contracts."""
    text = resources.files("reviewmesh_schemas").joinpath("topics.yaml").read_text("utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return TopicsFile(
        tuple(
            _topic(name, content["partitions"], content["compatibility"], entry)
            for name, entry in content["topics"].items()
        )
    )


def _topic(name: str, partitions: int, compatibility: str, entry: Mapping[str, Any]) -> Topic:
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
    }
    return Topic(name=name, partitions=partitions, compatibility=compatibility, **fields)


def apply(
    kafka: Mapping[str, str], registry: SchemaRegistry, prefix: str, longest_window_s: float
) -> list[str]:
    """Create and adjust topics, register schemas; says what it did, a line each.

    Idempotent. Raises TopicsError before anything is changed, KafkaException or
    RegistryUnavailable when one of the two does not answer.
    """
    topics = load_topics().topics
    admin = AdminClient(quiet(kafka))
    metadata = admin.list_topics(timeout=CALL_TIMEOUT_S)
    for topic in topics:
        _check(topic, prefix, metadata.topics.get(prefix + topic.name), longest_window_s)
        subject = f"{prefix}{topic.name}-value"
        if not registry.is_compatible(subject, load_schema(topic.schema)):
            raise TopicsError(
                f"{subject}: the schema {topic.schema}.avsc is not {topic.compatibility} with what "
                "is registered; new fields need a default, required ones must stay"
            )
    done = _create(
        admin,
        [topic for topic in topics if prefix + topic.name not in metadata.topics],
        prefix,
        min(3, len(metadata.brokers)),
    )
    _configure(admin, topics, prefix)
    for topic in topics:
        subject = f"{prefix}{topic.name}-value"
        try:
            schema_id = registry.register(subject, load_schema(topic.schema))
        except IncompatibleSchema as error:
            raise TopicsError(str(error)) from error
        registry.set_compatibility(subject, topic.compatibility)
        done.append(f"schema {subject} has id {schema_id}")
    return done


def shape_problem(topic: Topic, prefix: str, found: Any) -> str:
    """What is wrong with a topic as the broker's metadata has it; empty when nothing is."""
    partitions = len(found.partitions)
    if partitions == topic.partitions:
        return ""
    return (
        f"{prefix}{topic.name}: expected {topic.partitions} partitions, found {partitions}; a "
        "review keeps one partition number through all topics, so delete the topic and run "
        "`reviewmesh topics apply`"
    )


def _check(topic: Topic, prefix: str, found: Any, longest_window_s: float) -> None:
    problem = shape_problem(topic, prefix, found) if found is not None else ""
    if problem:
        raise TopicsError(problem)
    if topic.cleanup_policy == "delete" and topic.retention_hours * HOUR_S <= longest_window_s:
        raise TopicsError(
            f"{topic.name}: retention of {topic.retention_hours} h must exceed the longest window "
            f"of {longest_window_s / HOUR_S:g} h; lower the window or raise the retention"
        )


def _create(
    admin: AdminClient, topics: list[Topic], prefix: str, replication_factor: int
) -> list[str]:
    if not topics:
        return []
    futures = admin.create_topics(
        [
            NewTopic(
                prefix + topic.name,
                topic.partitions,
                replication_factor,
                config=topic.config(),
            )
            for topic in topics
        ],
        operation_timeout=CALL_TIMEOUT_S,
    )
    done = []
    for name, future in futures.items():
        try:
            future.result(CALL_TIMEOUT_S)
            done.append(f"topic {name} created")
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise
    return done


def _configure(admin: AdminClient, topics: tuple[Topic, ...], prefix: str) -> None:
    resources_ = [
        ConfigResource(
            ResourceType.TOPIC,
            prefix + topic.name,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in topic.config().items()
            ],
        )
        for topic in topics
    ]
    for future in admin.incremental_alter_configs(resources_).values():
        future.result(CALL_TIMEOUT_S)
