"""Measures every watched group, for the service and for `reviewmesh lag`.

Ends and committed offsets are requested in a few batches. Of the records only the oldest unfinished
one of each partition is read, and only when it has changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from reviewmesh.clock import Clock
from reviewmesh.kafka.partitions import BrokerPartition
from reviewmesh.lag.arrivals import Arrivals
from reviewmesh.lag.groups import WatchedGroup
from reviewmesh.lag.heads import Head, HeadReader, Stretch
from reviewmesh.lag.offsets import Broker, Committed, Ends, GroupProgress, RequestFailure
from reviewmesh.lag.rates import DrainRate

# A head may be compacted away without a commit.
LOOK_AGAIN_AFTER_S = 60.0

GroupPartition = tuple[str, BrokerPartition]
"""A group, and a partition that it reads."""


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """One group on one partition."""

    group: str
    topic: str
    partition: int
    committed: int
    end: int
    lag: int
    """Kafka's own lag: end minus committed offset, transaction markers included."""
    backlog: int
    """Unfinished records, without those finished beyond the committed offset."""
    finished: int
    """Grows by one with every finished record."""
    head: Head | None
    """The oldest unfinished record; None when there is none."""
    commit_seen_at: float
    """When the commit was last seen to change, or when watching began."""

    def seconds(self, now: float) -> float:
        """The age of the oldest unfinished record; 0 when caught up."""
        return 0.0 if self.head is None else max(0.0, now - self.head.timestamp_ms / 1000)

    def review_seconds(self, now: float) -> float:
        """The same, since its producer published the review."""
        return 0.0 if self.head is None else max(0.0, now - self.head.origin_ms / 1000)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The result of one measurement."""

    measured_at: float
    rows: tuple[PartitionLag, ...] = ()
    time_to_drain: Mapping[WatchedGroup, float] = field(default_factory=dict)
    held_since: Mapping[BrokerPartition, float | None] = field(default_factory=dict)
    """Since when an open transaction has blocked readers; None without one."""
    stable_ends: Mapping[BrokerPartition, int] = field(default_factory=dict)
    """Last stable offsets: the first record of an open transaction, if there is one."""
    problems: tuple[str, ...] = ()
    """What could not be measured; its rows are the last known ones."""


@dataclass(slots=True)
class Watched:
    """State of a group's partition between measurements."""

    committed: Committed | None
    progress: GroupProgress
    commit_seen_at: float
    searched: Stretch | None = None
    searched_at: float = 0.0
    head: Head | None = None
    row: PartitionLag | None = None

    def knows_head_of(self, wanted: Stretch, now: float) -> bool:
        """Whether the head of the last measurement is still valid."""
        if self.searched is None or wanted.start < self.searched.start:
            return False
        if now - self.searched_at > LOOK_AGAIN_AFTER_S:
            return False
        if wanted.topic_id != self.searched.topic_id or wanted.end < self.searched.end:
            # The topic was created again and has other records. An end never decreases.
            return False
        if self.head is None:
            return wanted.end == self.searched.end
        return self.head.offset >= wanted.start and not wanted.progress.covers(self.head.offset)


