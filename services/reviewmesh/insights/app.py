"""The Faust application: two agents, their inputs, and timers.

    our reader → batches → agent `fold` → turns → agent `publish` → Kafka
    timer `close_windows` → batches

`fold` owns the state, `publish` everything that is written: it sends the messages of a turn, awaits
them all, and only then commits the batch. What is committed has been written. While `publish` waits
for the broker, `fold` is a batch ahead; each channel holds one item. An agent that fails ends the
application (`CrashingSupervisor`): restarted alone, it would continue after a lost turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Iterable
from itertools import chain
from typing import Any

import faust
import structlog
from aiokafka import TopicPartition
from confluent_kafka import KafkaException
from faust.app.base import BootStrategy
from mode.supervisors import CrashingSupervisor

from reviewmesh import metrics
from reviewmesh.avro.codec import Codec
from reviewmesh.clock import Clock
from reviewmesh.insights.broker import bootstrap_servers, credentials, renew_certificates
from reviewmesh.insights.changelog import NO_PROGRESS_S, read_back
from reviewmesh.insights.reader import Assignment, GroupReader
from reviewmesh.insights.topics import TopicNames
from reviewmesh.insights.windows import InsightWindows, Message, Turn
from reviewmesh.kafka.clients import make_admin
from reviewmesh.loop.stalls import StandsStill
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import INSIGHTS_GROUP

TURN_S = 0.5
TURN_RECORDS = 1_000
CLOSE_EVERY_S = 10.0
WATCH_EVERY_S = 1.0
BROKER_TIMEOUT_S = 5.0
# The process ends, and its supervisor starts it again, when one of these takes longer.
JOIN_S = 60.0
WRITE_S = 60.0
CLOSE_WINDOWS = object()
"""Sent instead of a batch: time has passed, and windows may be final."""


class Boot(BootStrategy):
    """A producer and agents. Faust's consumer and its tables are not started."""

    def producer_only(self) -> Iterable[Any]:
        return chain(super().producer_only(), self.agents())


class FaustApp(faust.App):
    BootStrategy = Boot
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
        self._names = names = TopicNames.of(settings)
        self._reader = GroupReader(
            settings, f"{settings.prefix}{INSIGHTS_GROUP}", [names.enriched, names.partials]
        )
        self._windows = InsightWindows(
            settings=settings,
            enriched_codec=enriched_codec,
            insight_codec=insight_codec,
            partitions=partitions,
            clock=clock,
            log=log,
        )
        self._state_of: Assignment | None = None
        self.app = app = _faust_app(settings)
        self._topics = {
            name: app.topic(name, key_serializer=serializer, value_serializer=serializer)
            for name, serializer in (
                (names.insights, "raw"),
                (names.partials, "raw"),
                (names.contributions, "json"),
                (names.totals, "json"),
            )
        }
        self._batches, self._turns = app.channel(maxsize=1), app.channel(maxsize=1)
        app.agent(self._batches, name="fold")(self._fold)
        app.agent(self._turns, name="publish")(self._publish)
        app.task(self._read)
        app.timer(interval=CLOSE_EVERY_S)(self._close_windows)
        app.timer(interval=WATCH_EVERY_S)(self._watch)

    def state(self) -> str:
        """What it waits for; empty if nothing."""
        if problem := self._windows.registry_problem:
            return problem
        state_of = self._state_of
        if state_of is None or not self._reader.holds(state_of):
            without_s = self._reader.without_for_s()
            if without_s:
                return f"partitions: the group has given none for {without_s:.0f} s"
            return "the state of its partitions, from the changelog topics"
        return ""

    async def stop(self) -> None:
        """Finish the writes that have begun, and begin no others."""
        await self._reader.let_go()
        await self.app.stop()
        await self._reader.stop()

    # -- what feeds the agents ------------------------------------------------------------------

    async def _read(self) -> None:
        await self._reader.start()
        while True:
            await self._batches.put(await self._reader.gather(TURN_RECORDS, TURN_S))

    async def _close_windows(self) -> None:
        await self._batches.put(CLOSE_WINDOWS)

    async def _watch(self) -> None:
        """Raises StandsStill: the group gives no partitions, though the broker answers."""
        renew_certificates()
        if self._reader.without_for_s() <= JOIN_S:
            return
        if await asyncio.to_thread(self._broker_answers):
            raise StandsStill(f"the group gave no partitions within {JOIN_S:g} s")
        self._reader.begin_waiting()

    def _broker_answers(self) -> bool:
        try:
            make_admin(self._settings.kafka).list_topics(timeout=BROKER_TIMEOUT_S)
        except KafkaException:
            return False
        return True

    # -- agents ---------------------------------------------------------------------------------

    async def _fold(self, batches: AsyncIterable[Any]) -> None:
        async for batch in batches:
            if batch is CLOSE_WINDOWS:
                await self._windows.close()
                continue
            if self._state_of is not batch.assignment:
                await self._read_state(batch.assignment)
            if self._state_of is batch.assignment and batch.records:
                await self._turns.put(await self._windows.fold(batch))

    async def _publish(self, turns: AsyncIterable[Turn]) -> None:
        async for turn in turns:
            # A turn whose assignment is over is dropped, and its state: the next batch is of
            # another assignment, for which `fold` reads the state back.
            async with self._reader.holding(turn.batch) as held:
                if held:
                    await self._write(turn)

    async def _write(self, turn: Turn) -> None:
        for outcome, number in turn.outcomes.items():
            metrics.INSIGHTS_RECORDS.labels(outcome).inc(number)
        try:
            async with asyncio.timeout(WRITE_S):
                deliveries = [
                    await send(self._topics[message.topic], message) for message in turn.messages
                ]
                await asyncio.gather(*deliveries)
                await self._reader.commit(turn.batch)
        except TimeoutError as error:
            raise StandsStill(
                f"the broker did not acknowledge writes within {WRITE_S:g} s"
            ) from error
        published = sum(message.topic == self._names.insights for message in turn.messages)
        metrics.INSIGHTS_PUBLISHED.inc(published)

    async def _read_state(self, assignment: Assignment) -> None:
        """Read the state again: other members may have owned the partitions in between."""
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
            raise StandsStill(
                f"the changelog topics gave nothing for {NO_PROGRESS_S:g} s"
            ) from error
        if is_whole:
            await self._windows.recover(contributions, totals)
            self._state_of = assignment


async def send(topic: Any, message: Message) -> Awaitable[object]:
    """Send a message; the result is done once the broker has acknowledged it."""
    delivery: Awaitable[object] = await topic.send(
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
        agent_supervisor=CrashingSupervisor,
        store="memory://",
        web_enabled=False,
        autodiscover=False,
    )
    app.in_worker = True
    # Channels are closed until Faust's consumer has its partitions; here that is never started.
    app.flow_control.resume()
    return app
