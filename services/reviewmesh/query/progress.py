"""The progress of groups, and open transactions that block them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from reviewmesh.clock import wall_clock
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.lag.groups import watched_groups
from reviewmesh.lag.meter import LagMeter, Snapshot
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
    settings = connection.settings
    meter = LagMeter(Broker(settings), watched_groups(settings), wall_clock)
    try:
        yield meter
    finally:
        meter.close()


def groups_of(connection: Connection) -> Snapshot:
    """A snapshot of every group that distinguishes transactions that were left open."""
    with lag_meter(connection) as meter:
        return measured_twice_where_open(meter)


def measured_twice_where_open(meter: LagMeter) -> Snapshot:
    """Measure again where a transaction is open: one that stays open blocks readers."""
    snapshot = meter.measure()
    if any(since is not None for since in snapshot.held_since.values()):
        time.sleep(LEFT_OPEN_AFTER_S)
        snapshot = meter.measure()
    return snapshot


def left_open(snapshot: Snapshot) -> list[str]:
    return [
        f"{at.topic}/{at.partition}: a transaction that a producer left open at offset "
        f"{snapshot.stable_ends[at]} holds up what comes after it; see "
        "docs/runbook.md"
        for at, since in snapshot.held_since.items()
        if since is not None and snapshot.measured_at - since >= LEFT_OPEN_AFTER_S / 2
    ]
