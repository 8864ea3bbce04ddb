"""Whatever strangers may write, through the whole mesh, and what programs of others read of it.

`REVIEWMESH_FUZZ_RECORDS=100000` writes as many records.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]

from bench.fuzz.records import RAW_PARTITIONS, Records
from bench.fuzz.schemas import FIRST_STRANGER, OUR_IDS, Schemas
from reviewmesh.avro.codec import HEADER, load_schema
from reviewmesh.kafka.record import FORWARDED_FROM, FORWARDED_MAC, Headers, Record, headers_of
from tests.broker import TestStack, wait_until
from tests.clients.programs import CLIENTS, addressed, run_together
from tests.mesh import Mesh

RECORDS = int(os.environ.get("REVIEWMESH_FUZZ_RECORDS", "2000"))
SEED = 20261128
# Ids that nobody registered.
NOWHERE = 1_000_000
REGISTERED = 60
IN_FLIGHT = 2_000
DONE_WITHIN_S = 60 + RECORDS / 50
PER_CLIENT = 40

BATCH = re.compile("offsets ([0-9]+) to ([0-9]+), which cannot be read")

Place = tuple[int, int]


@pytest.fixture(scope="module")
def mesh(stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """Its raw topic has more partitions than the others."""
    folder: Path = tmp_path_factory.mktemp("mesh")
    # What forged headers say is ignored: none of them knows the secret.
    secret = {"REVIEWMESH_INTAKE__FORWARDING_SECRET": "a secret of intake's own"}
    with Mesh(stack, f"f{folder.parent.name[-3:]}{folder.name[-1]}.", folder, secret) as mesh:
        mesh.apply_topics()
        grown = NewPartitions(f"{mesh.prefix}reviews.raw", RAW_PARTITIONS)
        admin = AdminClient({**mesh.kafka})
        [done] = admin.create_partitions([grown]).values()
        done.result(30)
        mesh.start()
        yield mesh


@pytest.fixture(scope="module")
def written(mesh: Mesh) -> dict[Place, Record]:
    """What the broker took, by partition and offset; the mesh is done with all of it."""
    schemas = Schemas(SEED)
    ids = registered(mesh, schemas)
    producer = mesh.producer(**{"compression.type": "zstd", "message.max.bytes": "30000000"})
    taken: dict[Place, Record] = {}
    too_large = 0

    def delivered(record: Record) -> Any:
        def tell(error: KafkaError | None, message: Any) -> None:
            nonlocal too_large
            if error is None:
                taken[message.partition(), message.offset()] = record
            else:
                assert error.code() == KafkaError.MSG_SIZE_TOO_LARGE, error
                too_large += 1

        return tell

    pauses = Pauses(mesh)
    pauses.start()
    for record in islice(Records(SEED, schemas), RECORDS):
        while len(producer) > IN_FLIGHT:
            producer.poll(0.1)
        producer.produce(
            f"{mesh.prefix}reviews.raw",
            renumbered(record.value, ids),
            record.key,
            record.partition,
            headers=list(record.headers),
            on_delivery=delivered(record),
        )
    assert producer.flush(60) == 0
    assert len(taken) + too_large == RECORDS
    mesh.wait_for(lambda: is_done(mesh), DONE_WITHIN_S, "everything finished")
    pause = pauses.end()
    print(f"{len(taken)} taken, {too_large} too large for the topic, longest pause {pause:.1f} s")
    return taken


def registered(mesh: Mesh, schemas: Schemas) -> dict[int, int]:
    """The registry's ids for those that the records are made with."""
    subject = f"{mesh.prefix}reviews.raw-value"
    ids = {OUR_IDS["review"]: mesh.registry.id_of(subject, load_schema("review"))}
    settings = mesh.stack.registry()
    password = settings.password.get_secret_value() if settings.password else ""
    client = httpx.Client(
        auth=(settings.username, password) if settings.username else None,
        verify=settings.ssl_context(),
        timeout=30,
    )
    for number in range(FIRST_STRANGER, FIRST_STRANGER + REGISTERED):
        try:
            schema = {"schema": json.dumps(schemas.schema(number))}
        except LookupError:
            continue
        url = f"{mesh.stack.registry_url}/subjects/{mesh.prefix}{number}/versions"
        answer = client.post(url, json=schema)
        if answer.status_code == 200:
            ids[number] = answer.json()["id"]
    assert len(ids) > REGISTERED / 3
    return ids


