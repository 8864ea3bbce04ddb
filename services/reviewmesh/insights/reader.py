"""Reads the group's committed records in batches, each of one assignment of partitions.

Faust's own consumer is not used: it hands records to its agents through queues that it empties
while a recovery or a rebalance ends, and it acknowledges what it skips. Either loses records that
were fetched. See docs/decisions/0005-insights.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError

from reviewmesh.insights.broker import connection
from reviewmesh.settings import Settings

SESSION_TIMEOUT_MS = 6_000
HEARTBEAT_MS = 1_000
REBALANCE_TIMEOUT_MS = 15_000
"""How long the group waits for a member that died while it joined."""
IDLE_MS = 3_600_000
"""It reads nothing while it waits for the registry, and must stay in the group meanwhile."""

Assignment = frozenset[Any]
"""The client's own set of partitions (topic and number), a new object for each assignment."""


@dataclass(slots=True)
class ReadBatch:
    """Consecutive records from the group's committed offsets on, of one assignment."""

    assignment: Assignment
    records: list[Any] = field(default_factory=list)


class GroupReader(ConsumerRebalanceListener):
    """One member of the group. Drop a batch whose assignment is over: nothing of it was committed,
    so its records come again, here or elsewhere."""

    def __init__(self, settings: Settings, group: str, topics: Iterable[str]) -> None:
        self._topics = list(topics)
        self._consumer = AIOKafkaConsumer(
            group_id=group,
            group_instance_id=settings.slot,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            max_poll_interval_ms=IDLE_MS,
            **connection(settings.kafka),
        )
        self._held: Assignment | None = None
        self._is_held = asyncio.Event()
        self._without_since = time.monotonic()
        self.writing = asyncio.Lock()

    async def start(self) -> None:
        self._consumer.subscribe(self._topics, listener=self)
        await self._consumer.start()

    async def let_go(self) -> None:
        """Give up the partitions once the writes that have begun are done."""
        async with self.writing:
            self._held = None

    async def stop(self) -> None:
        await self._consumer.stop()

    async def on_partitions_revoked(self, revoked: set[Any]) -> None:
        """Delay the rebalance until the writes that have begun are done."""
        self._held = None
        self._is_held.clear()
        self.begin_waiting()
        async with self.writing:
            pass

    async def on_partitions_assigned(self, assigned: set[Any]) -> None:
        self._held = self._consumer.assignment()
        self._is_held.set()

    def holds(self, assignment: Assignment) -> bool:
        return self._held is assignment

    def is_current(self, assignment: Assignment) -> bool:
        """Whether no other assignment has replaced it, though it may be about to."""
        return self._consumer.assignment() is assignment

    def without_for_s(self) -> float:
        """How long it has been without an assignment; 0 with one."""
        return 0.0 if self._held is not None else time.monotonic() - self._without_since

    def begin_waiting(self) -> None:
        """Count the time without an assignment from now on."""
        self._without_since = time.monotonic()

    async def gather(self, limit: int, within_s: float) -> ReadBatch:
        """Up to `limit` records, or what came within that time once there is an assignment."""
        batch, deadline = ReadBatch(frozenset()), time.monotonic() + within_s
        while len(batch.records) < limit and (left_s := deadline - time.monotonic()) > 0:
            found = await self._consumer.getmany(
                timeout_ms=int(left_s * 1000) + 1, max_records=limit - len(batch.records)
            )
            # Nothing else ran since the records were handed out: they are of this assignment.
            if not self.is_current(batch.assignment):
                batch = ReadBatch(self._consumer.assignment())
            for records in found.values():
                batch.records.extend(records)
        return batch

    @asynccontextmanager
    async def holding(self, batch: ReadBatch) -> AsyncIterator[bool]:
        """Yields whether the batch's assignment is still ours; it stays so until the block ends."""
        await self._is_held.wait()
        async with self.writing:
            yield self.holds(batch.assignment)

    async def commit(self, batch: ReadBatch) -> None:
        """Call it within `holding`, after everything that the batch asks for was written."""
        offsets = {
            TopicPartition(record.topic, record.partition): record.offset + 1
            for record in batch.records
        }
        # The group did not wait for this member: the batch is read and written again.
        with suppress(CommitFailedError):
            await self._consumer.commit(offsets)
