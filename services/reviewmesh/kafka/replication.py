"""On how many brokers a topic's records lie: three where there are three, and two of them in sync.

Then any one broker may fail: a record that was acknowledged is on two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    NewTopic,
    ResourceType,
)

MOST_REPLICAS = 3
IN_SYNC = "min.insync.replicas"
# Without these nobody commits, and no transaction ends.
INTERNAL = ("__consumer_offsets", "__transaction_state")


def in_sync_at_least(replicas: int) -> int:
    """How many must have a record before it is acknowledged."""
    return 2 if replicas >= MOST_REPLICAS else 1


def create_topics(
    admin: AdminClient,
    partitions: Mapping[str, int],
    options: Mapping[str, Mapping[str, str]],
    timeout_s: float,
) -> list[str]:
    """Create these topics where they are missing; gives the names of those that were.

    A broker that is down is not in the metadata, but counts: it holds its replicas when it is back.
    So three are asked for first, and as many as there are brokers only where that is refused.
    Raises KafkaException.
    """
    if not partitions:
        return []
    there = max(1, len(admin.list_topics(timeout=timeout_s).brokers))
    created: list[str] = []
    left = list(partitions)
    for replicas in sorted({MOST_REPLICAS, min(there, MOST_REPLICAS)}, reverse=True):
        asked = [
            NewTopic(
                name,
                partitions[name],
                replicas,
                config={**options[name], IN_SYNC: str(in_sync_at_least(replicas))},
            )
            for name in left
        ]
        left = []
        for name, future in admin.create_topics(asked, operation_timeout=timeout_s).items():
            try:
                future.result(timeout_s)
                created.append(name)
            except KafkaException as error:
                code = error.args[0].code()
                if code == KafkaError.INVALID_REPLICATION_FACTOR and replicas > there:
                    left.append(name)
                # Somebody else was first.
                elif code != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
        if not left:
            break
    return created


def replicas_of(found: Any) -> int:
    """The lowest number of replicas of a topic's partitions."""
    return min(len(partition.replicas) for partition in found.partitions.values())


def in_sync_of(found: Any) -> int:
    """The lowest number of replicas in sync of a topic's partitions."""
    return min(len(partition.isrs) for partition in found.partitions.values())


def wanted_replicas(metadata: Any) -> int:
    """As many as there are brokers, up to three. A topic with more replicas than brokers answer
    tells of those that are down."""
    most = max((replicas_of(topic) for topic in metadata.topics.values()), default=1)
    return min(MOST_REPLICAS, max(most, len(metadata.brokers)))


def shortcomings(admin: AdminClient, names: Iterable[str], timeout_s: float) -> list[str]:
    """What has fewer replicas than the cluster has brokers, in words; Kafka's own topics, too."""
    metadata = admin.list_topics(timeout=timeout_s)
    wanted = wanted_replicas(metadata)
    there = {
        name: replicas_of(metadata.topics[name])
        for name in (*names, *INTERNAL)
        if name in metadata.topics
    }
    few = {name: replicas for name, replicas in there.items() if replicas < wanted}
    lines = [
        f"{name}: {replicas} replica{'s' if replicas > 1 else ''}, not {wanted}"
        for name, replicas in few.items()
    ]
    enough = [name for name in INTERNAL if there.get(name, 0) >= MOST_REPLICAS]
    lines += [
        f"{name}: {IN_SYNC} is {value}, not {in_sync_at_least(MOST_REPLICAS)}"
        for name, value in _in_sync_options(admin, enough, timeout_s).items()
        if value < in_sync_at_least(MOST_REPLICAS)
    ]
    return lines


def _in_sync_options(admin: AdminClient, names: list[str], timeout_s: float) -> dict[str, int]:
    """Of those whose options this user may see."""
    if not names:
        return {}
    found: dict[str, int] = {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    for resource, future in admin.describe_configs(resources).items():
        try:
            found[resource.name] = int(future.result(timeout_s)[IN_SYNC].value)
        except (KafkaException, KeyError):
            continue
    return found
