"""`python -m bench.fuzz --cases 1000000 --seed 1`: whatever strangers may write, through intake.

The stage, the codec and the dead letters are the real ones; the registry is in this process and
makes its schemas up. Every record must have exactly one outcome, in bounded time, whose outputs fit
their topics and are decoded by a reader that knows the logical types.
"""

from __future__ import annotations

import argparse
import copy
import functools
import io
import itertools
import json
import random
import resource
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import fastavro
import structlog

from reviewmesh.avro.codec import HEADER, Codec, load_schema, without_logical_types
from reviewmesh.avro.registry import UnknownSchemaId, UnusableSchema
from reviewmesh.avro.topics import load_topics, room_of
from reviewmesh.intake.stage import Contract, IntakeStage
from reviewmesh.kafka import record as names
from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.kafka.record import Headers, Output, Record, Unit
from reviewmesh.loop.inputs import Inputs
from reviewmesh.loop.stage import Start
from reviewmesh.settings import IntakeSettings
from reviewmesh_schemas.names import ACCEPTED, DEAD_LETTER, RAW, REPLAYED

TOPICS = {topic.name: topic for topic in load_topics().topics}
PARTITIONS = TOPICS[ACCEPTED].partitions
RAW_PARTITIONS = PARTITIONS + 2
OUR_IDS = {TOPICS[name].schema: number for number, name in enumerate(TOPICS, 1)}
FIRST_STRANGER = 100
STRANGERS = 5_000
KEPT_SCHEMAS = 500
LONGEST_S = 5.0
IN_FLIGHT = 64
ANSWER_WITHIN_S = 30.0
MIB = 1024 * 1024
PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
LOGICAL = (
    ("long", "timestamp-millis"),
    ("long", "timestamp-micros"),
    ("long", "timestamp-nanos"),
    ("long", "local-timestamp-micros"),
    ("int", "date"),
    ("int", "time-millis"),
    ("string", "uuid"),
    ("bytes", "decimal"),
    ("long", "acme-ticks"),
)
REVIEW = load_schema("review")
ODD_TEXTS = (
    "", " ", "\x00", "\u0301" * 50, "a" + "\u0301\u0316" * 2_000, "\U0001fae8", "\u200d\ufe0f",
    "\u202eabc\u202c", "\u0958" * 99, "\u1e94" * 99, "\ufeff", "Anna was great.",
    "é" * 600, "0" * 300, "\U000e0041" * 5, "\ud7ff\ue000\uffff", "[/b]\x9b", "{}",
)  # fmt: skip
ODD_NUMBERS = (
    0, 1, -1, 5, 17, 2**31 - 1, -(2**31), 2**62, 2**63 - 1, -(2**63), 1_700_000_000_000,
    1_700_000_000_000_000, 1_700_000_000_000_000_000, 253_402_300_799_999, 253_402_300_800_000,
)  # fmt: skip
# 2^50 as Avro writes a number: zigzag, seven bits a byte, the lowest first.
MANY_ITEMS = b"\x80" * 7 + b"\x04"
ODD_DOUBLES = (0.0, 1.0, 3.5, 5.0, 5.01, -1.0, float("nan"), float("inf"), 1e308)
HEADER_NAMES = (
    names.TRACEPARENT, names.ORIGIN_TIMESTAMP, names.REPLAY, names.REPLAY_OF, names.FORWARDED_FROM,
    names.FORWARDED_MAC, "x", "", "é" * 40,
)  # fmt: skip


class Failure(AssertionError):
    """Something that must not be, with the case that it was seen in."""


# -- schemas -----------------------------------------------------------------------------------


