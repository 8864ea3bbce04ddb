"""Killed between any two writes, the counts end as a recount of the latest revisions.

The two steps run on logs in memory. A turn's writes go to many partitions: of a process that is
killed within it any of them may have arrived, in each changelog partition a beginning. What
arrived stays, what the process knew is gone, and its successor reads the changelog and goes on
from the committed offsets.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, rule

from reviewmesh.insights.contribution import Bucket, Counts, add_counts
from reviewmesh.insights.contributions import BucketCounts, Contributions
from reviewmesh.insights.totals import Totals

PARTITIONS = 2
HOUR = 3_600_000
REVIEWS = ("r0", "r1", "r2")
BUCKETS = [Bucket("a", 0, HOUR), Bucket("a", HOUR, 2 * HOUR), Bucket("b", 0, HOUR)]
TOPICS = ("food", "staff")

Write = tuple[str, Any, Any]
"""changelog, partials or insights; the key; the value."""


def home(business_id: str) -> int:
    return sum(business_id.encode()) % PARTITIONS


class Step:
    """What outlives a process of one step, and what does not."""

    def __init__(self, inputs: list[list[Any]]) -> None:
        self.inputs = inputs
        self.committed = [0] * len(inputs)
        self.changelog: list[tuple[Any, Any]] = []
        self.start()

    def start(self) -> None:
        self.position = list(self.committed)
        self.entries: dict[Any, Any] = dict(self.changelog)
        self.writes: list[Write] = []
        self.subjects: set[Hashable] = set()


class Pipeline:
    def __init__(self) -> None:
        self.enriched: list[list[Any]] = [[] for _ in range(PARTITIONS)]
        self.partials: list[list[BucketCounts]] = [[] for _ in range(PARTITIONS)]
        self.insights: dict[Bucket, Counts] = {}
        self.first = Step(self.enriched)
        self.second = Step(self.partials)
        self.start_first()
        self.start_second()

    def start_first(self) -> None:
        self.first.start()
        self.contributions = Contributions(self.first.entries)
        self.contributions.recovered()

    def start_second(self) -> None:
        self.second.start()
        self.totals = Totals(self.second.entries)
        self.totals.recovered()

    def publish(self, number: int, bucket: Bucket, topic: str) -> None:
        counts: Counts = {("reviews",): 1, ("topic", topic, "reviews"): 1}
        self.enriched[number % PARTITIONS].append((REVIEWS[number], bucket, counts))

    def count(self, partition: int) -> bool:
        offset = self.first.position[partition]
        if offset == len(self.enriched[partition]):
            return False
        self.first.position[partition] += 1
        review_id, bucket, counts = self.enriched[partition][offset]
        entry, buckets = self.contributions.apply(review_id, partition, offset, bucket, counts)
        if entry is not None:
            self.first.writes.append(("changelog", review_id, entry))
        self.first.subjects |= {(partition, item) for item in buckets}
        return True

    def total(self, partition: int) -> bool:
        offset = self.second.position[partition]
        if offset == len(self.partials[partition]):
            return False
        self.second.position[partition] += 1
        partial = self.partials[partition][offset]
        if written := self.totals.apply(partial):
            self.second.writes.append(("changelog", *written))
        self.second.subjects.add(partial.bucket)
        return True

    def first_writes(self) -> list[Write]:
        partials = (self.contributions.partial(*subject) for subject in self.first.subjects)  # type: ignore[misc]
        return self.first.writes + [("partials", partial.bucket, partial) for partial in partials]

    def second_writes(self) -> list[Write]:
        totals = [("insights", item, self.totals.total(item)) for item in self.second.subjects]  # type: ignore[arg-type]
        return self.second.writes + totals

    def land(self, step: Step, write: Write) -> None:
        kind, key, value = write
        if kind == "changelog":
            step.changelog.append((key, value))
        elif kind == "partials":
            self.partials[home(key.business_id)].append(value)
        else:
            self.insights[key] = value

    def turn(self, step: Step, writes: list[Write]) -> None:
        for write in writes:
            self.land(step, write)
        step.committed = list(step.position)
        step.writes, step.subjects = [], set()

    def finish(self) -> None:
        while any([self.count(number) for number in range(PARTITIONS)]):
            pass
        self.turn(self.first, self.first_writes())
        while any([self.total(number) for number in range(PARTITIONS)]):
            pass
        self.turn(self.second, self.second_writes())

    def recount(self) -> dict[Bucket, Counts]:
        latest = {record[0]: record for partition in self.enriched for record in partition}
        recounted: dict[Bucket, Counts] = {}
        for _, bucket, counts in latest.values():
            add_counts(recounted.setdefault(bucket, {}), counts)
        return recounted


class Killed(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.pipeline = Pipeline()

    @rule(
        reviews=st.lists(
            st.tuples(
                st.integers(0, len(REVIEWS) - 1), st.sampled_from(BUCKETS), st.sampled_from(TOPICS)
            ),
            min_size=1,
            max_size=4,
        )
    )
    def publish(self, reviews: list[tuple[int, Bucket, str]]) -> None:
        for review in reviews:
            self.pipeline.publish(*review)

    @rule(records=st.integers(1, 3), data=st.data())
    def turn_first(self, records: int, data: st.DataObject) -> None:
        for _ in range(records):
            for partition in range(PARTITIONS):
                self.pipeline.count(partition)
        step, writes = self.pipeline.first, self.pipeline.first_writes()
        if self._is_killed(data, step, writes):
            self.pipeline.start_first()
        else:
            self.pipeline.turn(step, writes)

    @rule(records=st.integers(1, 3), data=st.data())
    def turn_second(self, records: int, data: st.DataObject) -> None:
        for _ in range(records):
            for partition in range(PARTITIONS):
                self.pipeline.total(partition)
        step, writes = self.pipeline.second, self.pipeline.second_writes()
        if self._is_killed(data, step, writes):
            self.pipeline.start_second()
        else:
            self.pipeline.turn(step, writes)

    @rule(partition=st.integers(0, PARTITIONS - 1), back=st.integers(1, 5))
    def late_partial(self, partition: int, back: int) -> None:
        """A process that was stopped and replaced wakes up and sends what it had in hand."""
        sent = self.pipeline.partials[partition]
        if len(sent) >= back:
            sent.append(sent[-back])

    def _is_killed(self, data: st.DataObject, step: Step, writes: list[Write]) -> bool:
        """Of a changelog partition a beginning lands, of the rest any of it."""
        if not data.draw(st.booleans(), label="killed"):
            return False
        ended: set[int] = set()
        for write in writes:
            kind, key, value = write
            if kind == "changelog":
                partition = value["partition"] if step is self.pipeline.first else home(key[0])
                if partition in ended:
                    continue
            if data.draw(st.booleans(), label=f"{kind} {key} lands"):
                self.pipeline.land(step, write)
            elif kind == "changelog":
                ended.add(partition)
        return True

    def teardown(self) -> None:
        self.pipeline.finish()
        insights = {bucket: counts for bucket, counts in self.pipeline.insights.items() if counts}
        assert insights == self.pipeline.recount()


TestKilled = Killed.TestCase
TestKilled.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)


def test_a_bucket_left_long_ago_is_told_again_on_replay() -> None:
    """Counted in three windows in turn; all that the last two sent is lost with the process."""
    pipeline = Pipeline()
    pipeline.publish(0, BUCKETS[0], "food")
    pipeline.finish()
    pipeline.publish(0, BUCKETS[1], "food")
    pipeline.publish(0, BUCKETS[2], "food")
    while pipeline.count(0):
        pass
    for write in pipeline.first_writes():
        if write[0] == "changelog":
            pipeline.land(pipeline.first, write)
    pipeline.start_first()
    pipeline.finish()
    assert {bucket: counts for bucket, counts in pipeline.insights.items() if counts} == (
        pipeline.recount()
    )
    assert pipeline.insights[BUCKETS[0]] == {}


def test_a_partial_that_comes_late_changes_nothing() -> None:
    pipeline = Pipeline()
    for topic in TOPICS:
        pipeline.publish(0, BUCKETS[0], topic)
        pipeline.finish()
    sent = pipeline.partials[home("a")]
    sent.append(sent[0])
    pipeline.finish()
    assert pipeline.insights == pipeline.recount()


def test_closed_windows_are_forgotten_and_open_ones_are_not() -> None:
    pipeline = Pipeline()
    for number, bucket in enumerate(BUCKETS):
        pipeline.publish(number, bucket, "food")
    pipeline.publish(0, BUCKETS[1], "food")
    pipeline.finish()
    assert pipeline.contributions.forget(2 * HOUR, HOUR) == 2
    assert pipeline.totals.forget(2 * HOUR, HOUR) == 1
    assert set(pipeline.first.entries) == {"r0", "r1"}
    assert pipeline.first.entries["r0"]["left"] == []
    assert pipeline.totals.total(BUCKETS[1])[("reviews",)] == 2