class LagMeter:
    """Keeps what it read, so that frequent measurements cost little."""

    def __init__(self, broker: Broker, groups: Sequence[WatchedGroup], clock: Clock) -> None:
        self._broker = broker
        self._groups = groups
        self._clock = clock
        self._reader = HeadReader(lambda: broker.stable)
        self._open_reader = HeadReader(lambda: broker.open)
        self._watched: dict[GroupPartition, Watched] = {}
        self._rates: dict[tuple[str, str], DrainRate] = defaultdict(DrainRate)
        self._stable_ends: dict[BrokerPartition, int] = {}
        self._arrivals: dict[BrokerPartition, Arrivals] = defaultdict(Arrivals)
        self._held_since: dict[BrokerPartition, float | None] = {}
        self._last = Snapshot(clock())

    def close(self) -> None:
        self._broker.close()

    def measure(self) -> Snapshot:
        """Every group on every partition that it reads."""
        now = self._clock()
        problems: list[str] = []
        self._groups = [
            group.grown(self._broker.partitions(group.more_of)) if group.more_of else group
            for group in self._groups
        ]
        commits = self._broker.committed({group.name: group.partitions for group in self._groups})
        failures = [found for found in commits.values() if isinstance(found, RequestFailure)]
        if len(failures) == len(commits):
            self._broker.renew()
            away = self._broker.away(failures[0])
            return replace(self._last, measured_at=now, problems=(away,))
        reads = {group: self._partitions_of(group, commits[group.name]) for group in self._groups}
        asked_at = self._clock()
        ends = self._broker.ends(
            {partition for partitions in reads.values() for partition in partitions}
        )
        self._note_ends(ends, asked_at)
        for group, partitions in reads.items():
            self._take_commits(
                group, partitions, commits=commits[group.name], now=now, problems=problems
            )
        keys = [
            (group.name, partition)
            for group, partitions in reads.items()
            for partition in partitions
        ]
        self._watched = {key: self._watched[key] for key in keys if key in self._watched}
        self._measure_rows(ends, now, problems)
        watched = (self._watched[key] for key in keys if key in self._watched)
        rows = tuple(item.row for item in watched if item.row is not None)
        self._last = Snapshot(
            measured_at=now,
            rows=rows,
            time_to_drain=self._time_to_drain(rows, now),
            held_since=self._held_since,
            stable_ends=self._stable_ends,
            problems=tuple(dict.fromkeys(problems)),
        )
        return self._last

    def _partitions_of(
        self, group: WatchedGroup, commits: dict[BrokerPartition, Committed] | RequestFailure
    ) -> Sequence[BrokerPartition]:
        if group.reads_all:
            return group.partitions
        if isinstance(commits, RequestFailure):
            return [partition for name, partition in self._watched if name == group.name]
        return [partition for partition in group.partitions if partition in commits]

    def _note_ends(
        self, ends: Mapping[BrokerPartition, Ends | RequestFailure], asked_at: float
    ) -> None:
        answered_at = self._clock()
        for partition in self._arrivals.keys() - ends.keys():
            del self._arrivals[partition]
        for partition, found in ends.items():
            if not isinstance(found, RequestFailure):
                self._arrivals[partition].saw(found.end, found.topic_id, asked_at, answered_at)

    # -- commits -----------------------------------------------------------------------------

    def _take_commits(
        self,
        group: WatchedGroup,
        partitions: Sequence[BrokerPartition],
        commits: dict[BrokerPartition, Committed] | RequestFailure,
        now: float,
        problems: list[str],
    ) -> None:
        if isinstance(commits, RequestFailure):
            problems.append(f"group {group.name}: {commits.reason}")
            return
        for partition in partitions:
            committed = commits.get(partition)
            watched = self._watched.get((group.name, partition))
            if watched is None:
                watched = self._watched[group.name, partition] = Watched(
                    None, GroupProgress(0), now
                )
            if watched.committed != committed:
                watched.committed = committed
                watched.progress = GroupProgress(0) if committed is None else committed.progress()
                watched.commit_seen_at = now

    # -- rows --------------------------------------------------------------------------------

    def _measure_rows(
        self, ends: Mapping[BrokerPartition, Ends | RequestFailure], now: float, problems: list[str]
    ) -> None:
        wanted: dict[GroupPartition, Stretch] = {}
        reach: dict[GroupPartition, Ends] = {}
        for key, watched in self._watched.items():
            found = ends[key[1]]
            if isinstance(found, RequestFailure):
                problems.append(f"{key[1][0]}: {found.reason}")
                if found.gone:
                    watched.row = watched.searched = watched.head = None
                continue
            reach[key] = found
            progress = found.reached(watched.progress)
            start = max(progress.committed, found.start)
            wanted[key] = Stretch(
                partition=key[1],
                start=start,
                end=found.stable,
                progress=progress,
                topic_id=found.topic_id,
            )
        self._find_heads(wanted, now, problems)
        open_heads = self._find_open_heads(wanted, reach)
        for key, stretch in wanted.items():
            watched = self._watched[key]
            if watched.searched is stretch or watched.knows_head_of(stretch, now):
                head = watched.head or open_heads.get(key)
                if head is not None:
                    head = _in_time(head, self._arrivals[key[1]])
                watched.row = _row(
                    key, watched, progress=stretch.progress, ends=reach[key], head=head
                )
        self._held_since = {key[1]: self._since(key[1], found, now) for key, found in reach.items()}
        self._stable_ends = {key[1]: found.stable for key, found in reach.items()}

    def _since(self, partition: BrokerPartition, ends: Ends, now: float) -> float | None:
        """The mesh's own transactions move the last stable offset many times a second."""
        if ends.stable == ends.end:
            return None
        known = self._held_since.get(partition)
        if known is None or self._stable_ends.get(partition) != ends.stable:
            return now
        return known

    def _find_heads(
        self, wanted: dict[GroupPartition, Stretch], now: float, problems: list[str]
    ) -> None:
        """Read unknown heads; an empty stretch needs no read."""
        unknown = {
            key: stretch
            for key, stretch in wanted.items()
            if not self._watched[key].knows_head_of(stretch, now)
        }
        heads: dict[Stretch, Head | None] = {
            stretch: None for stretch in unknown.values() if stretch.start >= stretch.end
        }
        heads |= self._reader.read(s for s in unknown.values() if s.start < s.end)
        for key, stretch in unknown.items():
            if stretch not in heads:
                problems.append(f"{key[1][0]}/{key[1][1]}: nothing came of it in time")
                continue
            watched = self._watched[key]
            watched.searched, watched.searched_at = stretch, now
            watched.head = heads[stretch]

    def _find_open_heads(
        self, wanted: dict[GroupPartition, Stretch], reach: dict[GroupPartition, Ends]
    ) -> dict[GroupPartition, Head]:
        """The first record of a transaction that stays open, for groups that wait for its end.

        A transaction that ends between two measurements blocks nobody.
        """
        waiting = {
            key: Stretch(key[1], max(stretch.start, found.stable), found.end, stretch.progress)
            for key, stretch in wanted.items()
            if (found := reach[key]).end > found.stable == self._stable_ends.get(key[1])
            and self._watched[key].head is None
        }
        heads = self._open_reader.read(waiting.values())
        found_heads = {key: heads.get(stretch) for key, stretch in waiting.items()}
        return {key: head for key, head in found_heads.items() if head is not None}

    # -- rates -------------------------------------------------------------------------------

    def _time_to_drain(self, rows: Sequence[PartitionLag], now: float) -> dict[WatchedGroup, float]:
        """Per group, that of its slowest topic at the topic's observed rate."""
        totals: dict[tuple[str, str], tuple[int, int]] = {}
        for row in rows:
            finished, backlog = totals.get((row.group, row.topic), (0, 0))
            totals[row.group, row.topic] = (finished + row.finished, backlog + row.backlog)
        for gone in self._rates.keys() - totals.keys():
            del self._rates[gone]
        times: dict[str, float] = {}
        for (group, topic), (finished, backlog) in totals.items():
            seconds = self._rates[group, topic].observe(now, finished, backlog)
            times[group] = max(seconds, times.get(group, 0.0))
        return {group: times[group.name] for group in self._groups if group.name in times}


def _in_time(head: Head, arrivals: Arrivals) -> Head:
    """With the time of its arrival in place of a broker's timestamp that cannot be."""
    if not head.appended:
        return head
    arrived_ms = int(1000 * arrivals.arrived_at(head.offset, head.timestamp_ms / 1000))
    own = head.origin_ms == head.timestamp_ms
    origin_ms = arrived_ms if own else min(head.origin_ms, arrived_ms)
    return replace(head, timestamp_ms=arrived_ms, origin_ms=origin_ms)


def _row(
    key: GroupPartition, watched: Watched, progress: GroupProgress, ends: Ends, head: Head | None
) -> PartitionLag:
    group, (topic, partition) = key
    start = max(progress.committed, ends.start)
    backlog = 0
    if head is not None:
        done = sum(head.offset < offset < ends.end for offset in progress.finished)
        backlog = ends.end - head.offset - done
    return PartitionLag(
        group=group,
        topic=topic,
        partition=partition,
        committed=start,
        end=ends.end,
        lag=max(0, ends.end - start),
        backlog=backlog,
        finished=start + sum(offset >= start for offset in progress.finished),
        head=head,
        commit_seen_at=watched.commit_seen_at,
    )
