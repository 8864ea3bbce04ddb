"""The groups that are watched, and what each of them reads."""

from __future__ import annotations

from dataclasses import dataclass, replace

from reviewmesh.avro.topics import load_topics
from reviewmesh.kafka.partitions import BrokerPartition
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import (
    ACCEPTED,
    ENRICHER_GROUPS,
    INSIGHTS_GROUP,
    INTAKE_GROUP,
    JOINER_GROUP,
    RAW,
    RESULT_OF,
    TASKS,
    TRACER_GROUP,
)


@dataclass(frozen=True, slots=True)
class WatchedGroup:
    """A group and the partitions that it may read; named as on the broker."""

    name: str
    task: str
    partitions: tuple[BrokerPartition, ...]
    reads_all: bool = True
    """Whether it reads all of them from the beginning, or only those with a commit."""
    more_of: str = ""
    """A topic of which it reads every existing partition; empty without one."""

    def grown(self, partitions: int) -> WatchedGroup:
        """The group when `more_of` has so many partitions."""
        known = sum(at.topic == self.more_of for at in self.partitions)
        more = tuple(BrokerPartition(self.more_of, number) for number in range(known, partitions))
        return replace(self, partitions=self.partitions + more)


def mesh_groups(prefix: str) -> tuple[WatchedGroup, ...]:
    """The groups that every review passes through, on the topics of live reviews.

    What a campaign of answers done again has left is no lag: it waits for spare capacity.
    """
    counts = {topic.name: topic.partitions for topic in load_topics().topics}

    def group(name: str, *topics: str, task: str = "") -> WatchedGroup:
        partitions = tuple(
            BrokerPartition(prefix + topic, number)
            for topic in topics
            for number in range(counts[topic])
        )
        return WatchedGroup(prefix + name, task, partitions)

    return (
        replace(group(INTAKE_GROUP, RAW), more_of=prefix + RAW),
        *(group(ENRICHER_GROUPS[task], ACCEPTED, task=task) for task in TASKS),
        group(JOINER_GROUP, ACCEPTED, *RESULT_OF.values()),
    )


def watched_groups(settings: Settings) -> tuple[WatchedGroup, ...]:
    """The mesh's own groups, insights and the tracer where they run, and those in the settings."""
    own = mesh_groups(settings.prefix)
    optional = [settings.prefix + group for group in (INSIGHTS_GROUP, TRACER_GROUP)]
    others = dict.fromkeys([*optional, *settings.lag.groups])
    known = {group.name for group in own}
    everywhere = tuple(
        BrokerPartition(settings.prefix + topic.name, number)
        for topic in load_topics().topics
        for number in range(topic.partitions)
    )
    found = (WatchedGroup(name, "", everywhere, reads_all=False) for name in others)
    return (*own, *(group for group in found if group.name not in known))
