"""The cost of a mesh's answers, summed from the topics of results.

Each committed record of a result topic, or of answers done again, is one answer that was paid for.
Committed records are read once, so nothing is counted twice. After a reset of a group a review is
answered a second time: that answer has the same coordinates as the first, was paid for as well, and
is counted as well.
"""

from __future__ import annotations

import zlib
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING

from reviewmesh.avro.codec import DecodeError
from reviewmesh.enrich.routes import FALLBACK
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.kafka.record import Record
from reviewmesh.leaving.amounts import NOTHING, Amount
from reviewmesh.query.budgets import spending
from reviewmesh.query.connection import Connection
from reviewmesh.query.reading import offsets, partitions_of, read_until
from reviewmesh.query.values import iso
from reviewmesh_schemas.names import ACCEPTED, ENRICHED, REPROCESSED, RESULT_OF, SHADOW_OF, TASK_OF

DIMENSIONS: Final = ("task", "model", "route", "provider", "business", "day")
MEASURES: Final = (
    "attempts",
    "provider_requests",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "cost_micros",
)
"""Fields of the lineage that are summed; `cost_micros` is in millionths of a US dollar."""

ANSWERED_FOR: Final = TASK_OF | {topic: task for task, topic in SHADOW_OF.items()}
ANSWERS: Final = (*ANSWERED_FOR, REPROCESSED)
"""The topics of answers. A new topic of answers is added here, and to `Summing._answered`, which
reads its records."""

NO_RESULT: Final = "(no result)"
"""Shown for dimensions that only a result has."""

CostKey = tuple[str | None, ...]
"""A value for each requested dimension; None where an answer has none."""


@dataclass
class Total:
    """Sums over answers, and for each measure how many answers lack it."""

    answers: int = 0
    failed: int = 0
    sums: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)

    def add(self, status: str | None, told: Mapping[str, int | None]) -> None:
        self.answers += 1
        self.failed += status == "FAILED"
        for name in MEASURES:
            value = told[name]
            if value is None:
                self.unknown[name] += 1
            else:
                self.sums[name] += value

    def is_unknown(self, name: str) -> bool:
        """Whether no answer reports the measure."""
        return self.unknown[name] == self.answers and not self.sums[name]

    def __add__(self, other: Total) -> Total:
        return Total(
            self.answers + other.answers,
            self.failed + other.failed,
            self.sums + other.sums,
            self.unknown + other.unknown,
        )


@dataclass
class Costs:
    """The totals by key."""

    by: tuple[str, ...]
    totals: dict[CostKey, Total] = field(default_factory=dict)
    skipped: int = 0
    """Records that no enricher wrote; they are in no total."""
    without_review: int = 0
    """Number of answers whose accepted review was deleted, so that their business is unknown."""
    unanswered: Amount = NOTHING
    """The part of the totals for fallback calls without a result; an upper bound."""
    oldest_ms: int | None = None
    """When the oldest counted answer was written, in milliseconds since 1970."""

    def ordered(self) -> list[tuple[CostKey, Total]]:
        """The totals ordered by key; keys without a value come first."""
        return sorted(
            self.totals.items(), key=lambda item: [(part is not None, part) for part in item[0]]
        )

    def total(self) -> Total:
        return sum(self.totals.values(), Total())


@dataclass(frozen=True)
class CountedAnswer:
    """One answer, as read from its record."""

    task: str
    review_id: str
    accepted_offset: int
    status: str | None
    lineage: Mapping[str, Any]
    business: str | None = None
    """Only of an answer done again; other records have only the coordinates of their review."""


class UncountedRecord(ValueError):
    """A record that no enricher wrote."""


class Businesses:
    """The business of each accepted review of one partition.

    8 bytes for each offset that the broker keeps, and each name once.
    """

    def __init__(self, start: int, end: int) -> None:
        self._start = start
        # The place in `_names`, plus one.
        self._name_at = array("I", bytes(4 * max(0, end - start)))
        # A topic that was created again has other reviews at the same offsets.
        self._review_at = array("I", bytes(4 * max(0, end - start)))
        self._numbers: dict[str | None, int] = {}
        self._names: list[str | None] = []

    def add(self, offset: int, review_id: str, business: str | None) -> None:
        number = self._numbers.setdefault(business, len(self._names) + 1)
        if number > len(self._names):
            self._names.append(business)
        self._name_at[offset - self._start] = number
        self._review_at[offset - self._start] = _digest(review_id)

    def find(self, offset: int, review_id: str) -> str | None:
        """Raises KeyError where the review is not kept."""
        at = offset - self._start
        if not 0 <= at < len(self._name_at) or not self._name_at[at]:
            raise KeyError(offset)
        if self._review_at[at] != _digest(review_id):
            raise KeyError(offset)
        return self._names[self._name_at[at] - 1]


def costs(
    connection: Connection,
    by: Sequence[str],
    since_ms: int | None = None,
    until_ms: int | None = None,
) -> Costs:
    """Sum the answers written from `since_ms` until before `until_ms`, by DIMENSIONS.

    One partition after the other, so that the reviews of one are held at a time. Times are the
    broker's. Raises CannotReach, KafkaException and RegistryUnavailable.
    """
    wanted = partitions_of(connection, *ANSWERS)
    # Read before the accepted reviews, so that every answer's review is among them.
    ends = offsets(connection, wanted)
    found = offsets(connection, wanted, OFFSET_BEGINNING if since_ms is None else since_ms)
    # A negative offset means that no record is that young.
    starts = {place: at if at >= 0 else ends[place] for place, at in found.items()}
    summing = Summing(connection, by, since_ms, until_ms)
    for number in sorted({place.partition for place in wanted}):
        here = {place: at for place, at in starts.items() if place.partition == number}
        if any(at < ends[place] for place, at in here.items()):
            businesses = _businesses(connection, number) if "business" in by else None
            for record in read_until(connection, here, ends):
                summing.add(record, businesses)
    for (task, day, business), amount in spending(connection).unanswered().items():
        summing.add_unanswered(task, day, business, amount)
    return summing.costs


