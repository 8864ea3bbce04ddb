"""The reader, a process of its own: when each review of a run was there for a committed reader.

Latency is from when the review was due, so waiting before it was even sent counts. Every review is
ticked off, so what is lost or comes twice is known too.
"""

from __future__ import annotations

import math
import time
from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from bench.load import Schedule
from reviewmesh.avro.codec import Codec
from reviewmesh.avro.registry import SchemaRegistry
from reviewmesh_schemas.names import TASKS

POLL_S = 0.02
GATHER_S = 0.002
BATCH = 2_000
# Reading the stages of one record in so many keeps the reader cheap.
DECODED_ONE_IN = 16
MISSING = -1.0
CALL_TIMEOUT_S = 10.0


@dataclass
class Seen:
    """What came out of one run."""

    schedule: Schedule
    latencies: array[float] = field(init=False)
    stages: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    out: int = 0
    twice: int = 0
    incomplete: int = 0

    def __post_init__(self) -> None:
        self.latencies = array("f", [MISSING]) * self.schedule.count


@dataclass(frozen=True)
class Count:
    """How many different reviews of the run were out at this time."""

    at: float
    out: int


@dataclass(frozen=True)
class Latencies:
    """Of the reviews that were due within a span; `missing` of them never came out."""

    seconds: list[float]
    stages: dict[str, list[float]]
    missing: int
    twice: int
    incomplete: int

    def percentile_ms(self, share: float) -> float:
        return percentile(self.seconds, share) * 1000 if self.seconds else math.nan


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that so large a share of the ordered ones does not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def read(connection: Connection, bootstrap_servers: str, registry_url: str, topic: str) -> None:
    """The process: takes a Schedule to follow, "count", or a span of sequence numbers to report."""
    codec = Codec(SchemaRegistry(registry_url), f"{topic}-value", "enriched_review")
    consumer = _consumer(bootstrap_servers, topic)
    seen: Seen | None = None
    connection.send("ready")
    try:
        while True:
            if connection.poll(0):
                word = connection.recv()
                if isinstance(word, Schedule):
                    seen = Seen(word)
                assert seen is not None
                connection.send(_answer(seen, word))
            messages = _gather(consumer)
            if seen is not None and messages:
                take(seen, messages, codec, time.time())
    except (EOFError, KeyboardInterrupt):
        return
    finally:
        consumer.close()


def _consumer(bootstrap_servers: str, topic: str) -> Any:
    """Reads from where the topic ends now; no group, so nothing else moves it."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"{topic}-bench-reader",
            "isolation.level": "read_committed",
            "enable.auto.commit": "false",
            "fetch.wait.max.ms": "50",
            "fetch.queue.backoff.ms": "10",
        }
    )
    partitions = consumer.list_topics(topic, timeout=CALL_TIMEOUT_S).topics[topic].partitions
    places = [TopicPartition(topic, number) for number in partitions]
    for place in places:
        place.offset = consumer.get_watermark_offsets(place, timeout=CALL_TIMEOUT_S)[1]
    consumer.assign(places)
    return consumer


def _gather(consumer: Any) -> list[Any]:
    # `consume` waits until its batch is full or time is up; only the first message may be waited
    # for, or the waiting would be measured as latency.
    first = consumer.poll(POLL_S)
    return [] if first is None else [first, *consumer.consume(BATCH, GATHER_S)]


def take(seen: Seen, messages: list[Any], codec: Codec, now: float) -> None:
    """Tick off what came; what belongs to another run is left aside."""
    schedule, tag = seen.schedule, seen.schedule.tag.encode()
    for message in messages:
        key = message.key()
        if message.error() is not None or not key.startswith(tag):
            continue
        sequence = int(key[len(tag) :])
        if seen.latencies[sequence] != MISSING:
            seen.twice += 1
            continue
        seen.latencies[sequence] = now - schedule.start - sequence / schedule.rate
        seen.out += 1
        if sequence % DECODED_ONE_IN == 0:
            _take_stages(seen, sequence, codec.decode(message.value()), now)


def _take_stages(seen: Seen, sequence: int, record: dict[str, Any], now: float) -> None:
    seen.incomplete += not record["complete"]
    at = record["timings"]
    spans = {"intake": (at["origin_at"], at["accepted_at"])}
    for task in TASKS:
        spans[task] = (at["accepted_at"], at[f"{task}_at"])
    if all(at[f"{task}_at"] is not None for task in TASKS):
        spans["join"] = (max(at[f"{task}_at"] for task in TASKS), at["enriched_at"])
    spans["publish"] = (at["enriched_at"], now * 1000)
    for stage, (begin, end) in spans.items():
        if begin is not None and end is not None:
            seen.stages[stage].append((sequence, (end - begin) / 1000))


def _answer(seen: Seen, word: object) -> object:
    if isinstance(word, tuple):
        first, last = word
        latencies = seen.latencies[first:last]
        return Latencies(
            seconds=sorted(value for value in latencies if value != MISSING),
            stages={
                stage: sorted(value for number, value in values if first <= number < last)
                for stage, values in seen.stages.items()
            },
            missing=sum(value == MISSING for value in latencies),
            twice=seen.twice,
            incomplete=seen.incomplete,
        )
    return Count(time.time(), seen.out)
