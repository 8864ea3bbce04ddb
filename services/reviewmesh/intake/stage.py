"""Intake inside the loop: a raw record is accepted, forwarded, dropped or a dead letter."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from reviewmesh.intake.dedupe import Dedupe
from reviewmesh.intake.judged import Judged, Resets
from reviewmesh.intake.normalise import Refused, normalise, review_id_of
from reviewmesh.runtime import metrics
from reviewmesh.runtime.clock import Clock, milliseconds
from reviewmesh.runtime.codec import Codec, DecodeError
from reviewmesh.runtime.deadletter import DeadLetters
from reviewmesh.runtime.partitioning import partition_of
from reviewmesh.runtime.reader import PartitionReader
from reviewmesh.runtime.record import (
    FORWARDED_FROM,
    ORIGIN_TIMESTAMP,
    REPLAY,
    TRACEPARENT,
    Output,
    Record,
    Unavailable,
    Unit,
)
from reviewmesh.runtime.registry import RegistryUnavailable
from reviewmesh.runtime.replays import REPLAYED, Replays
from reviewmesh.runtime.stage import Ledgers, Start
from reviewmesh.runtime.tracing import new_traceparent

RAW = "reviews.raw"
ACCEPTED = "reviews.accepted"
# Offsets have gaps of transaction markers, about one for each transaction of intake.
OFFSETS_PER_ID = 2


@dataclass(frozen=True, slots=True)
class Coordinates:
    """Where the producer's own record lies, also after forwarding."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


def coordinates(record: Record) -> Coordinates:
    origin = record.header(ORIGIN_TIMESTAMP)
    timestamp = int(origin) if origin and origin.isdigit() else record.timestamp_ms
    forwarded = (record.header(FORWARDED_FROM) or b"").decode("ascii", "replace").split("/")
    if len(forwarded) == 3 and forwarded[1].isdigit() and forwarded[2].isdigit():
        return Coordinates(forwarded[0], int(forwarded[1]), int(forwarded[2]), timestamp)
    return Coordinates(record.topic, record.partition, record.offset, timestamp)


@dataclass(slots=True)
class Memory:
    """What a partition is judged by, beside the record itself."""

    dedupe: Dedupe
    replays: Replays
    # Only while an operator's reset makes records come again.
    judged: Judged | None