def renumbered(value: bytes | None, ids: dict[int, int]) -> bytes | None:
    if value is None or len(value) < HEADER.size or value[0] != 0:
        return value
    schema_id = int.from_bytes(value[1:5], "big")
    return HEADER.pack(0, ids.get(schema_id, NOWHERE + schema_id % NOWHERE)) + value[HEADER.size :]


class Pauses(threading.Thread):
    """Sees how long nothing came of raw records that wait."""

    def __init__(self, mesh: Mesh) -> None:
        super().__init__()
        self._mesh = mesh
        self._ended = threading.Event()
        self.longest_s = 0.0

    def run(self) -> None:
        raw = f"{self._mesh.prefix}reviews.raw"
        outcomes = [
            f"{self._mesh.prefix}{name}" for name in ("reviews.accepted", "reviews.dead-letter")
        ]
        before, moved = -1, time.monotonic()
        while not self._ended.wait(0.1):
            now = time.monotonic()
            waits = not has_finished(self._mesh, "intake", raw)
            found = sum(sum(ends_of(self._mesh, topic)) for topic in outcomes)
            if found != before or not waits:
                before, moved = found, now
            self.longest_s = max(self.longest_s, now - moved)

    def end(self) -> float:
        self._ended.set()
        self.join()
        return self.longest_s


def is_done(mesh: Mesh) -> bool:
    """Each group has committed to the end of what it reads."""
    groups = {"intake": ("reviews.raw",), "joiner": ("reviews.accepted",)}
    groups |= {f"enricher-{task}": ("reviews.accepted",) for task in ("ner", "topic", "sentiment")}
    return all(
        has_finished(mesh, group, f"{mesh.prefix}{topic}")
        for group, topics in groups.items()
        for topic in topics
    )


def has_finished(mesh: Mesh, group: str, topic: str) -> bool:
    at, ends = committed(mesh, group, topic), ends_of(mesh, topic)
    return all(offset >= end for offset, end in zip(at, ends, strict=True))


def committed(mesh: Mesh, group: str, topic: str) -> list[int]:
    consumer = Consumer(mesh.kafka | {"group.id": f"{mesh.prefix}reviewmesh-{group}"})
    try:
        found = consumer.committed(partitions_of(topic, mesh), timeout=10)
        return [max(0, at.offset) for at in found]
    finally:
        consumer.close()


def ends_of(mesh: Mesh, topic: str) -> list[int]:
    consumer = Consumer(mesh.kafka | {"group.id": f"{mesh.prefix}fuzz"})
    try:
        return [
            consumer.get_watermark_offsets(at, timeout=10)[1] for at in partitions_of(topic, mesh)
        ]
    finally:
        consumer.close()


def partitions_of(topic: str, mesh: Mesh) -> list[TopicPartition]:
    found = AdminClient({**mesh.kafka}).list_topics(topic, timeout=10).topics[topic].partitions
    return [TopicPartition(topic, number) for number in sorted(found)]


def everything_on_raw(mesh: Mesh) -> Iterator[tuple[Place, Headers]]:
    topic = f"{mesh.prefix}reviews.raw"
    options = {"group.id": f"{mesh.prefix}fuzz", "enable.partition.eof": "true"}
    consumer = Consumer(mesh.kafka | options)
    try:
        unread = set(range(RAW_PARTITIONS))
        consumer.assign([TopicPartition(topic, number, 0) for number in unread])
        while unread:
            message = consumer.poll(20)
            assert message is not None
            partition, offset, error = message.partition(), message.offset(), message.error()
            assert partition is not None
            assert offset is not None
            if error is None:
                yield (partition, offset), headers_of(message)
            else:
                assert error.code() == KafkaError._PARTITION_EOF
                unread.discard(partition)
    finally:
        consumer.close()


