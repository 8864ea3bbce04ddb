"""The Faust application: it runs the two steps turn by turn, and writes what they ask for.

A turn takes a batch of records, applies it to the state, sends the writes that follow, awaits them
all, and only then commits the batch: what is committed has been written. A bucket that many
records of a turn changed is published once.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

import faust
import structlog
from aiokafka import TopicPartition

from reviewmesh import metrics
from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.clock import Clock, milliseconds
from reviewmesh.insights.broker import bootstrap_servers, credentials
from reviewmesh.insights.changelog import NO_PROGRESS_S, read_back
from reviewmesh.insights.contribution import (
    Bucket,
    bucket_of,
    counts_of,
    from_json,
    insight,
    key_of,
    to_json,
)
from reviewmesh.insights.contributions import Contributions, Partial
from reviewmesh.insights.reader import Assignment, Batch, Reader
from reviewmesh.insights.totals import Totals
from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import ENRICHED, INSIGHTS, INSIGHTS_GROUP

TURN_S = 0.5
TURN_RECORDS = 1_000
FORGET_EVERY_S = 10.0
REGISTRY_RETRY_S = 1.0
# The process ends, and its supervisor starts it again, when one of these takes longer.
JOIN_S = 60.0
WRITE_S = 60.0
# Buckets stay known to the second step a while longer than to the first, which sends to it.
SECOND_STEP_MS = 3_600_000

Answer = TypeVar("Answer")


class Stuck(RuntimeError):
    """Something took longer than it may."""


class Names(NamedTuple):
    """The topics, of these settings."""

    enriched: str
    insights: str
    partials: str
    contributions: str
    totals: str

    @classmethod
    def of(cls, settings: Settings) -> Names:
        group = f"{settings.prefix}{INSIGHTS_GROUP}"
        return cls(
            settings.prefix + ENRICHED,
            settings.prefix + INSIGHTS,
            f"{group}-partials",
            f"{group}-contributions-changelog",
            f"{group}-totals-changelog",
        )

    def own(self, settings: Settings) -> dict[str, dict[str, str]]:
        """Those that this service creates, with their options."""
        kept_ms = milliseconds(settings.insights.retention_s) + 2 * SECOND_STEP_MS
        compacted = {"retention.ms": str(kept_ms), "cleanup.policy": "compact,delete"}
        return {
            self.partials: {**compacted, "cleanup.policy": "delete"},
            self.contributions: compacted,
            self.totals: compacted,
        }


class Message(NamedTuple):
    topic: Any
    partition: int
    key: Any
    value: Any


class Asked(NamedTuple):
    """What a batch asks for: changelog entries, partials and insights to be published."""

    entries: list[Message]
    partials: dict[tuple[int, Bucket], None]
    insights: dict[tuple[int, Bucket], None]


class FaustApp(faust.App):
    producer_only = True

    def _create_directories(self) -> None:
        """The state is in memory: nothing is kept on disk."""


class Insights:
    """Owns the Faust application, which runs until it is stopped or crashes."""

    def __init__(
        self,
        settings: Settings,
        enriched_codec: Codec,
        insight_codec: Codec,
        partitions: int,
        clock: Clock,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._settings = settings
        self._enriched_codec = enriched_codec
        self._insight_codec = insight_codec
        self._partitions = partitions
        self._clock = clock
        self._log = log
        self._window_ms = milliseconds(settings.insights.window_s)
        self._retention_ms = milliseconds(settings.insights.retention_s)
        self._registry_problem = ""
        self._forget_at = 0.0
        self._names = names = Names.of(settings)
        self._reader = Reader(
            settings, f"{settings.prefix}{INSIGHTS_GROUP}", [names.enriched, names.partials]
        )
        self._contributions = Contributions({})
        self._totals = Totals({})
        self._state_of: Assignment | None = None
        self.app = _faust_app(settings)
        self._insights, self._partials = (
            self.app.topic(name, key_serializer="raw", value_serializer="raw")
            for name in (names.insights, names.partials)
        )
        self._contributions_log, self._totals_log = (
            self.app.topic(name, key_serializer="json", value_serializer="json")
            for name in (names.contributions, names.totals)
        )
        self.app.task(self._run)

    def state(self) -> str:
        """What it waits for, empty when nothing. Only from the loop's own thread."""
        if self._registry_problem:
            return self._registry_problem
        if self._state_of is None or not self._reader.holds(self._state_of):
            return "partitions, and their state from the changelog topics"
        return ""

    def check(self) -> None:
        """Raises Stuck when it has waited for its share of the partitions for too long."""
        if self._reader.without_for_s() > JOIN_S:
            raise Stuck(f"the group gave no partitions within {JOIN_S:g} s")

    async def stop(self) -> None:
        """After the writes that have begun."""
        async with self._reader.writing:
            await self.app.stop()
        await self._reader.stop()

    async def _run(self) -> None:
        await self._reader.start()
        while True:
            batch = await self._reader.gather(TURN_RECORDS, TURN_S)
            if self._state_of is not batch.assignment:
                await self._read_state(batch.assignment)
            await self._turn(batch)
            await self._forget()

    async def _turn(self, batch: Batch) -> None:
        reviews = [
            (record, await self._decode(record))
            for record in batch.records
            if record.topic == self._names.enriched
        ]
        partials = [
            (record.partition, _partial(record.value))
            for record in batch.records
            if record.topic == self._names.partials
        ]
        if partials:
            await self._from_registry(lambda: self._insight_codec.encode(_EMPTY))
        async with self._reader.holding(batch) as held:
            if not held or self._state_of is not batch.assignment or not batch.records:
                return
            asked = Asked([], {}, {})
            for record, review in reviews:
                if review is not None:
                    self._count(record, review, asked)
            for partition, partial in partials:
                self._total(partition, partial, asked)
            try:
                async with asyncio.timeout(WRITE_S):
                    await self._write(asked)
                    await self._reader.commit(batch)
            except TimeoutError as error:
                raise Stuck(f"the broker did not take a turn's writes in {WRITE_S:g} s") from error

    async def _write(self, asked: Asked) -> None:
        messages = asked.entries
        messages += (self._partial_message(*subject) for subject in asked.partials)
        messages += (self._insight_message(*subject) for subject in asked.insights)
        deliveries = [await send(message) for message in messages]
        await asyncio.gather(*deliveries)

    async def _read_state(self, assignment: Assignment) -> None:
        """The state of those partitions anew: between two assignments others may have had them."""
        self._state_of = None
        contributions: dict[str, Any] = {}
        totals: dict[Any, Any] = {}

        def keep(topic: str, key: Any, entry: Any) -> None:
            if topic == self._names.contributions:
                contributions[key] = entry
            else:
                totals[tuple(key)] = entry

        changelog_of = {
            self._names.enriched: self._names.contributions,
            self._names.partials: self._names.totals,
        }
        changelogs = [TopicPartition(changelog_of[topic], number) for topic, number in assignment]
        try:
            is_whole = await read_back(
                self._settings.kafka, changelogs, keep, lambda: self._reader.is_current(assignment)
            )
        except TimeoutError as error:
            raise Stuck(f"the changelog topics gave nothing for {NO_PROGRESS_S:g} s") from error
        if is_whole:
            self._contributions, self._totals = Contributions(contributions), Totals(totals)
            # Beside the loop, which has heartbeats to send.
            await asyncio.to_thread(self._contributions.recovered)
            await asyncio.to_thread(self._totals.recovered)
            self._state_of = assignment

    async def _forget(self) -> None:
        if time.monotonic() < self._forget_at:
            return
        self._forget_at = time.monotonic() + FORGET_EVERY_S
        now = self._now_ms()
        forget = asyncio.to_thread(self._contributions.forget, now, self._retention_ms)
        metrics.INSIGHTS_REVIEWS.set(await forget)
        metrics.INSIGHTS_WINDOWS.set(self._totals.forget(now, self._retention_ms + SECOND_STEP_MS))

    # -- first step: enriched reviews, by partition of review_id -------------------------------

    def _count(self, message: Any, review: dict[str, Any], asked: Asked) -> None:
        bucket = bucket_of(review, message.timestamp, self._window_ms)
        if bucket.is_closed(self._now_ms(), self._retention_ms):
            metrics.INSIGHTS_RECORDS.labels("late").inc()
            return
        entry, buckets = self._contributions.apply(
            review["review_id"],
            message.partition,
            offset=message.offset,
            bucket=bucket,
            counts=counts_of(review),
        )
        metrics.INSIGHTS_RECORDS.labels("counted" if entry else "repeated").inc()
        if entry is not None:
            asked.entries.append(
                Message(self._contributions_log, message.partition, review["review_id"], entry)
            )
        asked.partials.update(dict.fromkeys((message.partition, item) for item in buckets))

    async def _decode(self, message: Any) -> dict[str, Any] | None:
        try:
            return await self._from_registry(
                lambda: self._enriched_codec.decode(message.value or b"")
            )
        except DecodeError as error:
            metrics.INSIGHTS_RECORDS.labels("undecodable").inc()
            self._log.error(
                "a record that is no enriched review is left out",
                partition=message.partition,
                offset=message.offset,
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
            self._partials, partition_of(key, self._partitions), key, json.dumps(value).encode()
        )

    # -- second step: partials, by partition of business_id ------------------------------------

    def _total(self, partition: int, partial: Partial, asked: Asked) -> None:
        if partial.bucket.is_closed(self._now_ms(), self._retention_ms + SECOND_STEP_MS):
            return
        if written := self._totals.apply(partial):
            key, entry = written
            asked.entries.append(Message(self._totals_log, partition, list(key), entry))
        asked.insights[partition, partial.bucket] = None

    def _insight_message(self, partition: int, bucket: Bucket) -> Message:
        record = insight(bucket, self._totals.total(bucket), self._now_ms())
        metrics.INSIGHTS_PUBLISHED.inc()
        return Message(
            self._insights, partition, key_of(bucket), self._insight_codec.encode(record)
        )

    # -- both ----------------------------------------------------------------------------------

    async def _from_registry(self, ask: Callable[[], Answer]) -> Answer:
        """Wait for as long as the registry does not answer."""
        while True:
            try:
                # Most answers are known already; one that failed may take its time again.
                answer = await asyncio.to_thread(ask) if self._registry_problem else ask()
            except RegistryUnavailable as error:
                if not self._registry_problem:
                    self._log.warning("waiting for the schema registry", error=str(error))
                self._registry_problem = str(error)
                await asyncio.sleep(REGISTRY_RETRY_S)
            else:
                self._registry_problem = ""
                return answer

    def _now_ms(self) -> int:
        return milliseconds(self._clock())


_EMPTY = insight(Bucket("", 0, 0), {}, 0)


def _partial(value: bytes) -> Partial:
    sent = json.loads(value)
    return Partial(
        sent["partition"], sent["version"], Bucket(*sent["bucket"]), from_json(sent["counts"])
    )


async def send(message: Message) -> Awaitable[object]:
    delivery: Awaitable[object] = await message.topic.send(
        key=message.key, value=message.value, partition=message.partition
    )
    return delivery


def _faust_app(settings: Settings) -> FaustApp:
    app = FaustApp(
        f"{settings.prefix}{INSIGHTS_GROUP}",
        broker=[f"kafka://{server}" for server in bootstrap_servers(settings.kafka)],
        broker_credentials=credentials(settings.kafka),
        producer_compression_type="lz4",
        topic_allow_declare=False,
        topic_disable_leader=True,
        store="memory://",
        web_enabled=False,
        autodiscover=False,
    )
    app.in_worker = True
    return app
