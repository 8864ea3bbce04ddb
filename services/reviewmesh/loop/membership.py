"""This process as a member of its consumer group: the consumer, and a new one after it was fenced.

A consumer that the group has fenced, or that librdkafka no longer lets join, never reads again. It
is replaced; what it had assigned comes back with the next assignment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from confluent_kafka import KafkaError, TopicPartition

from reviewmesh.kafka import clients as kafka
from reviewmesh.loop.readiness import Readiness
from reviewmesh.loop.stage import Stage
from reviewmesh.settings import Settings

# Two processes with one slot fence each other again and again; restarts of a broker do not.
REJOINS_AT_MOST = 3
REJOINS_WITHIN_S = 60.0
# A rebalance is over in seconds where every member is well, and within `max.poll.interval.ms` else.
SOON_ASSIGNED_S = 15.0
ASSIGNED_WITHIN_S = 75.0
CLOSED_WITHIN_S = 10.0


class SlotTaken(RuntimeError):
    """Another process runs with the same slot of the same service."""


OnPartitions = Callable[[list[int]], None]


@dataclass(frozen=True, slots=True)
class Rebalance:
    """Called with partition numbers inside of a poll. What they raise is kept in `failure`."""

    assigned: OnPartitions
    revoked: OnPartitions
    lost: OnPartitions


class Membership:
    """Used by the polling thread."""

    def __init__(
        self,
        settings: Settings,
        stage: Stage,
        rebalance: Rebalance,
        on_error: kafka.OnError,
        readiness: Readiness,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """Joins with `subscribe`."""
        self._settings = settings
        self.group = f"{settings.prefix}reviewmesh-{stage.service}"
        """As named on the broker."""
        self._topic = settings.prefix + stage.topics[0]
        self._rebalance = rebalance
        self._on_error = on_error
        self._readiness = readiness
        self._log = log
        self._fenced = ""
        self.consumer = self.make_consumer()
        self.failure: BaseException | None = None
        """What a rebalance callback raised: inside of it an exception would surface from a poll,
        with the partition assigned."""
        # Since when the group owes partitions; None while it has assigned them.
        self._unassigned_since: float | None = None
        self._rejoined_at: list[float] = []

    def make_consumer(self) -> Any:
        """One that has not joined."""
        return kafka.make_consumer(
            kafka.consumer_options(self._settings, self.group), self.consumer_failed
        )

    def subscribe(self) -> None:
        self.consumer.subscribe(
            [self._topic],
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )
        self._unassigned_since = time.monotonic()

    def consumer_failed(self, error: KafkaError) -> None:
        """A fenced consumer never reads again."""
        if error.code() == KafkaError._FATAL or error.fatal():
            self._fenced = error.str()
        self._on_error(error)

    def is_lost(self, broker_is_there: bool) -> str:
        """Why the consumer has to be replaced; empty when it has not.

        librdkafka can forget to join its group again after the coordinator removed it: seen where
        partitions had no leader for a while.
        """
        if self._fenced or self._unassigned_since is None:
            return self._fenced
        if not broker_is_there:
            self._unassigned_since = time.monotonic()
            return ""
        waited_s = time.monotonic() - self._unassigned_since
        if waited_s > SOON_ASSIGNED_S:
            self._readiness.waits(
                "assignment", f"partitions from the group's coordinator, for {waited_s:.0f} s"
            )
        if waited_s <= ASSIGNED_WITHIN_S:
            return ""
        return f"the group has given no partitions for {waited_s:.0f} s"

    def generation(self) -> int:
        """Of the group, as this member knows it; negative before joining."""
        return kafka.generation(self.consumer.consumer_group_metadata())

    @property
    def is_assigned(self) -> bool:
        """Whether the group has answered since this consumer joined."""
        return self._unassigned_since is None

    def count_rejoin(self, reason: str) -> None:
        """Raises SlotTaken when it happens so often that another process must be behind it."""
        now = time.monotonic()
        self._rejoined_at = [at for at in self._rejoined_at if now - at < REJOINS_WITHIN_S]
        if len(self._rejoined_at) >= REJOINS_AT_MOST:
            raise SlotTaken(
                f"fenced {REJOINS_AT_MOST + 1} times within {REJOINS_WITHIN_S:g} s by slot "
                f"{self._settings.slot!r} of {self.group}: expected a REVIEWMESH_SLOT of its own "
                "for every replica"
            )
        self._rejoined_at.append(now)
        self._log.warning("joining the group again", reason=reason)

    def replace(self, consumer: Any = None) -> None:
        """Join with a new consumer, by default one that is made now.

        Before, whatever the old one had must be forgotten, unless the generation stays the same.
        """
        replaced = self.consumer
        self.consumer = self.make_consumer() if consumer is None else consumer
        # Closing may hang, and the static membership passes to the new consumer in any case.
        closing = threading.Thread(target=replaced.close, name="closing", daemon=True)
        closing.start()
        closing.join(CLOSED_WITHIN_S)
        self._fenced = ""
        self.subscribe()

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._call(consumer, self._rebalance.assigned, partitions, unassigned_since=None)

    def _on_revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._call(consumer, self._rebalance.revoked, partitions, time.monotonic())

    def _on_lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._call(consumer, self._rebalance.lost, partitions, time.monotonic())

    def _call(
        self,
        consumer: Any,
        callback: OnPartitions,
        partitions: list[TopicPartition],
        unassigned_since: float | None,
    ) -> None:
        if consumer is not self.consumer:
            # A replaced one; its partitions are forgotten.
            return
        self._unassigned_since = unassigned_since
        try:
            callback([item.partition for item in partitions])
        except Exception as error:  # noqa: BLE001 - raised again after the poll
            self.failure = error
