"""The lag of every group, and transactions left open, which stop every reader behind them."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from reviewmesh.clock import wall_clock
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.lag.groups import watched_groups
from reviewmesh.lag.meter import LagMeter, PartitionLag, Snapshot
from reviewmesh.lag.offsets import Broker, GroupProgress, RequestFailure
from reviewmesh.query.connection import Connection
from reviewmesh.query.errors import CannotReach

# The mesh's own transactions are open for milliseconds.
LEFT_OPEN_AFTER_S = 2.0


def progress_of(
    connection: Connection, group: str, wanted: list[MeshPartition]
) -> dict[MeshPartition, GroupProgress]:
    """The progress of `group` (without the prefix); without a commit it is at offset 0.

    Raises CannotReach.
    """
    name = connection.settings.prefix + group
    partitions = [at.on_broker(connection.settings.prefix) for at in wanted]
    broker = Broker(connection.settings)
    try:
        found = broker.committed({name: partitions})[name]
        ends = broker.ends(partitions)
    finally:
        broker.close()
    if isinstance(found, RequestFailure):
        raise CannotReach(f"what {name} has committed: {found.reason}; see `reviewmesh ps`")
    progress = {}
    for at, on_broker in zip(wanted, partitions, strict=True):
        committed, end = found.get(on_broker), ends[on_broker]
        if isinstance(end, RequestFailure):
            raise CannotReach(f"the end of {on_broker.topic}: {end.reason}; see `reviewmesh ps`")
        progress[at] = GroupProgress(0) if committed is None else end.reached(committed.progress())
    return progress


@contextmanager
def lag_meter(connection: Connection) -> Iterator[LagMeter]:
    """A meter of every group of the mesh; closed at the end of the context."""
    settings = connection.settings
    meter = LagMeter(Broker(settings), watched_groups(settings), wall_clock)
    try:
        yield meter
    finally:
        meter.close()


def measure_lag(connection: Connection) -> Snapshot:
    """The lag of every group, measured so that `open_transactions` can be asked of it."""
    with lag_meter(connection) as meter:
        return measure_open_twice(meter)


def measure_open_twice(meter: LagMeter) -> Snapshot:
    """Measure again after LEFT_OPEN_AFTER_S if a transaction is open.

    Only one that is still open then was left open by its producer.
    """
    snapshot = meter.measure()
    if any(since is not None for since in snapshot.held_since.values()):
        time.sleep(LEFT_OPEN_AFTER_S)
        snapshot = meter.measure()
    return snapshot


@dataclass(frozen=True, slots=True)
class GroupLag:
    """A group on one topic: there are too many partitions for people."""

    group: str
    topic: str
    lag: int
    backlog: int
    seconds: float
    """Age of the oldest unfinished record."""
    commit_age_s: float
    drain_s: float
    """Of the whole group; infinite when nothing moves."""


def grouped_lag(snapshot: Snapshot, now: float) -> list[GroupLag]:
    """In the order of the snapshot. `now`: seconds since 1970, to which ages are counted."""
    rows: dict[tuple[str, str], list[PartitionLag]] = defaultdict(list)
    for row in snapshot.rows:
        rows[row.group, row.topic].append(row)
    drain = {group.name: seconds for group, seconds in snapshot.time_to_drain.items()}
    return [
        GroupLag(
            group=group,
            topic=topic,
            lag=sum(row.lag for row in found),
            backlog=sum(row.backlog for row in found),
            seconds=max(row.seconds(now) for row in found),
            commit_age_s=now - max(row.commit_seen_at for row in found),
            drain_s=drain[group],
        )
        for (group, topic), found in rows.items()
    ]


def open_transactions(snapshot: Snapshot) -> list[str]:
    """A sentence per transaction that its producer left open; see `measure_open_twice`."""
    return [
        f"{at.topic}/{at.partition}: a transaction that a producer left open at offset "
        f"{snapshot.stable_ends[at]} holds up what comes after it; see "
        "docs/runbook.md"
        for at, since in snapshot.held_since.items()
        if since is not None and snapshot.measured_at - since >= LEFT_OPEN_AFTER_S / 2
    ]
