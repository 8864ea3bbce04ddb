"""Intake inside the loop: accepts, forwards, drops or dead-letters raw records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from reviewmesh import metrics
from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.clock import Clock, milliseconds
from reviewmesh.intake.dedupe import Dedupe
from reviewmesh.intake.erasure import erasing
from reviewmesh.intake.judged import IntakeResets, Judged, is_copy
from reviewmesh.intake.lookups import Lookups
from reviewmesh.intake.normalise import Refused, normalise, review_id_of
from reviewmesh.intake.provenance import Provenance
from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.kafka.reader import PartitionReader
from reviewmesh.kafka.record import (
    FORWARDED_FROM,
    ORIGIN_TIMESTAMP,
    REPLAY,
    TRACEPARENT,
    Output,
    Record,
    Unavailable,
    Unit,
)
from reviewmesh.kafka.tracing import new_traceparent, valid_traceparent
from reviewmesh.loop.deadletter import UNREADABLE, DeadLetters
from reviewmesh.loop.erasures import Erasures, on_dropped
from reviewmesh.loop.replays import Replays, first_refused_ms
from reviewmesh.loop.stage import Ledgers, Start
from reviewmesh.settings import IntakeSettings
from reviewmesh_schemas.names import ACCEPTED, RAW, REPLAYED

# Transaction markers take offsets too, about one per transaction of intake.
OFFSETS_PER_ID = 2


@dataclass(frozen=True, slots=True)
class Contract:
    """The codecs of the mesh's own topics, and what these topics can take."""

    raw: Codec
    accepted: Codec
    replayed: Codec
    dead_letter: Codec
    partitions: int
    max_raw_bytes: int
    max_accepted_bytes: int


@dataclass(slots=True)
class Memory:
    """The state of a partition."""

    dedupe: Dedupe
    replays: Replays
    erasures: Erasures
    # Only while records are read again because of an operator's reset.
    judged: Judged | None


