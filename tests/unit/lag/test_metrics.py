"""What a scrape shows between two measurements."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from reviewmesh.lag.groups import WatchedGroup
from reviewmesh.lag.heads import Head
from reviewmesh.lag.meter import PartitionLag, Snapshot
from reviewmesh.lag.metrics import ALL, LagCollector

LABELS = {"group": "g", "topic": "t", "partition": "3"}
SECONDS = "kafka_consumergroup_group_lag_seconds"
AGE = "reviewmesh_lag_measurement_age_seconds"


def row(head: Head | None) -> PartitionLag:
    return PartitionLag("g", "t", 3, 10, 12, 2, 0 if head is None else 1, 10, head, 95.0)


class Scrapes:
    """A collector at a time that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.collector = LagCollector(lambda: self.now)
        self.registry = CollectorRegistry()
        self.registry.register(self.collector)

    def value(self, name: str, labels: dict[str, str] | None = None) -> float | None:
        return self.registry.get_sample_value(name, labels)


def test_caught_up_is_zero_and_not_absent() -> None:
    scrapes = Scrapes()
    assert scrapes.value(SECONDS, LABELS) is None
    scrapes.collector.show(Snapshot(100.0, (row(None),), {WatchedGroup("g", "ner", ()): 0.0}))
    scrapes.now = 500.0
    assert scrapes.value(SECONDS, LABELS) == 0
    assert scrapes.value("reviewmesh_oldest_review_seconds", LABELS) == 0
    assert scrapes.value("reviewmesh_backlog_records", LABELS) == 0
    assert scrapes.value("kafka_consumergroup_group_lag", LABELS) == 2
    assert scrapes.value("reviewmesh_last_commit_age_seconds", LABELS) == 405
    drain = {"group": "g", "task": "ner"}
    assert scrapes.value("reviewmesh_time_to_drain_seconds", drain) == 0


def test_an_unfinished_record_grows_older_without_a_new_measurement() -> None:
    scrapes = Scrapes()
    scrapes.collector.show(Snapshot(100.0, (row(Head(11, 90_000, 70_000)),)))
    scrapes.now = 130.0
    assert scrapes.value(SECONDS, LABELS) == 40
    assert scrapes.value("reviewmesh_oldest_review_seconds", LABELS) == 60


def test_a_producer_whose_clock_is_ahead_gives_no_negative_age() -> None:
    scrapes = Scrapes()
    scrapes.collector.show(Snapshot(100.0, (row(Head(11, 900_000, 900_000)),)))
    assert scrapes.value(SECONDS, LABELS) == 0


def test_a_measurement_with_problems_does_not_count_as_one() -> None:
    scrapes = Scrapes()
    scrapes.collector.show(Snapshot(100.0))
    scrapes.now = 130.0
    scrapes.collector.show(Snapshot(130.0, problems=("the broker is away",)))
    assert scrapes.value(AGE) == 30
    scrapes.collector.show(Snapshot(130.0))
    assert scrapes.value(AGE) == 0


def test_every_metric_says_what_it_means_and_in_which_unit() -> None:
    for gauge in ALL:
        unit = "Seconds" if gauge.name.endswith("_seconds") else "Records"
        assert gauge.meaning.startswith(unit), gauge.name
