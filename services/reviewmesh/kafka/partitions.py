"""The two ways to name a partition: as the mesh names its topic, and as the broker does."""

from __future__ import annotations

from typing import NamedTuple


class MeshPartition(NamedTuple):
    """A partition; its topic is named without the prefix."""

    topic: str
    partition: int

    def on_broker(self, prefix: str) -> BrokerPartition:
        return BrokerPartition(prefix + self.topic, self.partition)


class BrokerPartition(NamedTuple):
    """A partition; its topic is named as on the broker, with the prefix."""

    topic: str
    partition: int

    def in_mesh(self, prefix: str) -> MeshPartition:
        return MeshPartition(self.topic.removeprefix(prefix), self.partition)
