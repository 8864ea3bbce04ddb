"""The joiner inside the loop: one PartitionJoin per partition, encoded into one transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from reviewmesh import metrics
from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.clock import Clock, is_over
from reviewmesh.join.ends import EndOffsets
from reviewmesh.join.enriched import ACCEPTED_FIELDS, fit, trace_reason
from reviewmesh.join.enrichers import EnricherLedgers
from reviewmesh.join.partials import OpenPartials
from reviewmesh.join.pipeline import PartitionJoin
from reviewmesh.join.published import Published
from reviewmesh.join.reprocessed import AnswerCodecs, NoAnswer, Reprocessed
from reviewmesh.join.resets import JoinerResets
from reviewmesh.join.state import Emission, JoinWindows, Partial
from reviewmesh.kafka.exemplars import NO_EXEMPLARS, Exemplar, Exemplars
from reviewmesh.kafka.reader import PartitionReader
from reviewmesh.kafka.record import (
    CAMPAIGN,
    REPLAY,
    TRACE_REASON,
    Output,
    Record,
    Unavailable,
    Unit,
    kept_headers,
)
from reviewmesh.kafka.topicids import is_another
from reviewmesh.loop.deadletter import DeadLetters
from reviewmesh.loop.erasures import Erasures, on_dropped
from reviewmesh.loop.replays import Replays, letter_of
from reviewmesh.loop.stage import Ledgers, Start
from reviewmesh_schemas.names import (
    ACCEPTED,
    ENRICHED,
    PARTIAL,
    REPLAYED,
    REPROCESSED,
    RESULT_OF,
    TASK_OF,
    TASKS,
)

TICK_S = 0.5
# Reviews that wait in a process, however many partitions: some 10 KB each with their results.
ROOM_IN_ALL = 4_000


@dataclass(frozen=True, slots=True)
class Loaded:
    """The state of a partition, as loaded."""

    partials: list[Partial]
    published_until: int
    published: Published | None
    replays: Replays
    erasures: Erasures


@dataclass(frozen=True, slots=True)
class JoinContract:
    """The codecs of the topics that the joiner reads and writes, and their largest records."""

    accepted: Codec
    # By task.
    results: dict[str, Codec]
    enriched: Codec
    partial: Codec
    replayed: Codec
    reprocessed: Codec
    max_accepted_bytes: int
    max_enriched_bytes: int


@dataclass(frozen=True, slots=True)
class Queries:
    """What the joiner asks the broker beside its own records."""

    reader: PartitionReader
    ends: EndOffsets
    enrichers: EnricherLedgers


class ForeignRecord(ValueError):
    """A record that decodes but was not written by the mesh."""


class JoinStage:
    service = "joiner"
    topics: tuple[str, ...] = (ACCEPTED, *TASK_OF, REPROCESSED)
    # None: open partial records and replays stay in memory if their topic is deleted.
    state_topics: tuple[str, ...] = ()
    # Results of one task wait here while an earlier one is missing: more than the enricher's window
    # of 8,000 offsets, where each result may have a transaction marker of its own.
    max_in_flight = 24_000
    max_window = 24_000

    def __init__(
        self,
        contract: JoinContract,
        queries: Queries,
        dead_letters: DeadLetters,
        windows: JoinWindows,
        clock: Clock,
        log: structlog.stdlib.BoundLogger,
        exemplars: Exemplars = NO_EXEMPLARS,
    ) -> None:
        self._contract = contract
        self._exemplars = exemplars
        self._reader = queries.reader
        self._ends = queries.ends
        self._enrichers = queries.enrichers
        self._answers = AnswerCodecs(contract.reprocessed, contract.enriched, contract.results)
        self._dead_letters = dead_letters
        self._windows = windows
        self._clock = clock
        self._log = log
        self._resets = JoinerResets(queries.reader, contract.enriched, log)
        metrics.start_at_zero(self.service, "join", self.topics)
        for task in TASKS:
            for outcome in ("published", "superseded", "failed", "unproven"):
                metrics.REPROCESSED.labels(task, outcome)
            for outcome in metrics.LATE_OUTCOMES:
                metrics.LATE_RESULTS.labels(task, outcome)
        self._joins: dict[int, PartitionJoin] = {}
        self._reprocessed: dict[int, Reprocessed] = {}
        self._replays: dict[int, Replays] = {}
        self._erasures: dict[int, Erasures] = {}
        self._ledgers: Ledgers | None = None
        self._units: list[Unit] = []
        self._next_tick = 0.0

    # -- the loop's side ---------------------------------------------------------------------

    def load(self, partition: int, starts: dict[str, Start]) -> Loaded:
        """Read the open partial records, and after a reset which reviews are published."""
        partials = OpenPartials(self._contract.partial, self._contract.enriched, self._log)
        try:
            # An emission cannot wait for the registry, so schema ids are fetched beforehand.
            self._contract.enriched.prepare()
            self._contract.partial.prepare()
            self._contract.replayed.prepare()
            self._dead_letters.prepare()
            published = self._resets.mend(partition, starts)
            for record in self._reader.read_tail(PARTIAL, partition, None, None):
                partials.take(record)
            replays = Replays(self.service, partition, self._contract.replayed, self._clock)
            erasures = Erasures(self._contract.replayed)
            for record in self._reader.read_tail(REPLAYED, partition, None, None):
                replays.restore(record)
                erasures.restore(record)
            published_until = self._reader.bounds(ENRICHED, partition)[1]
            late_window_s = self._windows.late_window_s
            opened = [
                Partial.of(enriched, kept_headers(headers), late_window_s)
                for enriched, headers in partials.records()
            ]
            return Loaded(opened, published_until, published, replays, erasures)
        except RegistryUnavailable as error:
            raise Unavailable(str(error)) from error

    def open(self, partition: int, ledgers: Ledgers, loaded: Loaded) -> None:
        self._ledgers = ledgers
        join = PartitionJoin(
            partition=partition,
            windows=self._windows,
            is_ahead=lambda offset: ledgers.is_ahead(ACCEPTED, partition, offset),
            position=lambda: ledgers.position(ACCEPTED, partition),
            published_until=loaded.published_until,
            published=loaded.published,
        )
        for item in loaded.partials:
            join.keep_partial(item)
        self._joins[partition] = join
        self._reprocessed[partition] = Reprocessed(
            self._reader, self._contract.enriched, partition, join
        )
        self._replays[partition] = loaded.replays
        self._erasures[partition] = loaded.erasures

    def close(self, partition: int) -> None:
        self._joins.pop(partition, None)
        self._reprocessed.pop(partition, None)
        self._replays.pop(partition, None)
        self._erasures.pop(partition, None)
        self._ends.forget(partition)
        self._enrichers.forget(partition)
        self._units = [unit for unit in self._units if unit.partition != partition]

    def receive(self, record: Record) -> None:
        replays = self._replays[record.partition]
        if replays.is_duplicate(record):
            finished = ((record.topic, record.offset),)
            counted = replays.on_dropped(record)
            self._units.append(Unit(record.partition, finished, (), counted))
            return
        replays.take(record)
        join = self._joins[record.partition]
        now = self._clock()
        try:
            if record.topic == ACCEPTED:
                accepted = self._accepted(record)
                if self._is_erased(record, accepted):
                    finished = ((record.topic, record.offset),)
                    marks = replays.marks(finished)
                    counted = on_dropped(self.service)
                    self._units.append(Unit(record.partition, finished, marks, counted))
                    return
                emissions = join.accepted(
                    offset=record.offset,
                    accepted=accepted,
                    headers=kept_headers(record.headers),
                    replayed=record.header(REPLAY) is not None,
                    appended_at=record.timestamp_ms / 1000,
                    now=now,
                )
            elif record.topic == REPROCESSED:
                again = self._answers.decode(record, kept_headers(record.headers, CAMPAIGN))
                emissions = self._reprocessed[record.partition].take(again, now)
            else:
                task = TASK_OF[record.topic]
                emissions = join.result(task, record.offset, self._result(record, task), now)
        except RegistryUnavailable as error:
            raise Unavailable(str(error)) from error
        except DecodeError as error:
            self._refuse(record, error.cause, str(error))
        except (ForeignRecord, NoAnswer) as error:
            self._refuse(record, "INVALID", str(error))
        else:
            self._emit(record.partition, emissions)

    def _accepted(self, record: Record) -> dict[str, Any]:
        value = record.value or b""
        at_most = self._contract.max_accepted_bytes
        if len(value) > at_most:
            raise ForeignRecord(
                f"expected an accepted review of at most {at_most:,} bytes, got {len(value):,}"
            )
        accepted = self._contract.accepted.decode_ours(value)
        return {name: accepted[name] for name in ACCEPTED_FIELDS}

    def _is_erased(self, record: Record, accepted: dict[str, Any]) -> bool:
        """Whether it is the replay of a version from before its review was erased."""
        erasures, review_id = self._erasures[record.partition], accepted["review_id"]
        if accepted["erased_at"] is not None:
            erasures.take(review_id, accepted["erased_at"])
            return False
        is_replay = letter_of(record) is not None
        return is_replay and erasures.covers(review_id, accepted["accepted_at"])

    def _result(self, record: Record, task: str) -> dict[str, Any]:
        result = self._contract.results[task].decode_ours(record.value or b"")
        if result["accepted_partition"] != record.partition or result["accepted_offset"] < 0:
            raise ForeignRecord(
                f"expected a result of a review in {ACCEPTED}/{record.partition}, got one of "
                f"{result['accepted_partition']}/{result['accepted_offset']}"
            )
        return result

    def _refuse(self, record: Record, cause: str, message: str) -> None:
        """Only the mesh writes here; a foreign record must not stop the partition."""
        outputs = self.set_aside(record, cause, message)
        self._units.append(Unit(record.partition, ((record.topic, record.offset),), outputs))

    def set_aside(self, record: Record, cause: str, message: str) -> tuple[Output, ...]:
        letter = self._dead_letters.output(
            record, "join", cause=cause, message=message, attempts=0, review_id=None
        )
        return (letter, *self._replays[record.partition].mark_of(record))

    def poll(self) -> Sequence[Unit]:
        now = self._clock()
        if is_over(self._next_tick, now, TICK_S):
            self._next_tick = now + TICK_S
            for partition, join in self._joins.items():
                self._tick(partition, join, now)
                self._emit(partition, self._reprocessed[partition].go_on(now))
            metrics.PARTIALS_OPEN.set(sum(join.open_partials for join in self._joins.values()))
        units, self._units = self._units, []
        return units

    def _tick(self, partition: int, join: PartitionJoin, now: float) -> None:
        assert self._ledgers is not None
        for topic, as_of in self._ends.reached(partition, self._ledgers.position):
            if topic == ACCEPTED:
                self._emit(partition, join.accepted_read_to_end())
            else:
                join.read_to_end(TASK_OF[topic], as_of)
        accepted_id = self._ledgers.topic_id(ACCEPTED, partition)
        for task, finished in self._enrichers.answers(partition):
            # Its commits may still be of the accepted topic that was deleted.
            if is_another(finished.topic_id, accepted_id):
                continue
            join.finished_by_enricher(task, finished.covers, now)
        emissions, questions = join.tick(now)
        for task in questions.ends:
            self._ends.ask(RESULT_OF[task], partition)
        for task in questions.ledgers:
            self._enrichers.ask(task, partition)
        if join.doubts_early():
            self._ends.ask(ACCEPTED, partition)
        self._emit(partition, emissions)

    def transaction_outputs(self, units: Sequence[Unit]) -> Sequence[Output]:
        return ()

    def blocks(self, topic: str, partition: int) -> bool:
        if topic == REPROCESSED:
            return self._reprocessed[partition].is_waiting
        return self._joins[partition].blocks(topic, ROOM_IN_ALL // len(self._joins))

    def waiting_for(self) -> str:
        return ""

    def waits_for(self, topic: str, partition: int) -> str:
        if partition not in self._joins:
            return ""
        if topic == REPROCESSED:
            waiting = self._reprocessed[partition].is_waiting
            return "what came since the campaign chose is read back" if waiting else ""
        return self._joins[partition].waits_for()

    def idle(self) -> bool:
        """Always, once units are committed: the next owner rebuilds what is pending."""
        return not self._units

    def stop(self) -> None:
        self._enrichers.stop()

    # -- outputs -----------------------------------------------------------------------------

    def _emit(self, partition: int, emissions: list[Emission]) -> None:
        for emission in emissions:
            marks = self._replays[partition].marks(emission.finished)
            outputs = (*self._outputs(partition, emission), *marks)
            committed = count_of(emission, self._exemplars)
            if emission.enriched is not None:
                revision = emission.enriched["revision"]
                self._reprocessed[partition].published(emission.review_id, revision)
                committed = partial(_committed, self._reprocessed[partition], revision, committed)
            self._units.append(Unit(partition, emission.finished, outputs, committed))

    def _outputs(self, partition: int, emission: Emission) -> tuple[Output, ...]:
        key = emission.review_id.encode()
        outputs = []
        record = emission.enriched
        if record is not None:
            value = self._encode(record)
            reason = trace_reason(record)
            marked = ((TRACE_REASON, reason.encode()),) if reason else ()
            outputs.append(
                Output(
                    topic=ENRICHED,
                    partition=partition,
                    key=key,
                    value=value,
                    headers=(*emission.headers, *marked),
                )
            )
            if emission.partial == "write":
                opened = self._contract.partial.encode(
                    {
                        "review_id": record["review_id"],
                        "content_hash": record["content_hash"],
                        "accepted_offset": record["accepted_offset"],
                        "enriched": value,
                    }
                )
                outputs.append(
                    Output(
                        topic=PARTIAL,
                        partition=partition,
                        key=key,
                        value=opened,
                        headers=emission.headers,
                    )
                )
        if emission.partial == "erase":
            outputs.append(Output(PARTIAL, partition, key, None))
        return tuple(outputs)

    def _encode(self, record: dict[str, Any]) -> bytes:
        """A record that is too large would abort its transaction every time."""
        value = self._contract.enriched.encode(record)
        if len(value) <= self._contract.max_enriched_bytes:
            return value
        smaller = fit(record, self._contract.max_enriched_bytes, self._contract.enriched.encode)
        self._log.warning(
            "enriched record too large: entities or topics with the lowest scores are left out",
            review_id=record["review_id"],
            bytes=len(value),
            kept_bytes=len(smaller),
        )
        return smaller


def _committed(reprocessed: Reprocessed, revision: int, count: Callable[[], None]) -> None:
    reprocessed.committed(revision)
    count()


def count_of(emission: Emission, exemplars: Exemplars) -> Callable[[], None]:
    """A callback that counts an emission once it is committed. Keeps no reference to the record."""
    record = emission.enriched
    kind, latency_ms, exemplar = "", None, None
    if record is not None:
        kind = "complete" if record["complete"] else "partial"
        origin = record["timings"]["origin_at"]
        if emission.is_first and origin is not None:
            latency_ms = record["timings"]["enriched_at"] - origin
            exemplar = exemplars.of(emission.headers, latency_ms, bool(trace_reason(record)))
    return partial(
        _count,
        kind,
        latency_ms,
        exemplar,
        emission.late,
        emission.not_repeated,
        emission.again,
    )


def _count(
    kind: str,
    latency_ms: int | None,
    exemplar: Exemplar | None,
    late: tuple[str, str] | None,
    not_repeated: str,
    again: tuple[str, str] | None,
) -> None:
    if kind:
        metrics.ENRICHED.labels(kind).inc()
    if latency_ms is not None:
        metrics.END_TO_END_SECONDS.observe(max(0.0, latency_ms / 1000), exemplar)
    if late is not None:
        metrics.LATE_RESULTS.labels(*late).inc()
    if not_repeated:
        metrics.NOT_REPEATED.labels("joiner", not_repeated).inc()
    if again is not None:
        metrics.REPROCESSED.labels(*again).inc()
