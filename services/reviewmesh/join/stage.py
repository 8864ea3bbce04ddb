"""The joiner inside the loop: one PartitionJoin per partition, encoded into one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from reviewmesh.join.ends import EndOffsets
from reviewmesh.join.enriched import ACCEPTED_FIELDS
from reviewmesh.join.pipeline import (
    ACCEPTED,
    RESULT_TOPICS,
    TOPIC_OF,
    Emission,
    PartitionJoin,
    Windows,
)
from reviewmesh.runtime import metrics
from reviewmesh.runtime.clock import Clock
from reviewmesh.runtime.codec import Codec, DecodeError
from reviewmesh.runtime.deadletter import DeadLetters
from reviewmesh.runtime.reader import PartitionReader
from reviewmesh.runtime.record import (
    ORIGIN_TIMESTAMP,
    REPLAY,
    TRACEPARENT,
    Headers,
    Output,
    Record,
    Unavailable,
    Unit,
)
from reviewmesh.runtime.registry import RegistryUnavailable
from reviewmesh.runtime.stage import Ledgers, Start

ENRICHED = "reviews.enriched"
PARTIAL = "reviews.partial"
TICK_S = 0.5
# Reviews that wait in a process, however many partitions: some 10 KB each with their results.
ROOM_IN_ALL = 4_000
KEPT_HEADERS = (TRACEPARENT, ORIGIN_TIMESTAMP)

Partials = dict[str, tuple[dict[str, Any], Headers]]
"""Open partial records by their review, with the headers that go on with them."""


class JoinStage:
    service = "joiner"
    topics: tuple[str, ...] = (ACCEPTED, *RESULT_TOPICS)
    # Results of one task wait here while an earlier one is missing: more than the enricher's
    # window of 8,000, each with a transaction marker of its own at worst.
    max_in_flight = 24_000
    max_window = 24_000

    def __init__(
        self,
        accepted_codec: Codec,
        result_codecs: dict[str, Codec],
        enriched_codec: Codec,
        partial_codec: Codec,
        dead_letters: DeadLetters,
        reader: PartitionReader,
        ends: EndOffsets,
        clock: Clock,
        windows: Windows,
        max_enriched_bytes: int,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._accepted_codec = accepted_codec
        self._result_codecs = result_codecs
        self._enriched_codec = enriched_codec
        self._partial_codec = partial_codec
        self._dead_letters = dead_letters
        self._reader = reader
        self._ends = ends
        self._clock = clock
        self._windows = windows
        self._max_enriched_bytes = max_enriched_bytes
        self._log = log
        metrics.start_at_zero(self.service, "join")
        self._joins: dict[int, PartitionJoin] = {}
        self._ledgers: Ledgers | None = None
        self._units: list[Unit] = []
        self._next_tick = 0.0

    # -- the loop's side ---------------------------------------------------------------------

    def load(self, partition: int, starts: dict[str, Start]) -> Partials:
        """Read back the partial records that are open."""
        partials: Partials = {}
        try:
            # An emission cannot wait for the registry: what encodes it is known beforehand.
            self._enriched_codec.prepare()
            self._partial_codec.prepare()
            self._dead_letters.prepare()
            for record in self._reader.read_tail(PARTIAL, partition, None, None):
                self._restore(partials, record)
        except RegistryUnavailable as error:
            raise Unavailable(str(error)) from error
        return partials

    def open(self, partition: int, ledgers: Ledgers, loaded: Partials) -> None:
        self._ledgers = ledgers
        join = PartitionJoin(
            partition,
            self._windows,
            lambda offset: ledgers.is_ahead(ACCEPTED, partition, offset),
            lambda: ledgers.position(ACCEPTED, partition),
        )
        for record, headers in loaded.values():
            join.restore_partial(record, headers)
        self._joins[partition] = join

    def _restore(self, partials: Partials, record: Record) -> None:
        review_id = (record.key or b"").decode()
        if record.value is None:
            partials.pop(review_id, None)
            return
        published = self._partial_codec.decode(record.value)["enriched"]
        partials[review_id] = self._enriched_codec.decode(published), kept(record.headers)

    def close(self, partition: int) -> None:
        self._joins.pop(partition, None)
        self._ends.forget(partition)
        self._units = [unit for unit in self._units if unit.partition != partition]

    def receive(self, record: Record) -> None:
        join = self._joins[record.partition]
        now = self._clock()
        try:
            if record.topic == ACCEPTED:
                accepted = self._accepted_codec.decode(record.value or b"")
                emissions = join.accepted(
                    record.offset,
                    {name: accepted[name] for name in ACCEPTED_FIELDS},
                    kept(record.headers),
                    record.header(REPLAY) is not None,
                    record.timestamp_ms / 1000,
                    now,
                )
            else:
                task = RESULT_TOPICS[record.topic]
                result = self._result_codecs[task].decode(record.value or b"")
                emissions = join.result(task, record.offset, result, now)
        except RegistryUnavailable as error:
            raise Unavailable(str(error)) from error
        except DecodeError as error:
            # Nobody but the mesh writes here; what came all the same must not stop the rest.
            outputs = self.set_aside(record, error.cause, str(error))
            self._units.append(Unit(record.partition, ((record.topic, record.offset),), outputs))
            return
        self._emit(record.partition, emissions)

    def set_aside(self, record: Record, cause: str, message: str) -> tuple[Output, ...]:
        return (self._dead_letters.output(record, "join", cause, message, 0, None),)

    def poll(self) -> Sequence[Unit]:
        now = self._clock()
        if now >= self._next_tick:
            self._next_tick = now + TICK_S
            for partition, join in self._joins.items():
                self._tick(partition, join, now)
            metrics.PARTIALS_OPEN.set(sum(join.open_partials for join in self._joins.values()))
        units, self._units = self._units, []
        return units

    def _tick(self, partition: int, join: PartitionJoin, now: float) -> None:
        assert self._ledgers is not None
        for topic, as_of in self._ends.reached(partition, self._ledgers.position):
            join.read_to_end(RESULT_TOPICS[topic], as_of)
        emissions, unproven = join.tick(now)
        for task in unproven:
            self._ends.ask(TOPIC_OF[task], partition)
        self._emit(partition, emissions)

    def blocks(self, topic: str, partition: int) -> bool:
        return self._joins[partition].blocks(topic, ROOM_IN_ALL // len(self._joins))

    def waiting_for(self) -> str:
        return ""

    def waits_for(self, partition: int) -> str:
        return self._joins[partition].waits_for() if partition in self._joins else ""

    def idle(self) -> bool:
        """What is pending is rebuilt by the next owner; a stop waits for nothing."""
        return not self._units

    def stop(self) -> None:
        """Nothing runs beside the loop."""

    # -- outputs -----------------------------------------------------------------------------

    def _emit(self, partition: int, emissions: list[Emission]) -> None:
        for emission in emissions:
            outputs = self._outputs(partition, emission)
            self._units.append(Unit(partition, emission.finished, outputs))

    def _outputs(self, partition: int, emission: Emission) -> tuple[Output, ...]:
        key = emission.review_id.encode()
        if emission.dropped_task is not None:
            metrics.LATE_RESULTS.labels(emission.dropped_task, "dropped").inc()
        outputs = []
        record = emission.enriched
        if record is not None:
            value = self._encode(record)
            outputs.append(Output(ENRICHED, partition, key, value, emission.headers))
            self._measure(record)
            if emission.partial == "write":
                partial = self._partial_codec.encode(
                    {
                        "review_id": record["review_id"],
                        "content_hash": record["content_hash"],
                        "accepted_offset": record["accepted_offset"],
                        "enriched": value,
                    }
                )
                outputs.append(Output(PARTIAL, partition, key, partial, emission.headers))
        if emission.partial == "erase":
            outputs.append(Output(PARTIAL, partition, key, None))
        return tuple(outputs)

    def _encode(self, record: dict[str, Any]) -> bytes:
        """An oversize record would poison its transaction: the lowest scores go first."""
        value = self._enriched_codec.encode(record)
        while len(value) > self._max_enriched_bytes and record["entities"]:
            ranked = sorted(record["entities"], key=lambda entity: -entity["score"])
            kept_entities = ranked[: len(ranked) // 2]
            self._log.warning(
                "enriched record too large: entities with the lowest scores left out",
                review_id=record["review_id"],
                left_out=len(ranked) - len(kept_entities),
            )
            record["entities"] = sorted(kept_entities, key=lambda entity: entity["start"])
            value = self._enriched_codec.encode(record)
        return value

    def _measure(self, record: dict[str, Any]) -> None:
        kind = "complete" if record["complete"] else "partial"
        metrics.ENRICHED.labels(kind).inc()
        origin = record["timings"]["origin_at"]
        if origin is not None and record["revision"] == 1:
            metrics.END_TO_END_SECONDS.observe(
                max(0.0, (record["timings"]["enriched_at"] - origin) / 1000)
            )


def kept(headers: Headers) -> Headers:
    return tuple((name, value) for name, value in headers if name in KEPT_HEADERS)
