"""Every metric of the lag service, declared once with its meaning and unit.

Ages are computed at the scrape, so that they grow between two measurements, and also while the
broker is away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from reviewmesh.clock import Clock
from reviewmesh.lag.groups import WatchedGroup
from reviewmesh.lag.meter import Snapshot


@dataclass(frozen=True, slots=True)
class Gauge:
    """A gauge whose samples come from the last measurement."""

    name: str
    meaning: str
    labels: tuple[str, ...] = ()

    def family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self.name, self.meaning, labels=self.labels)


PARTITION = ("group", "topic", "partition")

LAG = Gauge(
    "kafka_consumergroup_group_lag",
    "Records between the committed offset and the end of the partition, as Kafka counts lag.",
    PARTITION,
)
LAG_SECONDS = Gauge(
    "kafka_consumergroup_group_lag_seconds",
    "Seconds since the oldest unfinished record arrived: by its timestamp, or where that cannot "
    "be, by when it was first seen; 0 when caught up.",
    PARTITION,
)
BACKLOG = Gauge(
    "reviewmesh_backlog_records",
    "Records that are not finished: the lag without what is finished beyond the commit.",
    PARTITION,
)
OLDEST_REVIEW = Gauge(
    "reviewmesh_oldest_review_seconds",
    "Seconds since the review of the oldest unfinished record was published; 0 when caught up.",
    PARTITION,
)
COMMIT_AGE = Gauge(
    "reviewmesh_last_commit_age_seconds",
    "Seconds since the commit last changed, or since this process began to watch it.",
    PARTITION,
)
TIME_TO_DRAIN = Gauge(
    "reviewmesh_time_to_drain_seconds",
    "Seconds that the backlog takes at the rate of the last minute; infinite if nothing moves.",
    ("group", "task"),
)
MEASUREMENT_AGE = Gauge(
    "reviewmesh_lag_measurement_age_seconds",
    "Seconds since the last complete measurement.",
)
OPEN_TRANSACTION = Gauge(
    "reviewmesh_open_transaction_seconds",
    "Seconds for which an open transaction has held up readers of the partition; 0 without one.",
    ("topic", "partition"),
)
ALL = (
    LAG,
    LAG_SECONDS,
    BACKLOG,
    OLDEST_REVIEW,
    COMMIT_AGE,
    TIME_TO_DRAIN,
    OPEN_TRANSACTION,
    MEASUREMENT_AGE,
)


class LagCollector(Collector):
    """Exports a snapshot, which the measuring thread replaces."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._snapshot = Snapshot(clock())
        self._complete_at = clock()

    def show(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        if not snapshot.problems:
            self._complete_at = snapshot.measured_at

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [gauge.family() for gauge in ALL]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        now, snapshot = self._clock(), self._snapshot
        lag, backlog = LAG.family(), BACKLOG.family()
        seconds, oldest, commits = LAG_SECONDS.family(), OLDEST_REVIEW.family(), COMMIT_AGE.family()
        for row in snapshot.rows:
            labels = [row.group, row.topic, str(row.partition)]
            lag.add_metric(labels, row.lag)
            backlog.add_metric(labels, row.backlog)
            seconds.add_metric(labels, row.seconds(now))
            oldest.add_metric(labels, row.review_seconds(now))
            commits.add_metric(labels, max(0.0, now - row.commit_seen_at))
        yield from (lag, backlog, seconds, oldest, commits, _drain(snapshot))
        yield _open_transactions(snapshot, now)
        age = MEASUREMENT_AGE.family()
        age.add_metric([], max(0.0, now - self._complete_at))
        yield age


def _drain(snapshot: Snapshot) -> GaugeMetricFamily:
    family = TIME_TO_DRAIN.family()
    group: WatchedGroup
    for group, seconds in snapshot.time_to_drain.items():
        family.add_metric([group.name, group.task], seconds)
    return family


def _open_transactions(snapshot: Snapshot, now: float) -> GaugeMetricFamily:
    family = OPEN_TRANSACTION.family()
    for (topic, partition), since in snapshot.held_since.items():
        held_s = 0.0 if since is None else max(0.0, now - since)
        family.add_metric([topic, str(partition)], held_s)
    return family