class Summing:
    """Adds records of answers to their totals."""

    def __init__(
        self,
        connection: Connection,
        by: Sequence[str],
        since_ms: int | None = None,
        until_ms: int | None = None,
    ) -> None:
        self._codecs = {topic: connection.codec(topic) for topic in (*ANSWERS, ENRICHED)}
        self._since_ms = since_ms
        self._until_ms = until_ms
        self.costs = Costs(tuple(by))

    def add(self, record: Record, businesses: Businesses | None) -> None:
        """`businesses`: those of the record's partition; None if they are not needed."""
        at = record.timestamp_ms
        if self._since_ms is not None and at < self._since_ms:
            return
        if self._until_ms is not None and at >= self._until_ms:
            return
        try:
            answered = self._answered(record, businesses is not None)
        except (DecodeError, UncountedRecord):
            self.costs.skipped += 1
            return
        business = answered.business
        if businesses is not None and record.topic != REPROCESSED:
            try:
                business = businesses.find(answered.accepted_offset, answered.review_id)
            except KeyError:
                self.costs.without_review += 1
        key = tuple(_value(name, answered, business, at) for name in self.costs.by)
        self.costs.totals.setdefault(key, Total()).add(
            answered.status, cost_measures(answered.lineage)
        )
        oldest = self.costs.oldest_ms
        self.costs.oldest_ms = at if oldest is None else min(at, oldest)

    def add_unanswered(self, task: str, day: str, business: str | None, amount: Amount) -> None:
        """Add the cost of a day's fallback calls without a result."""
        began = datetime.fromisoformat(day).replace(tzinfo=UTC)
        ended = began + timedelta(days=1)
        if self._since_ms is not None and ended.timestamp() * 1000 <= self._since_ms:
            return
        if self._until_ms is not None and began.timestamp() * 1000 >= self._until_ms:
            return
        told = {
            "task": task,
            "route": FALLBACK,
            "business": NO_RESULT if business is None else business,
            "day": day,
            "model": NO_RESULT,
            "provider": NO_RESULT,
        }
        total = self.costs.totals.setdefault(
            tuple(told.get(name) for name in self.costs.by), Total()
        )
        total.sums["provider_requests"] += amount.requests
        total.sums["cost_micros"] += amount.micros
        self.costs.unanswered = self.costs.unanswered.plus(amount)

    def _answered(self, record: Record, with_business: bool) -> CountedAnswer:
        """Raises UncountedRecord and DecodeError."""
        business = None
        if record.topic == REPROCESSED:
            answer = self._codecs[REPROCESSED].decode_ours(record.value or b"")
            task = answer["task"]
            if task not in RESULT_OF:
                raise UncountedRecord(f"expected one of the tasks {', '.join(RESULT_OF)}")
            value = answer["result"] or b""
            if with_business:
                # The answer carries its review, which may be gone from the accepted ones.
                enriched = self._codecs[ENRICHED].decode_ours(answer["enriched"] or b"")
                business = enriched["business_id"]
        else:
            task, value = ANSWERED_FOR[record.topic], record.value or b""
        result = self._codecs[RESULT_OF[task]].decode_ours(value)
        review_id = result["review_id"]
        if result["accepted_partition"] != record.partition or record.key != review_id.encode():
            raise UncountedRecord(
                "expected the result in its review's partition, under its review_id"
            )
        return CountedAnswer(
            task,
            review_id,
            result["accepted_offset"],
            result["status"],
            result["lineage"] or {},
            business,
        )


def cost_measures(lineage: Mapping[str, Any]) -> dict[str, int | None]:
    """The measures in a lineage; None for those that it lacks."""
    told = {name: lineage.get(name) for name in MEASURES}
    if lineage and lineage.get("provider") is None:
        told["provider_requests"] = 0
    elif told["provider_requests"] == 0:
        # From the worker's cache, or not sent: it costs nothing.
        nothing = ("prompt_tokens", "cached_tokens", "completion_tokens", "cost_micros")
        told |= dict.fromkeys(nothing, 0)
    return told


def _value(name: str, answered: CountedAnswer, business: str | None, at_ms: int) -> str | None:
    if name == "task":
        return answered.task
    if name == "business":
        return business
    if name == "day":
        return iso(at_ms)[:10]
    if name == "model":
        words = (answered.lineage.get("model"), answered.lineage.get("model_version"))
        # A provider's model is often named and versioned alike.
        return " ".join(dict.fromkeys(word for word in words if word)) or None
    return answered.lineage.get(name)


def _businesses(connection: Connection, partition: int) -> Businesses:
    place = MeshPartition(ACCEPTED, partition)
    [start] = offsets(connection, [place], OFFSET_BEGINNING).values()
    [end] = offsets(connection, [place]).values()
    codec = connection.codec(ACCEPTED)
    found = Businesses(start, end)
    for record in read_until(connection, {place: start}, {place: end}):
        try:
            review = codec.decode_ours(record.value or b"")
        except DecodeError:
            continue
        found.add(record.offset, review["review_id"], review["business_id"])
    return found


def _digest(review_id: str) -> int:
    return zlib.crc32(review_id.encode())
