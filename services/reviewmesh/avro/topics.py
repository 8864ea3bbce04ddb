"""The topics of the mesh, and creating or adjusting them on a cluster and in a registry."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from reviewmesh.avro.codec import load_schema
from reviewmesh.avro.registry import IncompatibleSchema, SchemaRegistry
from reviewmesh.kafka import replication
from reviewmesh.kafka.clients import quiet
from reviewmesh_schemas.names import ENRICHERS

CALL_TIMEOUT_S = 60.0
HOUR_S = 3600


class TopicsError(ValueError):
    """The topics cannot be adjusted to the contract; nothing was changed."""


@dataclass(frozen=True, slots=True)
class TopicContract:
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
    describers: tuple[str, ...]
    """Who sees the topic without reading it."""
    isolation: str
    # Whether records on partitions beyond `partitions` are read.
    more_partitions: bool = False

    def config(self, replicas: int) -> dict[str, str]:
        """Kafka's topic configuration with so many replicas."""
        options = {
            "cleanup.policy": self.cleanup_policy,
            "message.timestamp.type": self.timestamp_type,
            "max.message.bytes": str(self.max_message_bytes),
            "retention.ms": str(self.retention_hours * HOUR_S * 1000),
            # Kafka deletes and compacts closed segments only: a record may stay so much longer.
            "segment.ms": str(6 * HOUR_S * 1000),
            # With three replicas, acknowledged records are on two brokers, and one may fail.
            replication.IN_SYNC: str(replication.in_sync_at_least(replicas)),
        }
        if "compact" in self.cleanup_policy:
            options |= {
                "min.cleanable.dirty.ratio": "0.1",
                "delete.retention.ms": str(24 * HOUR_S * 1000),
            }
        return options


@dataclass(frozen=True, slots=True)
class TopicsFile:
    topics: tuple[TopicContract, ...]


def room_of(topic: TopicContract) -> int:
    """The largest record of the topic, with room for the batch overhead."""
    return topic.max_message_bytes * 15 // 16


@cache
def load_topics() -> TopicsFile:
    """Reads topics.yaml of the contracts, once a process."""
    text = resources.files("reviewmesh_schemas").joinpath("topics.yaml").read_text("utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return TopicsFile(
        tuple(_topic(name, content, entry) for name, entry in content["topics"].items())
    )


def partitions_read(name: str) -> float:
    """How many of a topic's partitions are read, from 0: infinity where producers may write to
    any."""
    [topic] = [topic for topic in load_topics().topics if topic.name == name]
    return math.inf if topic.more_partitions else topic.partitions


def _topic(name: str, file: Mapping[str, Any], entry: Mapping[str, Any]) -> TopicContract:
    whole = {key: file[key] for key in ("partitions", "compatibility")}
    fields: dict[str, Any] = {**whole, **entry}
    fields["producers"] = _principals(entry["producers"])
    fields["consumers"] = _principals([*entry["consumers"], *file["readers"]])
    described = _principals([*file["describers"], *entry.get("describers", ())])
    others = dict.fromkeys(described)
    for known in (*fields["producers"], *fields["consumers"]):
        others.pop(known, None)
    return TopicContract(name=name, **{**fields, "describers": tuple(others)})


def _principals(named: Iterable[str]) -> tuple[str, ...]:
    """`enricher` is the enricher of each task."""
    return tuple(
        principal for name in named for principal in (ENRICHERS if name == "enricher" else (name,))
    )