class Schemas:
    """Writers' schemas, each made up from its id alone."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made = functools.lru_cache(KEPT_SCHEMAS)(self._make)
        self._parsed = functools.lru_cache(KEPT_SCHEMAS)(self._parse)

    def refuses(self, schema_id: int) -> bool:
        return False

    def schema(self, schema_id: int) -> Any:
        made = self._made(schema_id)
        if isinstance(made, LookupError):
            raise made.with_traceback(None)
        return made

    def parsed(self, schema_id: int) -> Any:
        """For writing, where that is possible; else None."""
        return self._parsed(schema_id)

    def _make(self, schema_id: int) -> Any:
        for name, own in OUR_IDS.items():
            if own == schema_id:
                return load_schema(name)
        rng = random.Random(f"{self._seed}/{schema_id}")
        kind = rng.random()
        if schema_id >= FIRST_STRANGER + STRANGERS or kind < 0.1:
            return UnknownSchemaId(f"the registry knows no schema of id {schema_id}")
        if kind < 0.15:
            return UnusableSchema(f"schema id {schema_id} is one of type PROTOBUF")
        return odd_json(rng) if kind < 0.2 else stranger(rng)

    def _parse(self, schema_id: int) -> Any:
        try:
            return fastavro.parse_schema(without_logical_types(self.schema(schema_id)))
        except Exception:  # noqa: BLE001 - made up at random, many are no schema at all
            return None

    def id_of(self, subject: str, schema: dict[str, Any]) -> int:
        return next(OUR_IDS[name] for name in OUR_IDS if load_schema(name) == schema)


def stranger(rng: random.Random) -> Any:
    """Review, changed in up to four ways."""
    schema = copy.deepcopy(REVIEW)
    for number in range(rng.randrange(5)):
        fields = schema["fields"]
        way = rng.randrange(9)
        chosen = rng.choice(fields) if fields else {}
        if way == 0 and fields:
            fields.remove(chosen)
        elif way == 1 and fields:
            chosen["name"] = rng.choice(("body", "text", "review_id", "", "Text"))
        elif way == 2:
            rng.shuffle(fields)
        elif way == 3:
            schema["namespace"] = rng.choice(("acme", "", "a.b.c", 3))
        elif way == 4 and fields:
            chosen["type"] = nullable(rng, logical(rng))
            chosen.pop("default", None)
        elif way == 5 and fields:
            chosen["type"] = a_type(rng, 0)
        elif way == 6:
            fields.append({"name": f"odd{number}", "type": monster(rng)})
        else:
            fields.append({"name": f"extra{number}", "type": a_type(rng, 0), "default": None})
    return rng.choice((schema, schema, schema, schema, [schema], [schema, "null"]))


def logical(rng: random.Random) -> Any:
    kind, name = rng.choice(LOGICAL)
    return {"type": kind, "logicalType": name, "precision": 4, "scale": 2}


def nullable(rng: random.Random, schema: Any) -> Any:
    return ["null", schema] if rng.random() < 0.5 else schema


def a_type(rng: random.Random, depth: int) -> Any:
    way = rng.randrange(14 if depth < 4 else 8)
    name = f"T{rng.randrange(10**9)}"
    if way < 7:
        return rng.choice(PRIMITIVES)
    if way == 7:
        return logical(rng)
    if way == 8:
        return {"type": "array", "items": a_type(rng, depth + 1)}
    if way == 9:
        return {"type": "map", "values": a_type(rng, depth + 1)}
    if way == 10:
        return {"type": "enum", "name": name, "symbols": ["A", "B", "C"][: rng.randrange(4)]}
    if way == 11:
        return {"type": "fixed", "name": name, "size": rng.choice((0, 1, 16, 2**40, -1, "x"))}
    if way == 12:
        return [a_type(rng, depth + 1) for _ in range(rng.randrange(4))]
    inner = [{"name": f"f{n}", "type": a_type(rng, depth + 1)} for n in range(rng.randrange(4))]
    return {"type": "record", "name": name, "fields": inner}


def monster(rng: random.Random) -> Any:
    """What takes a reader without bounds long, or down."""
    way = rng.randrange(7)
    if way == 0:
        return {"type": "array", "items": rng.choice(("null", a_record("Nothing", [])))}
    if way == 1:
        return a_record("Node", [["null", "Node"]])
    if way == 2:
        return "reviewmesh.v1.Review"
    if way == 3:
        return "acme.Elsewhere"
    if way == 4:
        schema: Any = "null"
        for level in range(rng.choice((3, 12, 40))):
            again = schema["name"] if isinstance(schema, dict) else schema
            schema = a_record(f"Level{level}", [schema, again])
        return {"type": "array", "items": a_record("Item", ["int", schema])}
    if way == 5:
        schema = "string"
        for _ in range(rng.choice((20, 60, 900))):
            schema = {"type": "array", "items": schema}
        return schema
    return a_record("Wide", ["string"] * rng.choice((100, 5_000)))


def a_record(name: str, types: list[Any]) -> dict[str, Any]:
    fields = [{"name": f"f{number}", "type": kind} for number, kind in enumerate(types)]
    return {"type": "record", "name": name, "fields": fields}


def odd_json(rng: random.Random) -> Any:
    return rng.choice(
        (
            "string", "Review", 3, None, True, [], {}, [[]], {"type": "record"}, {"name": "Review"},
            {"type": "record", "name": "Review"}, {"type": "record", "name": "Review", "fields": 3},
            {"type": "record", "name": "Review", "fields": [3, None]}, {"type": {"type": []}},
            {"type": "record", "name": ["Review"], "fields": []},
            {"type": "enum", "name": "Review"},
            {"type": "record", "name": "Review", "fields": [{"name": "review_id"}]},
            {"type": "record", "name": "Review", "fields": [{"name": "text", "type": None}]},
        )
    )  # fmt: skip


# -- records -----------------------------------------------------------------------------------


def value_of(rng: random.Random, schema: Any, name: str = "") -> Any:
    """A value that may be written with the schema; raises where there is none."""
    if isinstance(schema, list):
        return value_of(rng, rng.choice(schema), name)
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind == "record":
        return {one["name"]: value_of(rng, one["type"], one["name"]) for one in schema["fields"]}
    if kind == "array":
        return [value_of(rng, schema["items"]) for _ in range(rng.randrange(3))]
    if kind == "map":
        return {a_text(rng)[:90]: value_of(rng, schema["values"]) for _ in range(rng.randrange(3))}
    if kind == "enum":
        return rng.choice(schema["symbols"])
    if kind == "fixed":
        return rng.randbytes(schema["size"] % 100)
    return _primitive(rng, kind, name)


def _primitive(rng: random.Random, kind: Any, name: str) -> Any:
    if kind == "null":
        return None
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "int":
        return max(-(2**31), min(2**31 - 1, rng.choice(ODD_NUMBERS)))
    if kind == "long":
        plausible = name == "created_at" and rng.random() < 0.8
        return rng.randrange(1_800_000_000_000) if plausible else rng.choice(ODD_NUMBERS)
    if kind in ("float", "double"):
        return rng.choice(ODD_DOUBLES) if rng.random() < 0.3 else float(rng.randrange(1, 6))
    if kind == "bytes":
        return rng.choice((b"", b"\xe9", b"plain", rng.randbytes(20)))
    if kind == "string":
        return f"r-{rng.randrange(300)}" if name == "review_id" else a_text(rng)
    raise ValueError(f"no value of {kind}")


def a_text(rng: random.Random) -> str:
    if rng.random() < 0.2:
        return rng.choice(ODD_TEXTS)
    return f"Number {rng.randrange(9)}, said Anna. " * rng.choice((1, 1, 2, 9))


def written(rng: random.Random, parsed: Any) -> bytes:
    """Bytes of the schema where it can be written with; any elsewhere."""
    if parsed is None:
        return rng.randbytes(rng.randrange(60))
    try:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, parsed, value_of(rng, parsed))
        return buffer.getvalue()
    except Exception:  # noqa: BLE001 - some have no value
        return rng.randbytes(rng.randrange(60))


def damaged(rng: random.Random, data: bytes) -> bytes:
    way = rng.randrange(7)
    at = rng.randrange(len(data) + 1)
    if way == 0:
        return data[:at]
    if way == 1:
        return data + rng.randbytes(rng.randrange(9))
    if way == 2:
        return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    if way == 3:
        return (
            data[:at]
            + rng.choice((b"\xff" * 10, b"\xfe\xff\xff\xff\x0f", b"\x80" * 40))
            + data[at:]
        )
    if way == 4:
        return rng.randbytes(rng.randrange(40))
    if way == 5:
        # Where an array or a map ends the record, it begins anew and has 2^50 items.
        return data[:-1] + MANY_ITEMS + rng.randbytes(rng.randrange(40))
    return data[:5] + b"\x02" * rng.choice((9, 900, 90_000))


def large(rng: random.Random) -> bytes:
    """Far beyond what the broker takes uncompressed, or just below it."""
    size = rng.choice((MIB - 99, MIB + 99, 9 * MIB, 20 * MIB))
    begin = rng.choice((b"", HEADER.pack(0, OUR_IDS["review"])))
    return begin + rng.choice((b"\x00", b"a", b"\x02")) * size


def headers_of(rng: random.Random) -> Headers:
    count = rng.choice((0, 0, 0, 1, 2, 4, 300 if rng.random() < 0.01 else 1))
    return tuple((rng.choice(HEADER_NAMES), _header(rng)) for _ in range(count))


def _header(rng: random.Random) -> bytes | None:
    return rng.choice(
        (
            None, b"", b"\xff\xfe", b"9" * 20, b"-5", b"9" * 5_000, b"1700000000000",
            b"reviews.raw/1/2", b"reviews.raw/99999999999/5", b"reviews.raw/1/" + b"9" * 30,
            b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"all", b"f" * 64,
            b"%d/%d" % (rng.randrange(7), rng.randrange(99)), b"x" * rng.choice((10, 70_000)),
        )
    )  # fmt: skip


class Records:
    """Raw records of every kind, the same for the same seed."""

    def __init__(self, seed: int, schemas: Schemas) -> None:
        self._rng = random.Random(seed)
        self._schemas = schemas
        self._recent: deque[bytes | None] = deque(maxlen=20)

    def __iter__(self) -> Iterator[Record]:
        for offset in itertools.count():
            yield self._record(offset)

    def _record(self, offset: int) -> Record:
        rng = self._rng
        again = bool(self._recent) and rng.random() < 0.1
        value = rng.choice(self._recent) if again else self._value()
        self._recent.append(value)
        key = rng.choice((None, b"", b"k", rng.randbytes(9)))
        headers = headers_of(rng)
        if rng.random() < 0.0002:
            key, headers = b"k" * 9 * MIB, (*headers, ("h", b"h" * rng.choice((MIB, 9 * MIB))))
        timestamp = rng.choice(ODD_NUMBERS)
        return Record(RAW, self._partition(value), offset, key, value, headers, timestamp)

    def _partition(self, value: bytes | None) -> int:
        """Mostly that of the id, which is what a record needs to be accepted."""
        if value and value[: HEADER.size] == HEADER.pack(0, OUR_IDS["review"]):
            length = value[HEADER.size] >> 1 if len(value) > HEADER.size else 0
            review_id = value[HEADER.size + 1 :][:length]
            if self._rng.random() < 0.9:
                return partition_of(review_id, PARTITIONS)
        return self._rng.randrange(RAW_PARTITIONS)

    def _value(self) -> bytes | None:
        rng = self._rng
        kind = rng.random()
        if kind < 0.01:
            return None
        if kind < 0.0102:
            return large(rng)
        if kind < 0.02:
            return rng.randbytes(rng.randrange(40))
        schema_id = OUR_IDS["review"]
        if kind > 0.5:
            hot = rng.random() < 0.7
            schema_id = FIRST_STRANGER + rng.randrange(60 if hot else STRANGERS + 1_000)
        value = HEADER.pack(0, schema_id) + written(rng, self._schemas.parsed(schema_id))
        return damaged(rng, value) if rng.random() < 0.25 else value


# -- the stage and what must hold --------------------------------------------------------------


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


def main() -> int:
    parser = argparse.ArgumentParser(description="Whatever strangers may write, through intake.")
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    report = fuzz(arguments.cases, arguments.seed, tell_every=50_000)
    print(json.dumps(report.__dict__, indent=2))
    return 0 if sum(report.outcomes.values()) == arguments.cases else 1


if __name__ == "__main__":
    sys.exit(main())
