"""Intake's stage on what strangers write: headers, sizes, schemas that are looked up."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from reviewmesh.avro.codec import HEADER, Codec, load_schema
from reviewmesh.avro.registry import RegistryUnavailable, UnknownSchemaId
from reviewmesh.clock import LAST_MS
from reviewmesh.intake.provenance import Provenance
from reviewmesh.intake.stage import Contract, IntakeStage
from reviewmesh.kafka import record as records
from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.kafka.record import (
    FORWARDED_FROM,
    FORWARDED_MAC,
    ORIGIN_TIMESTAMP,
    TRACEPARENT,
    Headers,
    Output,
    Record,
)
from reviewmesh.loop.inputs import Inputs
from reviewmesh.loop.stage import Start
from reviewmesh.settings import IntakeSettings
from reviewmesh_schemas.names import ACCEPTED, DEAD_LETTER, RAW

PARTITIONS = 6
MIB = 1024 * 1024
MAX_RAW_BYTES = MIB * 15 // 16
NOW = 1_700_000_000.0
SCHEMAS = {1: "review", 2: "accepted_review", 3: "dead_letter", 4: "replayed"}
BLANK = dict.fromkeys(
    ("business_id", "title", "language", "stars", "created_at", "source", "author")
)


class Registry:
    """In this process; ids of 100 and more are answered once `open` is set."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.away = False
        self.asked: list[int] = []

    def refuses(self, schema_id: int) -> bool:
        return False

    def schema(self, schema_id: int) -> Any:
        if self.away:
            raise RegistryUnavailable("the registry is away")
        if schema_id in SCHEMAS:
            return load_schema(SCHEMAS[schema_id])
        self.asked.append(schema_id)
        if not self.open.wait(20):
            raise RegistryUnavailable("the registry is silent")
        if schema_id % 2:
            raise UnknownSchemaId(f"the registry knows no schema of id {schema_id}")
        return {**load_schema("review"), "namespace": f"acme{schema_id}"}

    def id_of(self, subject: str, schema: dict[str, Any]) -> int:
        return {"Review": 1, "AcceptedReview": 2, "DeadLetter": 3, "Replayed": 4}[schema["name"]]