def apply(
    kafka: Mapping[str, str], registry: SchemaRegistry, prefix: str, longest_window_s: float
) -> list[str]:
    """Create and adjust topics, register schemas; returns a line for each change.

    Idempotent. Raises TopicsError before anything is changed, KafkaException or
    RegistryUnavailable when broker or registry does not answer.
    """
    topics = load_topics().topics
    admin = AdminClient(quiet(kafka))
    metadata = admin.list_topics(timeout=CALL_TIMEOUT_S)
    for topic in topics:
        _check(topic, longest_window_s)
        subject = f"{prefix}{topic.name}-value"
        if not registry.is_compatible(subject, load_schema(topic.schema)):
            raise TopicsError(
                f"{subject}: the schema {topic.schema}.avsc is not {topic.compatibility} with what "
                "is registered; new fields need a default, required ones must stay"
            )
    missing = [topic for topic in topics if prefix + topic.name not in metadata.topics]
    done = _create(admin, missing, prefix)
    done += _grow(admin, topics, prefix, metadata.topics)
    # New ones have their configuration.
    there = {
        topic: replication.replicas_of(metadata.topics[prefix + topic.name])
        for topic in topics
        if topic not in missing
    }
    _configure(admin, there, prefix)
    for topic in topics:
        subject = f"{prefix}{topic.name}-value"
        try:
            schema_id = registry.register(subject, load_schema(topic.schema))
        except IncompatibleSchema as error:
            raise TopicsError(str(error)) from error
        registry.set_compatibility(subject, topic.compatibility)
        done.append(f"schema {subject} has id {schema_id}")
    return done


def shape_problem(topic: TopicContract, prefix: str, found: Any) -> str:
    """What is wrong with a topic, by the broker's metadata; empty when nothing is."""
    partitions = len(found.partitions)
    if partitions >= topic.partitions:
        return ""
    return (
        f"{prefix}{topic.name}: expected at least {topic.partitions} partitions, found "
        f"{partitions}; `reviewmesh topics apply` adds the missing ones and leaves all records "
        "where they are"
    )


def _check(topic: TopicContract, longest_window_s: float) -> None:
    if topic.cleanup_policy == "delete" and topic.retention_hours * HOUR_S <= longest_window_s:
        raise TopicsError(
            f"{topic.name}: retention of {topic.retention_hours} h must exceed the longest window "
            f"of {longest_window_s / HOUR_S:g} h; lower the window or raise the retention"
        )


def _create(admin: AdminClient, topics: list[TopicContract], prefix: str) -> list[str]:
    created = replication.create_topics(
        admin,
        partitions={prefix + topic.name: topic.partitions for topic in topics},
        options={prefix + topic.name: topic.config(replicas=1) for topic in topics},
        timeout_s=CALL_TIMEOUT_S,
    )
    return [f"topic {name} created" for name in created]


def _grow(
    admin: AdminClient, topics: Iterable[TopicContract], prefix: str, found: Mapping[str, Any]
) -> list[str]:
    """Add the partitions that a topic lacks; records stay where they are."""
    few = [
        topic
        for topic in topics
        if prefix + topic.name in found and shape_problem(topic, prefix, found[prefix + topic.name])
    ]
    if not few:
        return []
    wanted = [NewPartitions(prefix + topic.name, topic.partitions) for topic in few]
    futures = admin.create_partitions(wanted, operation_timeout=CALL_TIMEOUT_S)
    for future in futures.values():
        future.result(CALL_TIMEOUT_S)
    return [f"topic {prefix}{topic.name} has {topic.partitions} partitions now" for topic in few]


def replication_problems(admin: AdminClient, prefix: str) -> list[str]:
    """What lies on fewer brokers than it should, in words."""
    names = [prefix + topic.name for topic in load_topics().topics]
    return replication.shortcomings(admin, names, CALL_TIMEOUT_S)


def _configure(admin: AdminClient, topics: Mapping[TopicContract, int], prefix: str) -> None:
    """Set the configuration of topics, each with its number of replicas."""
    if not topics:
        return
    resources_ = [
        ConfigResource(
            ResourceType.TOPIC,
            prefix + topic.name,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in topic.config(replicas).items()
            ],
        )
        for topic, replicas in topics.items()
    ]
    for future in admin.incremental_alter_configs(resources_).values():
        future.result(CALL_TIMEOUT_S)