class IntakeStage:
    """Judges records in their order; everything is finished as soon as it was received."""

    service = "intake"
    topics: tuple[str, ...] = (RAW,)
    max_in_flight = 5_000
    max_window = 20_000

    def __init__(
        self,
        review_codec: Codec,
        accepted_codec: Codec,
        replayed_codec: Codec,
        dead_letters: DeadLetters,
        resets: Resets,
        reader: PartitionReader,
        clock: Clock,
        partitions: int,
        max_accepted_bytes: int,
        dedupe_window_s: float,
        dedupe_ids: int,
        drop_attributes: Collection[str],
    ) -> None:
        self._review_codec = review_codec
        self._accepted_codec = accepted_codec
        self._replayed_codec = replayed_codec
        self._dead_letters = dead_letters
        self._resets = resets
        self._reader = reader
        self._clock = clock
        self._partitions = partitions
        self._max_accepted_bytes = max_accepted_bytes
        self._window_ms = milliseconds(dedupe_window_s)
        self._dedupe_ids = dedupe_ids
        self._drop_attributes = frozenset(drop_attributes)
        metrics.start_at_zero(self.service, "intake")
        self._memories: dict[int, Memory] = {}
        self._units: list[Unit] = []

    # -- the loop's side ---------------------------------------------------------------------

    def load(self, partition: int, starts: dict[str, Start]) -> Memory:
        """Rebuild the partition's memory from what it has accepted, and from its marks."""
        home = partition % self._partitions
        replays = Replays(self.service, home, self._replayed_codec, self._clock)
        dedupe = Dedupe(self._window_ms, self._dedupe_ids)
        since = milliseconds(self._clock()) - self._window_ms
        try:
            self._dead_letters.prepare()
            self._replayed_codec.prepare()
            judged = self._resets.mend(partition, starts)
            for record in self._reader.read_tail(REPLAYED, home, None, None):
                replays.restore(record)
            for record in self._reader.read_tail(
                ACCEPTED, partition, since, self._dedupe_ids * OFFSETS_PER_ID
            ):
                accepted = self._accepted_codec.decode(record.value or b"")
                dedupe.accepted(
                    accepted["review_id"],
                    accepted["content_hash"],
                    accepted["acceptance"],
                    accepted["accepted_at"] or record.timestamp_ms,
                )
        except RegistryUnavailable as error:
            raise Unavailable(str(error)) from error
        return Memory(dedupe, replays, judged)

    def open(self, partition: int, ledgers: Ledgers, loaded: Memory) -> None:
        self._memories[partition] = loaded

    def close(self, partition: int) -> None:
        self._memories.pop(partition, None)
        self._units = [unit for unit in self._units if unit.partition != partition]

    def receive(self, record: Record) -> None:
        memory = self._memories[record.partition]
        finished = ((RAW, record.offset),)
        if memory.replays.is_doubled(record):
            counted = metrics.REPLAYS_DROPPED.labels(self.service).inc
            self._units.append(Unit(record.partition, finished, (), counted))
            return
        try:
            if self._comes_again(record, memory):
                counted = metrics.NOT_REPEATED.labels(self.service, "judged").inc
                self._units.append(Unit(record.partition, finished, (), counted))
                return
            outputs = self._judge(record)
        except RegistryUnavailable as error:
            raise Unavailable(str(error)) from error
        if not any(output.topic == RAW for output in outputs):
            memory.replays.take(record)
            outputs += memory.replays.marks(finished)
        self._units.append(Unit(record.partition, finished, outputs))

    def _comes_again(self, record: Record, memory: Memory) -> bool:
        """Whether it was judged before an operator's reset."""
        judged = memory.judged
        if judged is None or not judged.covers(record):
            memory.judged = None
            return False
        if judged.was_settled(record):
            return True
        origin = coordinates(record)
        was_accepted = judged.was_accepted(origin.partition, origin.offset)
        try:
            decoded = self._review_codec.decode(record.value or b"")
            review = normalise(decoded, self._drop_attributes)
        except (DecodeError, Refused):
            return was_accepted
        content = review["review_id"], review["content_hash"]
        was_dropped = record.header(REPLAY) is None and judged.was_dropped(*content)
        judged.passed(*content)
        return was_accepted or was_dropped

    def set_aside(self, record: Record, cause: str, message: str) -> tuple[Output, ...]:
        mark = self._memories[record.partition].replays.mark_of(record)
        return (*self._refuse(record, None, cause, message), *mark)

    def poll(self) -> Sequence[Unit]:
        units, self._units = self._units, []
        return units

    def blocks(self, topic: str, partition: int) -> bool:
        return False

    def waiting_for(self) -> str:
        return ""

    def waits_for(self, partition: int) -> str:
        return ""

    def idle(self) -> bool:
        return not self._units

    def stop(self) -> None:
        """Nothing runs beside the loop."""

    # -- judging -----------------------------------------------------------------------------

    def _judge(self, record: Record) -> tuple[Output, ...]:
        review: dict[str, Any] = {}
        try:
            if record.value is None:
                raise Refused(
                    "TOMBSTONE", "expected a review, got a tombstone; the mesh erases nothing here"
                )
            review = self._review_codec.decode(record.value)
            home = partition_of(review_id_of(review).encode(), self._partitions)
            if home != record.partition:
                return (self._forward(record, review["review_id"], home),)
            return self._accept(record, normalise(review, self._drop_attributes))
        except DecodeError as error:
            return self._refuse(record, None, error.cause, str(error))
        except Refused as refused:
            return self._refuse(record, review.get("review_id"), refused.cause, str(refused))

    def _refuse(
        self, record: Record, review_id: str | None, cause: str, message: str
    ) -> tuple[Output, ...]:
        return (self._dead_letters.output(record, "intake", cause, message, 0, review_id),)

    def _forward(self, record: Record, review_id: str, home: int) -> Output:
        metrics.FORWARDED.inc()
        origin = coordinates(record)
        headers = [
            (name, value)
            for name, value in record.headers
            if name not in (FORWARDED_FROM, ORIGIN_TIMESTAMP)
        ]
        came_from = f"{origin.topic}/{origin.partition}/{origin.offset}"
        headers.append((FORWARDED_FROM, came_from.encode()))
        headers.append((ORIGIN_TIMESTAMP, str(origin.timestamp_ms).encode()))
        return Output(RAW, home, review_id.encode(), record.value, tuple(headers))

    def _accept(self, record: Record, accepted: dict[str, Any]) -> tuple[Output, ...]:
        now = milliseconds(self._clock())
        dedupe = self._memories[record.partition].dedupe
        review_id, content_hash = accepted["review_id"], accepted["content_hash"]
        if record.header(REPLAY) is None and dedupe.is_duplicate(review_id, content_hash, now):
            metrics.DUPLICATES.inc()
            return ()
        origin = coordinates(record)
        acceptance = dedupe.acceptance(review_id, content_hash)
        value = self._accepted_codec.encode(
            {
                **accepted,
                "accepted_at": now,
                "source_topic": origin.topic,
                "source_partition": origin.partition,
                "source_offset": origin.offset,
                "source_timestamp": origin.timestamp_ms,
                "acceptance": acceptance,
            }
        )
        if len(value) > self._max_accepted_bytes:
            raise Refused(
                "OVERSIZE",
                f"expected an accepted review of at most {self._max_accepted_bytes:,} bytes, got "
                f"{len(value):,}; shorten its title or attributes",
            )
        dedupe.accepted(review_id, content_hash, acceptance, now)
        headers = (
            (TRACEPARENT, record.header(TRACEPARENT) or new_traceparent()),
            (ORIGIN_TIMESTAMP, str(origin.timestamp_ms).encode()),
        )
        return (Output(ACCEPTED, record.partition, review_id.encode(), value, headers),)