class Tail:
    """What lies in reviews.accepted, and in reviews.replayed."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.replayed: list[Record] = []

    def read_tail(self, topic: str, partition: int, since: int, at_most: int) -> Iterator[Record]:
        assert partition < PARTITIONS, "there is no such partition"
        yield from self.records if topic == ACCEPTED else self.replayed


@dataclasses.dataclass
class Intake:
    registry: Registry = dataclasses.field(default_factory=Registry)
    tail: Tail = dataclasses.field(default_factory=Tail)
    secret: str | None = None
    now: float = NOW

    def __post_init__(self) -> None:
        names = ("review", "accepted_review", "dead_letter", "replayed")
        self.raw, self.accepted, self.dead, replayed = (
            Codec(self.registry, f"{name}-value", name)  # type: ignore[arg-type]
            for name in names
        )
        limited = Codec(self.registry, "reviews.raw-value", "review", MIB)  # type: ignore[arg-type]
        contract = Contract(
            raw=limited,
            accepted=self.accepted,
            replayed=replayed,
            dead_letter=self.dead,
            partitions=PARTITIONS,
            max_raw_bytes=MAX_RAW_BYTES,
            max_accepted_bytes=2 * MAX_RAW_BYTES,
        )
        self.stage = IntakeStage(
            contract,
            self.tail,  # type: ignore[arg-type]
            lambda: self.now,
            settings=IntakeSettings(
                forwarding_secret=SecretStr(self.secret) if self.secret else None
            ),
            log=structlog.get_logger(),
        )
        self.offset = 0

    def assign(self, *partitions: int) -> None:
        for partition in partitions:
            loaded = self.stage.load(partition, {RAW: Start(RAW, 0, reset=False)})
            self.stage.open(partition, Inputs(), loaded)

    def value(self, review_id: str = "r", schema_id: int = 1, **fields: Any) -> bytes:
        review = {**BLANK, "text": "Anna was great.", "attributes": {}, **fields}
        encoded = self.raw.encode({**review, "review_id": review_id})
        return HEADER.pack(0, schema_id) + encoded[HEADER.size :]

    def record(
        self,
        partition: int,
        value: bytes | None,
        headers: Headers = (),
        key: bytes | None = b"k",
        timestamp_ms: int = 17,
    ) -> Record:
        self.offset += 1
        return Record(RAW, partition, self.offset, key, value, headers, timestamp_ms)

    def take(self, record: Record) -> Output:
        self.stage.receive(record)
        units = self.stage.poll()
        assert [unit.finished for unit in units] == [((RAW, record.offset),)]
        return units[0].outputs[0]

    def judged(
        self, value: bytes | None, headers: Headers = (), **more: Any
    ) -> tuple[Output, dict[str, Any]]:
        """The one output, decoded; the record lies on the partition of the id `r`."""
        output = self.take(self.record(HOME, value, headers, **more))
        codec = {ACCEPTED: self.accepted, DEAD_LETTER: self.dead, RAW: self.raw}[output.topic]
        return output, codec.decode(output.value or b"")


HOME = partition_of(b"r", PARTITIONS)
ELSEWHERE = (HOME + 1) % PARTITIONS


@pytest.fixture
def intake() -> Iterator[Intake]:
    intake = Intake()
    intake.assign(*range(PARTITIONS))
    yield intake
    intake.registry.open.set()
    intake.stage.stop()


def wait_for(intake: Intake, count: int) -> list[Output]:
    outputs: list[Output] = []
    deadline = time.monotonic() + 20
    while len(outputs) < count and time.monotonic() < deadline:
        outputs += [output for unit in intake.stage.poll() for output in unit.outputs]
        time.sleep(0.001)
    return outputs


# -- headers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin",
    [
        b"17958835000000000000",
        b"-5",
        b"",
        b"abc",
        None,
        b"\xff\xfe",
        b"9" * 5_000,
        b"253402300800000",
    ],
    ids=range(8),
)
def test_an_origin_timestamp_that_is_none_is_ignored(intake: Intake, origin: bytes | None) -> None:
    output, accepted = intake.judged(intake.value(), ((ORIGIN_TIMESTAMP, origin),))
    assert output.topic == ACCEPTED
    assert accepted["source_timestamp"] == 17


def test_an_origin_timestamp_is_kept(intake: Intake) -> None:
    _, accepted = intake.judged(intake.value(), ((ORIGIN_TIMESTAMP, b"1700000000000"),))
    assert accepted["source_timestamp"] == 1_700_000_000_000


@pytest.mark.parametrize(
    ("timestamp", "told"), [(-1, 0), (-(2**63), 0), (2**63 - 1, LAST_MS), (LAST_MS, LAST_MS)]
)
def test_a_record_timestamp_that_no_reader_can_show_is_bounded(
    intake: Intake, timestamp: int, told: int
) -> None:
    _, accepted = intake.judged(intake.value(), timestamp_ms=timestamp)
    assert accepted["source_timestamp"] == told
    _, letter = intake.judged(None, timestamp_ms=timestamp, key=None)
    assert letter["read_at"] == (timestamp if timestamp == told else None)


@pytest.mark.parametrize("secret", [None, "s" * 16])
@pytest.mark.parametrize(
    "forwarded",
    [
        b"reviews.raw/99999999999999999999999/5",
        b"reviews.raw/1/99999999999999999999999",
        b"reviews.raw/1/2",
        b"\xff/1/2",
        b"",
        b"//",
        b"reviews.raw/-1/2",
        None,
    ],
    ids=range(8),
)
def test_forwarded_headers_of_strangers_name_no_place(
    secret: str | None, forwarded: bytes | None
) -> None:
    intake = Intake(secret=secret)
    intake.assign(HOME)
    headers = ((FORWARDED_FROM, forwarded), (FORWARDED_MAC, b"0" * 64))
    record = intake.record(HOME, intake.value(), headers)
    accepted = intake.accepted.decode(intake.take(record).value or b"")
    place = (accepted["source_topic"], accepted["source_partition"], accepted["source_offset"])
    assert place == (RAW, HOME, record.offset)


def forwarded(intake: Intake, headers: Headers = ()) -> tuple[Record, Record]:
    """A record on another partition, and what intake forwards home."""
    first = intake.record(ELSEWHERE, intake.value(), (("x", b"1"), *headers), timestamp_ms=99)
    output = intake.take(first)
    assert (output.topic, output.partition, output.key) == (RAW, HOME, b"r")
    assert output.value == first.value
    return first, intake.record(HOME, output.value, output.headers)


def source(intake: Intake, record: Record) -> tuple[int, int, int]:
    accepted = intake.accepted.decode(intake.take(record).value or b"")
    return (accepted["source_partition"], accepted["source_offset"], accepted["source_timestamp"])


def test_with_a_secret_a_forwarded_review_names_what_its_producer_wrote() -> None:
    intake, replica = Intake(secret="s" * 16), Intake(secret="s" * 16)
    intake.assign(ELSEWHERE)
    replica.assign(HOME)
    forged = ((FORWARDED_FROM, b"reviews.raw/5/5"), (FORWARDED_MAC, b"f" * 64))
    for headers in ((), forged):
        first, second = forwarded(intake, headers)
        assert [name for name, _ in second.headers].count(FORWARDED_FROM) == 1
        assert second.header("x") == b"1"
        assert replica.stage._provenance.coordinates(second).offset == first.offset
        with_other_secret = Provenance(RAW, b"t" * 16).coordinates(second)
        assert with_other_secret.offset == second.offset
    assert source(replica, second) == (ELSEWHERE, first.offset, 99)


def test_the_code_of_one_record_does_for_no_other() -> None:
    intake = Intake(secret="s" * 16)
    intake.assign(HOME, ELSEWHERE)
    _, second = forwarded(intake)
    other = second._replace(value=intake.value(text="Another."), offset=77)
    assert source(intake, other)[:2] == (HOME, 77)


def test_without_a_secret_a_forwarded_review_names_the_forwarded_record(intake: Intake) -> None:
    _, second = forwarded(intake)
    assert source(intake, second) == (HOME, second.offset, 99)


@pytest.mark.parametrize("trace", [b"x" * 900_000, b"", None, "00-é".encode("utf-16")])
def test_what_is_no_traceparent_goes_no_further(intake: Intake, trace: bytes | None) -> None:
    output, _ = intake.judged(intake.value(), ((TRACEPARENT, trace),))
    assert len(dict(output.headers)[TRACEPARENT] or b"") == 55


# -- sizes -------------------------------------------------------------------------------------


def test_a_record_over_the_limit_of_its_topic_is_oversize_with_a_dead_letter_that_fits(
    intake: Intake,
) -> None:
    value = intake.value(text="so good! " * 2_200_000)
    output, letter = intake.judged(value)
    assert output.size() <= 8 * MIB * 15 // 16
    assert letter["cause"] == "OVERSIZE"
    assert letter["value"] == value[: len(letter["value"])]
    assert len(letter["value"]) > 7 * MIB
    assert letter["value_length"] == len(value)
    assert letter["value_sha256"] == hashlib.sha256(value).hexdigest()


def test_a_dead_letter_that_fits_is_whole(intake: Intake) -> None:
    _, letter = intake.judged(b"junk", (("a", None), ("b", b"c")))
    assert letter["value"] == b"junk"
    assert letter["key"] == b"k"
    assert letter["headers"] == [{"key": "a", "value": None}, {"key": "b", "value": b"c"}]
    assert letter["value_length"] is letter["value_sha256"] is None


@pytest.mark.parametrize(
    ("key", "headers", "value"),
    [
        (b"k" * 20 * MIB, (), b""),
        (b"k" * 4 * MIB, (("h", b"v" * 4 * MIB),), b"v" * 4 * MIB),
        (None, (("h" * 20 * MIB, b""),), None),
        (b"k", tuple(("h", b"") for _ in range(600_000)), b"v" * MIB),
        (b"k" * 20 * MIB, (("h", b"v" * 20 * MIB),), b"v" * 20 * MIB),
    ],
    ids=range(5),
)
def test_the_largest_of_everything_still_gives_a_dead_letter(
    intake: Intake, key: bytes | None, headers: Headers, value: bytes | None
) -> None:
    output, letter = intake.judged(value, headers, key=key)
    assert output.size() <= 8 * MIB * 15 // 16
    assert letter["value_length"] == len(value or b"")
    set_aside = intake.stage.set_aside(
        intake.record(HOME, value, headers, key), "UNREADABLE", "\ud800" * 9_999
    )
    assert all(output.size() <= 8 * MIB * 15 // 16 for output in set_aside)


def test_a_forward_that_does_not_fit_is_a_dead_letter(intake: Intake) -> None:
    fits = intake.record(ELSEWHERE, intake.value(), (("h", b"x" * 900_000),))
    assert intake.take(fits).topic == RAW
    record = intake.record(ELSEWHERE, intake.value(), (("h", b"x" * MIB),))
    letter = intake.dead.decode(intake.take(record).value or b"")
    assert letter["cause"] == "OVERSIZE"
    assert letter["review_id"] == "r"
    assert "shorten its headers" in letter["message"]


# -- partitions beyond the mesh's own ----------------------------------------------------------


def test_a_raw_topic_with_more_partitions_is_forwarded_home(intake: Intake) -> None:
    intake.assign(PARTITIONS + HOME, PARTITIONS + 2)
    output = intake.take(intake.record(PARTITIONS + HOME, intake.value()))
    assert (output.topic, output.partition) == (RAW, HOME)
    letter = intake.take(intake.record(PARTITIONS + 2, b"junk"))
    assert (letter.topic, letter.partition) == (DEAD_LETTER, 2)
    assert intake.dead.decode(letter.value or b"")["partition"] == PARTITIONS + 2


# -- the memory of duplicates ------------------------------------------------------------------


def test_foreign_records_among_the_accepted_are_left_out() -> None:
    intake = Intake()
    intake.assign(HOME)
    accepted = intake.take(intake.record(HOME, intake.value()))
    values = [None, b"", b"junk", intake.value(), accepted.value, HEADER.pack(0, 1) + b"\xff" * 9]
    intake.tail.records = [Record(ACCEPTED, HOME, n, b"r", v) for n, v in enumerate(values)]
    intake.assign(HOME)
    intake.stage.receive(intake.record(HOME, intake.value()))
    assert [unit.outputs for unit in intake.stage.poll()] == [()]


# -- schemas that are looked up ----------------------------------------------------------------


def test_unknown_ids_hold_up_their_own_partition_only_and_keep_its_order(intake: Intake) -> None:
    waiting = [intake.record(HOME, intake.value(schema_id=n)) for n in range(100, 300)]
    waiting.append(intake.record(HOME, intake.value(text="Last.")))
    for record in waiting:
        intake.stage.receive(record)
    assert intake.stage.poll() == []
    other = next(n for n in map(str, range(99)) if partition_of(n.encode(), PARTITIONS) == 1)
    assert intake.take(intake.record(1, intake.value(other))).topic == ACCEPTED
    assert "id 100" in intake.stage.waits_for(RAW, HOME)
    assert intake.stage.waits_for(RAW, 1) == ""
    intake.registry.open.set()
    outputs = wait_for(intake, 102)
    causes = [
        intake.dead.decode(output.value or b"")["cause"]
        for output in outputs
        if output.topic == DEAD_LETTER
    ]
    assert causes == ["UNKNOWN_SCHEMA"] * 100
    texts = [
        intake.accepted.decode(output.value or b"")["text"]
        for output in outputs
        if output.topic == ACCEPTED
    ]
    assert texts == ["Anna was great.", "Last."]
    assert intake.stage.waits_for(RAW, HOME) == ""


def test_a_registry_that_is_away_is_waited_for_and_named(intake: Intake) -> None:
    intake.registry.open.set()
    intake.registry.away = True
    intake.stage.receive(intake.record(HOME, intake.value(schema_id=100)))
    deadline = time.monotonic() + 20
    while not intake.stage.waiting_for() and time.monotonic() < deadline:
        assert intake.stage.poll() == []
    assert "away" in intake.stage.waiting_for()
    assert "away" in intake.stage.waits_for(RAW, HOME)
    intake.registry.away = False
    assert [output.topic for output in wait_for(intake, 1)] == [ACCEPTED]
    assert intake.stage.waiting_for() == ""


def test_a_partition_that_waits_for_much_is_paused_and_closing_it_forgets(intake: Intake) -> None:
    taken = 0
    while not intake.stage.blocks(RAW, HOME):
        intake.stage.receive(intake.record(HOME, intake.value(schema_id=100 + taken)))
        taken += 1
    assert taken == 1_000
    assert not intake.stage.blocks(RAW, ELSEWHERE)
    intake.stage.close(HOME)
    assert not intake.stage.blocks(RAW, HOME)
    intake.registry.open.set()
    assert intake.stage.poll() == []
    assert len(intake.registry.asked) < 100


def test_large_records_that_wait_pause_their_partition_sooner(intake: Intake) -> None:
    taken = 0
    while not intake.stage.blocks(RAW, HOME):
        value = intake.value(schema_id=100 + taken, text="a" * (MIB - 100))
        intake.stage.receive(intake.record(HOME, value))
        taken += 1
    assert taken == 9


# -- what the client cannot give ---------------------------------------------------------------


class Message:
    """One whose headers confluent-kafka cannot give, by what it raises then."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def headers(self) -> Any:
        raise self._error

    def topic(self) -> str:
        return RAW

    partition = offset = lambda self: 1


@pytest.mark.parametrize(
    "error", [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), SystemError()]
)
def test_headers_that_the_client_cannot_give_are_none_and_told_of_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    records._headers_logged_at = -records.LOG_AGAIN_AFTER_S
    assert records.headers_of(Message(error)) == records.headers_of(Message(error)) == ()
    assert [
        entry.args[:3] for entry in caplog.records if isinstance(entry.args, tuple) and entry.args
    ] == [(RAW, 1, 1)]
