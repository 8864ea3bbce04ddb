"""Applies batches of records to the windows of both steps, and returns what must be written.

A bucket that many records of a batch changed is published once, as it is at the end of the batch.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import structlog

from reviewmesh import metrics
from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.clock import Clock, milliseconds
from reviewmesh.insights.contribution import (
    Bucket,
    bucket_of,
    from_json,
    insight,
    insight_key,
    review_counts,
    to_json,
)
from reviewmesh.insights.contributions import BucketCounts, Contributions
from reviewmesh.insights.reader import ReadBatch
from reviewmesh.insights.topics import SECOND_STEP_MS, TopicNames
from reviewmesh.insights.totals import Totals
from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.settings import Settings

REGISTRY_RETRY_S = 1.0

Returned = TypeVar("Returned")


class Message(NamedTuple):
    topic: str
    partition: int
    key: Any
    value: Any


class Turn(NamedTuple):
    """A batch and its messages: all are written before the batch is committed."""

    batch: ReadBatch
    messages: list[Message]
    outcomes: Counter[str]
    """Of the enriched records, by the label of their metric."""


class InsightWindows:
    """The state of both steps, for the partitions of one assignment. Used by one agent."""

    def __init__(
        self,
        settings: Settings,
        enriched_codec: Codec,
        insight_codec: Codec,
        partitions: int,
        clock: Clock,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._enriched_codec = enriched_codec
        self._insight_codec = insight_codec
        self._partitions = partitions
        self._clock = clock
        self._log = log
        self._window_ms = milliseconds(settings.insights.window_s)
        self._retention_ms = milliseconds(settings.insights.retention_s)
        self._names = TopicNames.of(settings)
        self._contributions = Contributions({})
        self._totals = Totals({})
        self.registry_problem = ""

    async def recover(self, contributions: dict[str, Any], totals: dict[Any, Any]) -> None:
        """Start from the entries that were read back."""
        self._contributions, self._totals = Contributions(contributions), Totals(totals)
        # In a thread: the event loop has heartbeats to send.
        await asyncio.to_thread(self._contributions.recovered)
        await asyncio.to_thread(self._totals.recovered)

    async def fold(self, batch: ReadBatch) -> Turn:
        """Apply the batch to the state. Waits for as long as the registry does not answer."""
        turn = Turn(batch, [], Counter())
        partials: dict[tuple[int, Bucket], None] = {}
        insights: dict[tuple[int, Bucket], None] = {}
        for record in batch.records:
            if record.topic == self._names.enriched:
                buckets = await self._count(record, turn)
                partials |= dict.fromkeys((record.partition, bucket) for bucket in buckets)
            elif bucket := self._total(record.partition, _partial(record.value), turn):
                insights[record.partition, bucket] = None
        turn.messages.extend(self._partial_message(*subject) for subject in partials)
        for subject in insights:
            turn.messages.append(await self._insight_message(*subject))
        return turn

    async def close(self) -> None:
        """Drop the windows that are final by now."""
        now = self._now_ms()
        forget = asyncio.to_thread(self._contributions.forget, now, self._retention_ms)
        metrics.INSIGHTS_REVIEWS.set(await forget)
        metrics.INSIGHTS_WINDOWS.set(self._totals.forget(now, self._retention_ms + SECOND_STEP_MS))

    # -- first step: enriched reviews, by partition of review_id -------------------------------

    async def _count(self, record: Any, turn: Turn) -> set[Bucket]:
        """Returns the buckets whose partials must be sent."""
        review = await self._decode(record)
        if review is None:
            turn.outcomes["undecodable"] += 1
            return set()
        bucket = bucket_of(review, record.timestamp, self._window_ms)
        if bucket.is_closed(self._now_ms(), self._retention_ms):
            turn.outcomes["late"] += 1
            return set()
        entry, buckets = self._contributions.apply(
            review["review_id"],
            record.partition,
            offset=record.offset,
            bucket=bucket,
            counts=review_counts(review),
        )
        turn.outcomes["counted" if entry else "repeated"] += 1
        if entry is not None:
            turn.messages.append(
                Message(self._names.contributions, record.partition, review["review_id"], entry)
            )
        return buckets

    async def _decode(self, record: Any) -> dict[str, Any] | None:
        try:
            return await self._from_registry(
                lambda: self._enriched_codec.decode(record.value or b"")
            )
        except DecodeError as error:
            self._log.error(
                "skipped a record that is not an enriched review",
                partition=record.partition,
                offset=record.offset,
                error=str(error),
            )
            return None

    def _partial_message(self, partition: int, bucket: Bucket) -> Message:
        partial = self._contributions.partial(partition, bucket)
        key = partial.bucket.business_id.encode()
        value = {
            "partition": partial.partition,
            "version": partial.version,
            "bucket": list(partial.bucket),
            "counts": to_json(partial.counts),
        }
        return Message(
            self._names.partials,
            partition_of(key, self._partitions),
            key,
            json.dumps(value).encode(),
        )

    # -- second step: partials, by partition of business_id ------------------------------------

    def _total(self, partition: int, partial: BucketCounts, turn: Turn) -> Bucket | None:
        """Returns the bucket whose insight must be published."""
        if partial.bucket.is_closed(self._now_ms(), self._retention_ms + SECOND_STEP_MS):
            return None
        if written := self._totals.apply(partial):
            key, entry = written
            turn.messages.append(Message(self._names.totals, partition, list(key), entry))
        return partial.bucket

    async def _insight_message(self, partition: int, bucket: Bucket) -> Message:
        record = insight(bucket, self._totals.total(bucket), self._now_ms())
        value = await self._from_registry(lambda: self._insight_codec.encode(record))
        return Message(self._names.insights, partition, insight_key(bucket), value)

    # -- both ----------------------------------------------------------------------------------

    async def _from_registry(self, ask: Callable[[], Returned]) -> Returned:
        """Wait for as long as the registry does not answer."""
        while True:
            try:
                # Most schemas are cached; a failed request may take its whole timeout again.
                answer = await asyncio.to_thread(ask) if self.registry_problem else ask()
            except RegistryUnavailable as error:
                if not self.registry_problem:
                    self._log.warning("waiting for the schema registry", error=str(error))
                self.registry_problem = str(error)
                await asyncio.sleep(REGISTRY_RETRY_S)
            else:
                self.registry_problem = ""
                return answer

    def _now_ms(self) -> int:
        return milliseconds(self._clock())


def _partial(value: bytes) -> BucketCounts:
    sent = json.loads(value)
    return BucketCounts(
        sent["partition"], sent["version"], Bucket(*sent["bucket"]), from_json(sent["counts"])
    )
