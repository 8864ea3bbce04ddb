"""Raw records of made-up producers: sound, damaged, too large."""

from __future__ import annotations

import io
import itertools
import random
from collections import deque
from collections.abc import Iterator
from typing import Any

import fastavro

from bench.fuzz.schemas import FIRST_STRANGER, OUR_IDS, STRANGERS, TOPICS, Schemas
from reviewmesh.avro.codec import HEADER
from reviewmesh.kafka import record as names
from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.kafka.record import Headers, Record
from reviewmesh_schemas.names import ACCEPTED, RAW

PARTITIONS = TOPICS[ACCEPTED].partitions
RAW_PARTITIONS = PARTITIONS + 2
MIB = 1024 * 1024
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
