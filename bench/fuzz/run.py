"""Puts the records through intake, and checks that each has exactly one outcome."""

from __future__ import annotations

import io
import itertools
import resource
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import fastavro
import structlog

from bench.fuzz.records import PARTITIONS, RAW_PARTITIONS, Records
from bench.fuzz.schemas import TOPICS, Schemas
from reviewmesh.avro.codec import HEADER, Codec, load_schema
from reviewmesh.avro.topics import room_of
from reviewmesh.intake.stage import Contract, IntakeStage
from reviewmesh.kafka.record import Output, Record, Unit
from reviewmesh.loop.inputs import Inputs
from reviewmesh.loop.stage import Start
from reviewmesh.settings import IntakeSettings
from reviewmesh_schemas.names import ACCEPTED, DEAD_LETTER, RAW, REPLAYED

LONGEST_S = 5.0
IN_FLIGHT = 64
ANSWER_WITHIN_S = 30.0


class Failure(AssertionError):
    """Something that must not be, with the case that it was seen in."""


class NothingBefore:
    """Reads topics that are empty."""

    def read_tail(self, *_: object) -> Iterator[Record]:
        return iter(())


def build(schemas: Schemas) -> IntakeStage:
    codecs = {
        name: Codec(schemas, f"{name}-value", topic.schema, topic.max_message_bytes)  # type: ignore[arg-type]
        for name, topic in TOPICS.items()
    }
    contract = Contract(
        raw=codecs[RAW],
        accepted=codecs[ACCEPTED],
        replayed=codecs[REPLAYED],
        dead_letter=codecs[DEAD_LETTER],
        partitions=PARTITIONS,
        max_raw_bytes=room_of(TOPICS[RAW]),
        max_accepted_bytes=room_of(TOPICS[ACCEPTED]),
    )
    stage = IntakeStage(
        contract,
        NothingBefore(),  # type: ignore[arg-type]
        time.time,
        settings=IntakeSettings(dedupe_ids=1_000),
        log=structlog.get_logger(),
    )
    for partition in range(RAW_PARTITIONS):
        start = Start(RAW, 0, reset=False)
        stage.open(partition, Inputs(), stage.load(partition, {RAW: start}))
    return stage


@dataclass
class Checker:
    """Ticks each record off with its one outcome."""

    outcomes: Counter[str] = field(default_factory=Counter)
    open: dict[int, Record] = field(default_factory=dict)
    _readers: dict[str, Any] = field(default_factory=dict)

    def take(self, unit: Unit) -> None:
        ((_, offset),) = unit.finished
        record = self.open.pop(offset, None)
        if record is None:
            raise Failure(f"offset {offset} has two outcomes")
        if unit.partition != record.partition:
            raise Failure(f"offset {offset} is finished on partition {unit.partition}")
        kinds = [self._output(record, output) for output in unit.outputs]
        own = [kind for kind in kinds if kind != REPLAYED]
        if len(own) > 1:
            raise Failure(f"offset {offset} has the outcomes {own}")
        self.outcomes[own[0] if own else "dropped"] += 1

    def _output(self, record: Record, output: Output) -> str:
        topic = TOPICS[output.topic]
        if not 0 <= output.partition < PARTITIONS:
            raise Failure(f"offset {record.offset}: no partition {output.partition}")
        if output.size() > room_of(topic):
            raise Failure(f"offset {record.offset}: {output.size()} bytes on {output.topic}")
        if output.topic == RAW:
            if output.value != record.value or output.partition == record.partition:
                raise Failure(f"offset {record.offset} is not forwarded as it was")
            return "forwarded"
        decoded = self._read(output, topic.schema)
        if output.topic != DEAD_LETTER:
            return output.topic
        if decoded["cause"] == "UNREADABLE" or not decoded["message"]:
            raise Failure(f"offset {record.offset}: {decoded['cause']}: {decoded['message']}")
        if decoded["offset"] != record.offset or len(decoded["message"]) > 1_000:
            raise Failure(f"offset {record.offset}: {decoded['message'][:2_000]}")
        return str(decoded["cause"])

    def _read(self, output: Output, schema: str) -> Any:
        if schema not in self._readers:
            self._readers[schema] = fastavro.parse_schema(load_schema(schema))
        written = io.BytesIO((output.value or b"")[HEADER.size :])
        return fastavro.schemaless_reader(written, self._readers[schema], None)


@dataclass(frozen=True)
class Report:
    outcomes: dict[str, int]
    longest_s: float
    seconds: float
    peak_mib: float


def fuzz(cases: int, seed: int, tell_every: int = 0) -> Report:
    """Raises Failure; whatever else is raised is one, too."""
    schemas = Schemas(seed)
    stage, checker = build(schemas), Checker()
    began, longest = time.monotonic(), 0.0
    try:
        for record in itertools.islice(Records(seed, schemas), cases):
            checker.open[record.offset] = record
            # Of the processor: what else the machine does is no matter.
            before = time.thread_time()
            stage.receive(record)
            units = stage.poll()
            longest = max(longest, time.thread_time() - before)
            for unit in units:
                checker.take(unit)
            if len(checker.open) >= IN_FLIGHT:
                drain(stage, checker)
            if tell_every and record.offset % tell_every == 0:
                print(record.offset, dict(checker.outcomes), f"{longest:.3f} s", flush=True)
            if longest > LONGEST_S:
                raise Failure(f"offset {record.offset} took {longest:.1f} s")
        drain(stage, checker)
    finally:
        stage.stop()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Report(dict(checker.outcomes), longest, time.monotonic() - began, peak)


def drain(stage: IntakeStage, checker: Checker) -> None:
    """Until everything in flight has its outcome."""
    deadline = time.monotonic() + ANSWER_WITHIN_S
    while checker.open:
        for unit in stage.poll():
            checker.take(unit)
        if time.monotonic() > deadline:
            raise Failure(f"no outcome for the offsets {sorted(checker.open)[:10]}")
        time.sleep(0.0002)