def test_every_record_has_one_outcome(mesh: Mesh, written: dict[Place, Record]) -> None:
    raw = dict(everything_on_raw(mesh))
    by_intake = raw.keys() - written.keys()
    assert all({FORWARDED_FROM, FORWARDED_MAC} <= {name for name, _ in raw[at]} for at in by_intake)
    origins = {at: place(dict(raw[at])[FORWARDED_FROM] or b"") for at in by_intake}
    refused = [
        (letter["partition"], offset)
        for letter in mesh.dead_letters()
        if letter["topic"] == "reviews.raw"
        for offset in offsets_of(letter)
        if (letter["partition"], offset) in raw
    ]
    # A dead letter of what intake forwarded names its second place, an accepted review its first.
    letters = [origins.get(at, at) for at in refused]
    accepted = [
        (record["source_partition"], record["source_offset"])
        for record in mesh.read("reviews.accepted")
    ]
    judged = Counter(letters) + Counter(accepted)
    assert max(judged.values()) == 1
    assert max(Counter(origins.values()).values()) == 1
    intake = mesh.processes["intake"]
    dropped = intake.metric("reviewmesh_duplicates_total")
    replayed = intake.metric("reviewmesh_replays_dropped_total")
    assert len(judged) + dropped + replayed == len(written)
    assert judged.keys() <= written.keys()
    assert {letter["cause"] for letter in mesh.dead_letters()} >= {"MALFORMED", "INVALID", "EMPTY"}


def offsets_of(letter: dict[str, Any]) -> range:
    """One letter tells of all records of a batch that is too large decompressed."""
    batch = BATCH.match(letter["message"])
    if batch is None:
        return range(letter["offset"], letter["offset"] + 1)
    return range(int(batch[1]), int(batch[2]) + 1)


def place(header: bytes) -> Place:
    _, partition, offset = header.decode().split("/")
    return int(partition), int(offset)


def test_every_accepted_review_is_enriched_once_and_complete(
    mesh: Mesh, written: dict[Place, Record]
) -> None:
    accepted = Counter(
        (record["source_partition"], record["source_offset"])
        for record in mesh.read("reviews.accepted")
    )
    records = mesh.enriched()
    enriched = Counter((record["source_partition"], record["source_offset"]) for record in records)
    assert enriched == accepted
    assert all(record["complete"] for record in records)


def test_every_service_is_ready_and_none_has_ended(
    mesh: Mesh, written: dict[Place, Record]
) -> None:
    for process in mesh.processes.values():
        assert process.popen is not None and process.popen.poll() is None, process.name
        wait_until(process.is_ready, 20, f"{process.name} ready")


def test_programs_of_others_read_all_that_came_of_it(
    mesh: Mesh, written: dict[Place, Record], tmp_path: Path
) -> None:
    """Each reads from the beginning until its own reviews come, which lie on every partition."""
    commands = {}
    for name, (path, prepare) in CLIENTS.items():
        source = addressed(path.read_text(encoding="utf-8"), mesh.stack, mesh.prefix)
        folder = tmp_path / name
        folder.mkdir()
        own = [f"after-{name}-{number}" for number in range(PER_CLIENT)]
        commands[name] = [*prepare(source, folder), *own]
    printed = run_together(commands)
    before = {record["review_id"] for record in mesh.enriched()} - {
        f"after-{name}-{number}" for name in CLIENTS for number in range(PER_CLIENT)
    }
    for name in CLIENTS:
        assert before <= {record["review_id"] for record in printed[name]}, name