class IntakeStage:
    """Processes records in order; each is finished as soon as it is received."""

    service = "intake"
    topics: tuple[str, ...] = (RAW,)
    # Reviews lost with the topic and published again must not count as duplicates.
    state_topics: tuple[str, ...] = (ACCEPTED,)
    max_in_flight = 5_000
    max_window = 20_000

    def __init__(
        self,
        contract: Contract,
        reader: PartitionReader,
        clock: Clock,
        settings: IntakeSettings,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._dead_letters = DeadLetters(contract.dead_letter, clock)
        self._resets = IntakeResets(
            reader,
            contract.accepted,
            contract.dead_letter,
            partitions=contract.partitions,
            log=log,
        )
        self._reader = reader
        self._clock = clock
        self._contract = contract
        self._window_ms = milliseconds(settings.dedupe_window_s)
        self._dedupe_ids = settings.dedupe_ids
        self._drop_attributes = frozenset(settings.drop_attributes)
        secret = settings.forwarding_secret
        self._provenance = Provenance(RAW, secret.get_secret_value().encode() if secret else None)
        self._log = log
        metrics.start_at_zero(self.service, "intake", self.topics)
        self._memories: dict[int, Memory] = {}
        self._lookups = Lookups(contract.raw)
        self._units: list[Unit] = []

    # -- the loop's side ---------------------------------------------------------------------

    def load(self, partition: int, starts: dict[str, Start]) -> Memory:
        """Rebuild the partition's memory from its accepted reviews and replay marks."""
        home = partition % self._contract.partitions
        replays = Replays(self.service, home, self._contract.replayed, self._clock)
        erasures = Erasures(self._contract.replayed)
        dedupe = Dedupe(self._window_ms, self._dedupe_ids)
        try:
            self._dead_letters.prepare()
            self._contract.accepted.prepare()
            self._contract.raw.prepare()
            self._contract.replayed.prepare()
            judged = self._resets.mend(partition, starts)
            for record in self._reader.read_tail(REPLAYED, home, None, None):
                replays.restore(record)
                erasures.restore(record)
            # The raw topic may have more partitions than the others: their records are all
            # forwarded.
            if partition == home:
                self._remember(partition, dedupe)
        except RegistryUnavailable as error:
            raise Unavailable(str(error)) from error
        return Memory(dedupe, replays, erasures, judged)

    def open(self, partition: int, ledgers: Ledgers, loaded: Memory) -> None:
        self._memories[partition] = loaded

    def close(self, partition: int) -> None:
        self._memories.pop(partition, None)
        self._lookups.drop(partition)
        self._units = [unit for unit in self._units if unit.partition != partition]

    def receive(self, record: Record) -> None:
        if self._lookups.keeps(record):
            return
        try:
            self._units.append(self._take(record))
        except RegistryUnavailable as error:
            raise Unavailable(str(error)) from error

    def set_aside(self, record: Record, cause: str, message: str) -> tuple[Output, ...]:
        memory = self._memories[record.partition]
        judged = memory.judged
        if judged is not None and judged.covers(record) and judged.was_settled(record):
            return ()
        return (self._refuse(record, None, cause, message), *memory.replays.mark_of(record))

    def poll(self) -> Sequence[Unit]:
        self._lookups.work_off(self._take_late)
        units, self._units = self._units, []
        return units

    def transaction_outputs(self, units: Sequence[Unit]) -> Sequence[Output]:
        return ()

    def blocks(self, topic: str, partition: int) -> bool:
        return self._lookups.is_full(partition)

    def waiting_for(self) -> str:
        return self._lookups.waiting_for()

    def waits_for(self, topic: str, partition: int) -> str:
        return self._lookups.waits_for(partition)

    def idle(self) -> bool:
        return not self._units

    def stop(self) -> None:
        self._lookups.stop()

    # -- memory ------------------------------------------------------------------------------

    def _remember(self, partition: int, dedupe: Dedupe) -> None:
        now = milliseconds(self._clock())
        since = now - self._window_ms
        at_most = self._dedupe_ids * OFFSETS_PER_ID
        foreign = 0
        for record in self._reader.read_tail(ACCEPTED, partition, since, at_most):
            try:
                accepted = self._contract.accepted.decode_ours(record.value or b"")
            except DecodeError as error:
                foreign += 1
                if foreign == 1:
                    self._log.warning(
                        "not used for deduplication: a record that intake did not write",
                        topic=ACCEPTED,
                        partition=partition,
                        offset=record.offset,
                        reason=str(error),
                    )
                continue
            dedupe.accepted(
                accepted["review_id"],
                accepted["content_hash"],
                accepted["acceptance"],
                accepted["accepted_at"] or record.timestamp_ms,
                now,
            )
        if foreign > 1:
            self._log.warning(
                "records that intake did not write",
                count=foreign,
                topic=ACCEPTED,
                partition=partition,
            )

    # -- judging -----------------------------------------------------------------------------

    def _take_late(self, record: Record) -> None:
        """Process a record that waited; as in the loop, an exception costs this record only."""
        try:
            unit = self._take(record)
        except RegistryUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - it costs this record only
            self._log.exception(
                "the stage raised an error on a record: it becomes a dead letter",
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
            )
            metrics.SET_ASIDE.labels(self.service, "raised").inc()
            message = f"{type(error).__name__}: {error}"
            unit = _unit(record, *self.set_aside(record, UNREADABLE, message))
        self._units.append(unit)

    def _take(self, record: Record) -> Unit:
        memory = self._memories[record.partition]
        if memory.replays.is_duplicate(record):
            return _unit(record, counted=memory.replays.on_dropped(record))
        if self._comes_again(record, memory):
            return _unit(record, counted=metrics.NOT_REPEATED.labels(self.service, "judged").inc)
        unit = self._judge(record)
        if any(output.topic == RAW for output in unit.outputs):
            return unit
        memory.replays.take(record)
        return unit._replace(outputs=unit.outputs + memory.replays.marks(unit.finished))

    def _comes_again(self, record: Record, memory: Memory) -> bool:
        """Whether it was processed before an operator's reset."""
        judged = memory.judged
        if judged is None or not judged.covers(record):
            memory.judged = None
            return False
        if judged.was_settled(record):
            return True
        origin_ms = self._provenance.coordinates(record).timestamp_ms
        was_accepted = judged.was_accepted(record, origin_ms)
        try:
            review = self._content(record)
        except (DecodeError, Refused):
            return was_accepted
        content = review["review_id"], review["content_hash"]
        was_accepted = was_accepted or judged.was_accepted_as_copy(record, *content, origin_ms)
        was_dropped = record.header(REPLAY) is None and judged.was_dropped(*content)
        judged.passed(*content, record.offset)
        return was_accepted or was_dropped

    def _judge(self, record: Record) -> Unit:
        review: dict[str, Any] = {}
        try:
            if record.value is None:
                review = erasing(record.key)
            else:
                review = self._contract.raw.decode(record.value)
            key = review_id_of(review)
            home = partition_of(key.encode(), self._contract.partitions)
            if home != record.partition:
                return _unit(record, self._forward(record, key, home))
            if record.value is None:
                return self._erase(record, review)
            refused_ms = first_refused_ms(record)
            erasures = self._memories[record.partition].erasures
            if refused_ms is not None and erasures.covers_letter(key, refused_ms):
                return _unit(record, counted=on_dropped(self.service))
            return self._accept(record, normalise(review, self._drop_attributes))
        except DecodeError as error:
            return _unit(record, self._refuse(record, None, error.cause, str(error)))
        except Refused as refused:
            review_id = review.get("review_id")
            return _unit(record, self._refuse(record, review_id, refused.cause, str(refused)))

    def _content(self, record: Record) -> dict[str, Any]:
        """The version that the record asks for. Raises DecodeError or Refused."""
        if record.value is None:
            return erasing(record.key)
        return normalise(self._contract.raw.decode(record.value), self._drop_attributes)

    def _refuse(self, record: Record, review_id: str | None, cause: str, message: str) -> Output:
        return self._dead_letters.output(
            record, "intake", cause=cause, message=message, attempts=0, review_id=review_id
        )

    def _forward(self, record: Record, review_id: str, home: int) -> Output:
        forwarded = Output(
            topic=RAW,
            partition=home,
            key=review_id.encode(),
            value=record.value,
            headers=self._provenance.forwarded(record),
            committed=metrics.FORWARDED.inc,
        )
        self._check_size(forwarded, self._contract.max_raw_bytes, "its headers or attributes")
        return forwarded

    def _erase(self, record: Record, erasure: dict[str, Any]) -> Unit:
        memory = self._memories[record.partition]
        review_id = erasure["review_id"]
        now = milliseconds(self._clock())
        # Every version before it was accepted before it, also by a replica whose clock is ahead.
        erased_at = max(now, memory.dedupe.accepted_ms(review_id))
        memory.erasures.take(review_id, erased_at)
        mark = memory.erasures.mark(record, record.partition, review_id)
        if memory.dedupe.is_duplicate(review_id, erasure["content_hash"], now):
            return _unit(record, mark, counted=metrics.DUPLICATES.inc)
        output = self._accepted(record, {**erasure, "erased_at": erased_at}, erased_at)
        return _unit(record, output, mark, counted=metrics.ERASED.inc)

    def _accept(self, record: Record, accepted: dict[str, Any]) -> Unit:
        memory = self._memories[record.partition]
        review_id, content_hash = accepted["review_id"], accepted["content_hash"]
        # A version after an erasure is accepted after it.
        now = max(milliseconds(self._clock()), memory.erasures.erased_at(review_id) + 1)
        is_duplicate = memory.dedupe.is_duplicate(review_id, content_hash, now)
        if record.header(REPLAY) is None and is_duplicate:
            return _unit(record, counted=metrics.DUPLICATES.inc)
        return _unit(record, self._accepted(record, accepted, now))

    def _accepted(self, record: Record, accepted: dict[str, Any], now: int) -> Output:
        dedupe = self._memories[record.partition].dedupe
        review_id, content_hash = accepted["review_id"], accepted["content_hash"]
        origin = self._provenance.coordinates(record)
        acceptance = dedupe.acceptance(review_id, content_hash)
        value = self._contract.accepted.encode(
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
        headers = (
            (
                TRACEPARENT,
                valid_traceparent(record.header(TRACEPARENT)) or new_traceparent(),
            ),
            (ORIGIN_TIMESTAMP, str(origin.timestamp_ms).encode()),
            # As a reset finds it, also once the copy is deleted.
            *(((FORWARDED_FROM, record.header(FORWARDED_FROM)),) if is_copy(record) else ()),
        )
        output = Output(
            topic=ACCEPTED,
            partition=record.partition,
            key=review_id.encode(),
            value=value,
            headers=headers,
        )
        self._check_size(output, self._contract.max_accepted_bytes, "its attributes")
        dedupe.accepted(review_id, content_hash, acceptance, now, milliseconds(self._clock()))
        return output

    @staticmethod
    def _check_size(output: Output, at_most: int, what: str) -> None:
        if output.size() > at_most:
            raise Refused(
                "OVERSIZE",
                f"expected a record of at most {at_most:,} bytes on {output.topic}, got "
                f"{output.size():,}; shorten {what}",
            )


def _unit(record: Record, *outputs: Output, counted: Callable[[], None] | None = None) -> Unit:
    return Unit(record.partition, ((RAW, record.offset),), outputs, counted)
