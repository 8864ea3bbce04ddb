"""What strangers write to reviews.raw costs that one record: real intake, broker and registry."""

from __future__ import annotations

import copy
import io
import json
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import httpx
import pytest

from reviewmesh.avro.codec import load_schema, without_logical_types
from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.kafka.record import FORWARDED_FROM, ORIGIN_TIMESTAMP
from tests import odd_headers
from tests.broker import TestStack
from tests.mesh import PARTITIONS, Mesh, Process, review

REVIEW = load_schema("review")
MIB = 1024 * 1024
REVIEW_ID = "stranger"
HOME = partition_of(REVIEW_ID.encode(), PARTITIONS)
GOOD_WITHIN_S = 20


@pytest.fixture(scope="module")
def mesh(stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """Intake alone."""
    folder: Path = tmp_path_factory.mktemp("strangers")
    with Mesh(stack, f"s{folder.parent.name[-4:]}.", folder) as mesh:
        mesh.apply_topics()
        mesh.add("intake").start()
        mesh.wait_ready()
        pulse = Pulse(mesh.processes["intake"])
        pulse.start()
        try:
            yield mesh
        finally:
            pulse.end()
    print(f"slowest /healthz {pulse.slowest_s:.2f} s of {pulse.asked}")
    assert pulse.failed == 0


class Pulse(threading.Thread):
    """Asks /healthz all the time."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process
        self._ended = threading.Event()
        self.asked = self.failed = 0
        self.slowest_s = 0.0

    def run(self) -> None:
        while not self._ended.wait(0.05):
            began = time.monotonic()
            self.failed += self._process.get("/healthz")[0] != 200
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self.asked += 1

    def end(self) -> None:
        self._ended.set()
        self.join()


def register(mesh: Mesh, name: str, schema: Any, **more: Any) -> int:
    text = schema if isinstance(schema, str) else json.dumps(schema)
    url = f"{mesh.stack.registry_url}/subjects/{mesh.prefix}{name}-value/versions"
    answer = httpx.post(url, json={"schema": text, **more})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["id"])


def with_field(kind: Any) -> dict[str, Any]:
    schema = copy.deepcopy(REVIEW)
    schema["fields"].append({"name": "odd", "type": kind})
    return schema


def written(schema_id: int, more: bytes = b"", **fields: Any) -> bytes:
    blank = {field["name"]: None for field in REVIEW["fields"]}
    record = blank | {"review_id": REVIEW_ID, "text": "Fine.", "attributes": {}} | fields
    buffer = io.BytesIO()
    buffer.write(struct.pack(">bI", 0, schema_id))
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(without_logical_types(REVIEW)), record)
    return buffer.getvalue() + more


def long(number: int) -> bytes:
    """As Avro writes it."""
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, {"type": "long"}, number)
    return buffer.getvalue()


def nested(depth: int) -> Any:
    schema: Any = "string"
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


EMPTY = {"type": "record", "name": "Nothing", "fields": []}
NODE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}
JSON_SCHEMA = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}
PROTOBUF = 'syntax = "proto3"; message Review { string review_id = 1; }'
# By name: the schema, how it is registered, and what follows a Review's fields.
ODD_SCHEMAS: dict[str, tuple[Any, dict[str, Any], bytes]] = {
    "json": (JSON_SCHEMA, {"schemaType": "JSON"}, b""),
    "protobuf": (PROTOBUF, {"schemaType": "PROTOBUF"}, b""),
    "recursive": (with_field(NODE), {}, b"\x02" * 900_000),
    "deep": (with_field(nested(200)), {}, b"\x02" * 200),
    "nulls": (with_field({"type": "array", "items": "null"}), {}, long(2**40)),
    "nothings": (with_field({"type": "array", "items": EMPTY}), {}, long(2**40)),
    "union": ([EMPTY, REVIEW], {}, b""),
}


def assert_good_ones_pass(mesh: Mesh, tag: str) -> None:
    """On every partition."""
    good = [review(f"{tag}-{number}", f"{tag} {number}, said Anna.") for number in range(60)]
    wanted = {item["review_id"] for item in good}
    assert {partition_of(name.encode(), PARTITIONS) for name in wanted} == set(range(PARTITIONS))
    began = time.monotonic()
    mesh.publish(good)
    mesh.wait_for(
        lambda: wanted <= {item["review_id"] for item in mesh.read("reviews.accepted")},
        GOOD_WITHIN_S,
        "the good ones come out",
    )
    print(f"{tag}: good ones are out after {time.monotonic() - began:.1f} s")


def publish(mesh: Mesh, value: bytes | None, partition: int = HOME, **more: Any) -> None:
    producer = mesh.producer(
        **{"compression.type": "zstd", "message.max.bytes": "100000000"} | more.pop("options", {})
    )
    producer.produce(f"{mesh.prefix}reviews.raw", value, b"k", partition, **more)
    assert producer.flush(30) == 0


def causes(mesh: Mesh, tag: str, *, at_least: int) -> list[str]:
    """Of all dead letters so far, once there are that many and good ones passed behind them."""
    assert_good_ones_pass(mesh, tag)
    mesh.wait_for(lambda: len(mesh.dead_letters()) >= at_least, 20, "the dead letters")
    return [letter["cause"] for letter in mesh.dead_letters()]


@pytest.mark.parametrize("name", ODD_SCHEMAS)
def test_a_schema_that_cannot_be_read_with(mesh: Mesh, name: str) -> None:
    schema, more, behind = ODD_SCHEMAS[name]
    schema_id = register(mesh, name, schema, **more)
    already = len(mesh.dead_letters())
    for partition in range(PARTITIONS):
        publish(mesh, written(schema_id, behind), partition)
    found = causes(mesh, name, at_least=already + PARTITIONS)[already:]
    assert found == ["INVALID"] * PARTITIONS


def test_more_items_than_the_bytes_hold(mesh: Mesh) -> None:
    """Of a type that fastavro skips without looking whether it is there."""
    schema_id = register(mesh, "doubles", with_field({"type": "array", "items": "double"}))
    already = len(mesh.dead_letters())
    publish(mesh, written(schema_id, long(2**40)))
    assert causes(mesh, "doubles", at_least=already + 1)[already:] == ["MALFORMED"]


def test_a_schema_with_references(mesh: Mesh) -> None:
    register(mesh, "part", {"type": "record", "name": "acme.Part", "fields": []})
    reference = {"name": "acme.Part", "subject": f"{mesh.prefix}part-value", "version": 1}
    schema_id = register(mesh, "whole", with_field("acme.Part"), references=[reference])
    already = len(mesh.dead_letters())
    publish(mesh, written(schema_id))
    assert causes(mesh, "references", at_least=already + 1)[already:] == ["INVALID"]
    assert "refers to other subjects" in mesh.dead_letters()[-1]["message"]


def our_id(mesh: Mesh) -> int:
    return mesh.registry.id_of(f"{mesh.prefix}reviews.raw-value", REVIEW)


def test_headers_that_say_nothing(mesh: Mesh) -> None:
    value = written(our_id(mesh), text="With odd headers.")
    publish(
        mesh, value, headers=[(ORIGIN_TIMESTAMP, b"1" * 20), (FORWARDED_FROM, b"a/1/" + b"9" * 99)]
    )
    odd_headers.produce(
        mesh.stack.bootstrap_servers,
        f"{mesh.prefix}reviews.raw",
        HOME,
        b"k",
        written(our_id(mesh), text="With a name that is not UTF-8."),
        b"caf\xe9",
    )
    assert_good_ones_pass(mesh, "headers")
    texts = {item["text"] for item in mesh.read("reviews.accepted")}
    assert texts >= {"With odd headers.", "With a name that is not UTF-8."}
    assert "the name of one is not UTF-8" in mesh.processes["intake"].log.read_text()


@pytest.mark.parametrize("size", [20 * MIB, int(1.7 * MIB)])
@pytest.mark.parametrize("partition", [HOME, (HOME + 1) % PARTITIONS])
def test_a_record_that_compression_made_small(mesh: Mesh, size: int, partition: int) -> None:
    already = len(mesh.dead_letters())
    value = written(our_id(mesh), text="so good! " * (size // 9))
    publish(mesh, value, partition)
    found = causes(mesh, f"large-{size}-{partition}", at_least=already + 1)[already:]
    assert found == ["OVERSIZE"]
    letter = mesh.dead_letters()[-1]
    whole = letter["value_length"] is None
    assert whole == (size < 8 * MIB)
    assert value.startswith(letter["value"])


def test_marks_times_and_emoji(mesh: Mesh) -> None:
    already = len(mesh.dead_letters())
    schema_id = our_id(mesh)
    publish(mesh, written(schema_id, text="a" + "\u0301\u0316" * 49_000))
    publish(mesh, written(schema_id, created_at=2**62))
    publish(mesh, written(schema_id, text="\U0001fae8"), timestamp=2**62)
    found = causes(mesh, "marks", at_least=already + 2)[already:]
    # The joiners that go between 98,000 marks are too much for a text.
    assert found == ["OVERSIZE", "INVALID"]
    assert "\U0001fae8" in {item["text"] for item in mesh.read("reviews.accepted")}


def test_all_kinds_at_once_between_good_ones_on_every_partition(mesh: Mesh) -> None:
    ours = our_id(mesh)
    odd: list[tuple[bytes | None, list[tuple[str, bytes]]]] = [
        (written(register(mesh, f"all-{name}", schema, **more), behind), [])
        for name, (schema, more, behind) in ODD_SCHEMAS.items()
    ]
    odd += [
        (None, []),
        (b"", []),
        (written(1_000_000_000), []),
        (written(ours, text="a" + "\u0301\u0316" * 49_000), []),
        (written(ours, created_at=2**62), []),
        (written(ours, text="so good! " * (2 * MIB)), []),
        (written(ours, text="so good! " * (MIB // 5)), []),
        (written(ours)[:-3], []),
        (written(ours, b"more"), []),
        (b"k" * MIB, [(f"h{number}", b"v" * 900) for number in range(900)]),
    ]
    already = len(mesh.dead_letters())
    for number, (value, headers) in enumerate(odd):
        mesh.publish(
            review(f"between-{number}-{n}", f"Between {number} {n}, said Anna.") for n in range(20)
        )
        for partition in range(PARTITIONS):
            publish(mesh, value, partition, headers=headers)
    began = time.monotonic()
    wanted = {f"between-{number}-{n}" for number in range(len(odd)) for n in range(20)}
    mesh.wait_for(
        lambda: wanted <= {item["review_id"] for item in mesh.read("reviews.accepted")},
        GOOD_WITHIN_S,
        "the good ones between come out",
    )
    print(f"between: good ones are out {time.monotonic() - began:.1f} s after the last odd one")
    # A null value asks to erase the review of its key.
    letters = sum(value is not None for value, _ in odd) * PARTITIONS
    found = causes(mesh, "all", at_least=already + letters)[already:]
    assert len(found) == letters
    assert "UNREADABLE" not in found


def test_thousands_of_unknown_ids_leave_the_others_alone(mesh: Mesh) -> None:
    already = len(mesh.dead_letters())
    producer = mesh.producer()
    value = written(our_id(mesh))
    for number in range(2_000):
        unknown = struct.pack(">bI", 0, 1_000_000_000 + number) + value[5:]
        producer.produce(f"{mesh.prefix}reviews.raw", unknown, b"k", HOME)
    assert producer.flush(30) == 0
    elsewhere = next(n for n in range(99) if partition_of(f"calm-{n}".encode(), PARTITIONS) != HOME)
    mesh.publish([review(f"calm-{elsewhere}", "Calm, said Anna.")])
    mesh.wait_for(
        lambda: any(r["review_id"] == f"calm-{elsewhere}" for r in mesh.read("reviews.accepted")),
        GOOD_WITHIN_S,
        "another partition goes on",
    )
    assert len(mesh.dead_letters()) - already < 2_000
    mesh.wait_for(lambda: len(mesh.dead_letters()) == already + 2_000, 120, "a dead letter each")
    assert_good_ones_pass(mesh, "ids")
