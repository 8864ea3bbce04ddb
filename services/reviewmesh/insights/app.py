"""The Faust application: two agents, two tables, and the topics between them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import faust
import structlog

from reviewmesh.insights.broker import ReadCommittedTransport, bootstrap_servers, credentials
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
from reviewmesh.insights.outbox import Message, Outbox
from reviewmesh.insights.totals import Totals
from reviewmesh.runtime import metrics
from reviewmesh.runtime.clock import Clock, milliseconds
from reviewmesh.runtime.codec import Codec, DecodeError
from reviewmesh.runtime.partitioning import partition_of
from reviewmesh.runtime.registry import RegistryUnavailable
from reviewmesh.runtime.settings import Settings

ENRICHED = "reviews.enriched"
INSIGHTS = "reviews.insights"
GROUP = "reviewmesh-insights"
PUBLISH_EVERY_S = 0.5
FORGET_EVERY_S = 10.0
REGISTRY_RETRY_S = 1.0
# Buckets stay known to the second step a while longer than to the first, which sends to it.
SECOND_STEP_MS = 3_600_000

Answer = TypeVar("Answer")


class FaustApp(faust.App):
    def _create_directories(self) -> None:
        """The tables are in memory: nothing is kept on disk."""


class Insights:
    """Owns the Faust application; `turn` is to be called again and again while it runs."""

    def __init__(
        self,
        settings: Settings,
        enriched_codec: Codec,
        insight_codec: Codec,
        partitions: int,
        brokers: int,
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
        self._registry_problem = ""
        self._forget_at = 0.0
        self.app = _faust_app(settings, partitions, min(3, brokers))
        raw = {"key_serializer": "raw", "value_serializer": "raw"}
        self._enriched = self.app.topic(settings.prefix + ENRICHED, allow_empty=True, **raw)
        self._insights = self.app.topic(settings.prefix + INSIGHTS, **raw)
        internal = {
            "internal": True,
            "partitions": partitions,
            "retention": settings.insights.retention_s + 2 * SECOND_STEP_MS / 1000,
        }
        self._partials = self.app.topic(
            f"{self.app.conf.id}-partials", deleting=True, **raw, **internal
        )
        self._tables = [
            self.app.Table(
                name,
                partitions=partitions,
                changelog_topic=self.app.topic(
                    f"{self.app.conf.id}-{name}-changelog",
                    key_serializer="json",
                    value_serializer="json",
                    compacting=True,
                    deleting=True,
                    acks=False,
                    allow_empty=True,
                    **internal,
                ),
                on_recover=recovered,
            )
            for name, recovered in (
                ("contributions", self._on_contributions_recovered),
                ("totals", self._on_totals_recovered),
            )
        ]
        self._contributions = Contributions(self._tables[0].data)
        self._totals = Totals(self._tables[1].data)
        self._partials_out: Outbox[tuple[int, Bucket]] = Outbox(send, self._partial_message)
        self._insights_out: Outbox[tuple[int, Bucket]] = Outbox(send, self._insight_message)
        self.app.agent(self._enriched, name="count")(self._count)
        self.app.agent(self._partials, name="total")(self._total)

    def state(self) -> str:
        """What it waits for, empty when nothing. Only from the loop's own thread."""
        if self._registry_problem:
            return self._registry_problem
        if self.app.rebalancing or not self.app.tables.recovery.completed.is_set():
            return "partitions, and their state from the changelog topics"
        return ""

    async def turn(self) -> None:
        """Write what the records since the last turn ask for; forget what is over."""
        await self._partials_out.flush()
        await self._from_registry(lambda: self._insight_codec.encode(_EMPTY))
        await self._insights_out.flush()
        if time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + FORGET_EVERY_S
            now = self._now_ms()
            metrics.INSIGHTS_REVIEWS.set(self._contributions.forget(now, self._retention_ms))
            metrics.INSIGHTS_WINDOWS.set(
                self._totals.forget(now, self._retention_ms + SECOND_STEP_MS)
            )

    # -- first step: enriched reviews, by partition of review_id -------------------------------

    async def _count(self, stream: Any) -> None:
        await self._follow(stream, self._count_record, self._partials_out)

    async def _count_record(self, event: Any) -> None:
        message = event.message
        messages: list[Message] = []
        subjects: list[tuple[int, Bucket]] = []
        record = await self._decode(message)
        if record is not None:
            bucket = bucket_of(record, milliseconds(message.timestamp), self._window_ms)
            if bucket.is_closed(self._now_ms(), self._retention_ms):
                metrics.INSIGHTS_RECORDS.labels("late").inc()
            else:
                entry, buckets = self._contributions.apply(
                    record["review_id"], message.partition, message.offset, bucket,
                    counts_of(record),
                )  # fmt: skip
                metrics.INSIGHTS_RECORDS.labels("counted" if entry else "repeated").inc()
                if entry is not None:
                    changelog = self._tables[0].changelog_topic
                    messages.append(
                        Message(changelog, message.partition, record["review_id"], entry)
                    )
                subjects = [(message.partition, item) for item in buckets]
        self._partials_out.add(event, messages, subjects)

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

    def _partial_message(self, subject: tuple[int, Bucket]) -> Message:
        partial = self._contributions.partial(*subject)
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

    async def _total(self, stream: Any) -> None:
        await self._follow(stream, self._total_partial, self._insights_out)

    async def _total_partial(self, event: Any) -> None:
        value = json.loads(event.message.value)
        partition = event.message.partition
        partial = Partial(
            value["partition"],
            value["version"],
            Bucket(*value["bucket"]),
            from_json(value["counts"]),
        )
        messages: list[Message] = []
        subjects: list[tuple[int, Bucket]] = []
        if not partial.bucket.is_closed(self._now_ms(), self._retention_ms + SECOND_STEP_MS):
            if written := self._totals.apply(partial):
                key, entry = written
                messages.append(
                    Message(self._tables[1].changelog_topic, partition, list(key), entry)
                )
            subjects.append((partition, partial.bucket))
        self._insights_out.add(event, messages, subjects)

    def _insight_message(self, subject: tuple[int, Bucket]) -> Message:
        partition, bucket = subject
        record = insight(bucket, self._totals.total(bucket), self._now_ms())
        metrics.INSIGHTS_PUBLISHED.inc()
        return Message(
            self._insights, partition, key_of(bucket), self._insight_codec.encode(record)
        )

    # -- both ----------------------------------------------------------------------------------

    async def _follow(
        self, stream: Any, handle: Callable[[Any], Awaitable[None]], outbox: Outbox[Any]
    ) -> None:
        """Any failure ends the process: a restart processes again what is not committed."""
        try:
            async for event in stream.noack().events():
                await handle(event)
                if outbox.is_full:
                    await outbox.flush()
        except Exception as error:
            await self.app.crash(error)
            raise

    async def _from_registry(self, ask: Callable[[], Answer]) -> Answer:
        """Wait for as long as the registry does not answer."""
        while True:
            try:
                answer = ask()
            except RegistryUnavailable as error:
                if not self._registry_problem:
                    self._log.warning("waiting for the schema registry", error=str(error))
                self._registry_problem = str(error)
                await asyncio.sleep(REGISTRY_RETRY_S)
            else:
                self._registry_problem = ""
                return answer

    async def _on_contributions_recovered(self) -> None:
        self._contributions.recovered()

    async def _on_totals_recovered(self) -> None:
        self._totals.recovered()

    def _now_ms(self) -> int:
        return milliseconds(self._clock())


_EMPTY = insight(Bucket("", 0, 0), {}, 0)


async def send(message: Message) -> Awaitable[object]:
    delivery: Awaitable[object] = await message.topic.send(
        key=message.key, value=message.value, partition=message.partition
    )
    return delivery


def _faust_app(settings: Settings, partitions: int, replication_factor: int) -> FaustApp:
    app = FaustApp(
        f"{settings.prefix}{GROUP}",
        broker=[f"kafka://{server}" for server in bootstrap_servers(settings.kafka)],
        broker_credentials=credentials(settings.kafka),
        broker_commit_interval=1.0,
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.0,
        # A member that died while it joined is waited for this long; Faust's own is a minute.
        broker_rebalance_timeout=15.0,
        broker_max_poll_records=500,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=settings.slot,
        producer_compression_type="lz4",
        stream_buffer_maxsize=500,
        stream_wait_empty=True,
        store="memory://",
        topic_partitions=partitions,
        topic_replication_factor=replication_factor,
        topic_disable_leader=True,
        web_enabled=False,
        autodiscover=False,
    )
    app.transport = ReadCommittedTransport(app.conf.broker_consumer, app)
    app.in_worker = True
    return app
