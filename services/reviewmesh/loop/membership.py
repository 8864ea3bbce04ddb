"""Membership in the consumer group: the consumer, and its replacement after it was fenced.

A consumer that the group has fenced, or that librdkafka no longer lets join, never reads again. It
is replaced by a new one, which gets its partitions with the next assignment.
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

# Two processes with the same slot fence each other repeatedly; restarts of a broker do not.
REJOINS_AT_MOST = 3
REJOINS_WITHIN_S = 60.0
# A rebalance takes seconds if every member is healthy, and at most `max.poll.interval.ms` else.
SOON_ASSIGNED_S = 15.0
ASSIGNED_WITHIN_S = 75.0
CLOSED_WITHIN_S = 10.0


class SlotTaken(RuntimeError):
    """Another process runs with the same slot of the same service."""


OnPartitions = Callable[[list[int]], None]


@dataclass(frozen=True, slots=True)
class Rebalance:
    """Callbacks that get partition numbers during a poll. Their exceptions are kept in
    `failure`."""

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
        """What a rebalance callback raised. It cannot raise itself: the poll would fail with the
        partition assigned."""
        # Since when no partitions are assigned, in monotonic seconds; None while some are.
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

    def why_replace(self, broker_is_there: bool) -> str:
        """Why the consumer has to be replaced; empty when it need not be.

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
            self._readiness.set_waiting(
                "assignment", f"partitions from the group's coordinator, for {waited_s:.0f} s"
            )
        if waited_s <= ASSIGNED_WITHIN_S:
            return ""
        return f"the group has given no partitions for {waited_s:.0f} s"

    def generation(self) -> int:
        """The generation of the group as this member knows it; negative before joining."""
        return kafka.generation(self.consumer.consumer_group_metadata())

    @property
    def is_assigned(self) -> bool:
        """Whether the group has answered since this consumer joined."""
        return self._unassigned_since is None

    def count_rejoin(self, reason: str) -> None:
        """Raises SlotTaken after so many rejoins that another process must have the same slot."""
        now = time.monotonic()
        self._rejoined_at = [at for at in self._rejoined_at if now - at < REJOINS_WITHIN_S]
        if len(self._rejoined_at) >= REJOINS_AT_MOST:
            raise SlotTaken(
                f"fenced {REJOINS_AT_MOST + 1} times within {REJOINS_WITHIN_S:g} s by slot "
                f"{self._settings.slot!r} of {self.group}: expected a REVIEWMESH_SLOT of its own "
                "for every replica"
            )
        self._rejoined_at.append(now)
        self._log.warning("rejoining the group", reason=reason)

    def replace(self, consumer: Any = None) -> None:
        """Join with `consumer`, by default one that is created now.

        The caller has dropped the state of all partitions before, unless the generation stays the
        same.
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
            # A consumer that was replaced: the state of its partitions is dropped.
            return
        self._unassigned_since = unassigned_since
        try:
            callback([item.partition for item in partitions])
        except Exception as error:  # noqa: BLE001 - raised again after the poll
            self.failure = error
