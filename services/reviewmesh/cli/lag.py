"""`reviewmesh lag`: how far behind each group is, in records and in seconds."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from reviewmesh.cli.connection import Connection, connect
from reviewmesh.cli.errors import CannotReach
from reviewmesh.cli.reading import Place
from reviewmesh.cli.render import iso
from reviewmesh.cli.terminal import err, json_text, out
from reviewmesh.clock import wall_clock
from reviewmesh.lag.groups import watched_groups
from reviewmesh.lag.meter import LagMeter, PartitionLag, Snapshot
from reviewmesh.lag.offsets import Broker, Committed, Ends, Failure, Progress

WATCH_EVERY_S = 1.0
# The mesh's own transactions are open for milliseconds.
LEFT_OPEN_AFTER_S = 2.0
NUMBERS = ("committed", "end", "lag", "unfinished", "seconds")


def lag(
    as_lines: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Show what each group has not finished yet, in records and in seconds."""
    if as_lines and watch:
        raise typer.BadParameter("--json and --watch do not go together")
    with _meter(connect()) as meter:
        if watch:
            _watch(meter)
            return
        snapshot = _twice_where_open(meter)
    if not snapshot.rows and snapshot.problems:
        raise CannotReach(f"nothing could be measured: {snapshot.problems[0]}")
    if as_lines:
        now = time.time()
        print(json_text([_as_json(row, now) for row in snapshot.rows]))
    else:
        out.print(_partitions(snapshot))
    print_left_open(snapshot)
    for problem in snapshot.problems:
        err.print(f"not measured: {problem}", style="red")
    if snapshot.problems:
        raise CannotReach("the numbers above leave something out")


def progress_of(connection: Connection, group: str, wanted: list[Place]) -> dict[Place, Progress]:
    """What `group` (without the prefix) has committed; no commit is an offset of 0.

    Raises CannotReach.
    """
    name = connection.settings.prefix + group
    places = [(connection.topic(topic), number) for topic, number in wanted]
    broker = Broker(connection.settings)
    try:
        found = broker.committed({name: places})[name]
        ends = broker.ends(places)
    finally:
        broker.close()
    if isinstance(found, Failure):
        raise CannotReach(f"what {name} has committed: {found.reason}; see `reviewmesh ps`")
    return {
        place: _progress(found.get(on_broker), ends[on_broker])
        for place, on_broker in zip(wanted, places, strict=True)
    }


def _progress(committed: Committed | None, ends: Ends | Failure) -> Progress:
    if isinstance(ends, Failure):
        raise CannotReach(f"where a topic ends: {ends.reason}; see `reviewmesh ps`")
    return Progress(0) if committed is None else ends.reached(committed.progress())


@contextmanager
def _meter(connection: Connection) -> Iterator[LagMeter]:
    settings = connection.settings
    meter = LagMeter(Broker(settings), watched_groups(settings), wall_clock)
    try:
        yield meter
    finally:
        meter.close()


def measured(connection: Connection) -> Snapshot:
    """One measurement of every group, long enough to tell a transaction that was left open."""
    with _meter(connection) as meter:
        return _twice_where_open(meter)


def print_left_open(snapshot: Snapshot) -> None:
    for words in _left_open(snapshot):
        err.print(words, style="yellow", markup=False, highlight=False)


def _twice_where_open(meter: LagMeter) -> Snapshot:
    """Twice where a transaction is open: one that stays is what holds records up."""
    snapshot = meter.measure()
    if any(since is not None for since in snapshot.held_since.values()):
        time.sleep(LEFT_OPEN_AFTER_S)
        snapshot = meter.measure()
    return snapshot


def _left_open(snapshot: Snapshot) -> list[str]:
    return [
        f"{topic}/{partition}: a transaction that a producer left open at offset "
        f"{snapshot.stable_ends[topic, partition]} holds up what comes after it; see "
        "docs/runbook.md"
        for (topic, partition), since in snapshot.held_since.items()
        if since is not None and snapshot.measured_at - since >= LEFT_OPEN_AFTER_S / 2
    ]


def _watch(meter: LagMeter) -> None:
    """Measure again and again, until Ctrl-C; one table below the other where no screen shows it."""
    try:
        while not out.is_terminal:
            out.print(iso(int(time.time() * 1000)), _live(meter.measure()))
            out.file.flush()
            time.sleep(WATCH_EVERY_S)
        with Live(console=out, auto_refresh=False) as live:
            while True:
                live.update(_live(meter.measure()), refresh=True)
                time.sleep(WATCH_EVERY_S)
    except KeyboardInterrupt:
        return


def _as_json(row: PartitionLag, now: float) -> dict[str, Any]:
    return {
        "group": row.group,
        "topic": row.topic,
        "partition": row.partition,
        "committed": row.committed,
        "end": row.end,
        "lag": row.lag,
        "unfinished": row.backlog,
        "seconds": round(row.seconds(now), 3),
    }


def _partitions(snapshot: Snapshot) -> Table:
    table = Table(box=None)
    for name in ("group", "topic"):
        table.add_column(name, overflow="fold")
    for name in ("partition", *NUMBERS):
        table.add_column(name, justify="right")
    now = time.time()
    for row in snapshot.rows:
        table.add_row(
            row.group,
            row.topic,
            *map(str, (row.partition, row.committed, row.end, row.lag, row.backlog)),
            f"{row.seconds(now):.1f}",
            style="yellow" if row.backlog else "",
        )
    return table


def _live(snapshot: Snapshot) -> Group:
    """A line per group and topic: a screen has no room for every partition."""
    table = Table(box=None)
    for name in ("group", "topic"):
        table.add_column(name, overflow="fold")
    for name in ("lag", "unfinished", "seconds", "last commit", "time to drain"):
        table.add_column(name, justify="right")
    now = time.time()
    drain = {group.name: seconds for group, seconds in snapshot.time_to_drain.items()}
    for group, topic in dict.fromkeys((row.group, row.topic) for row in snapshot.rows):
        rows = [row for row in snapshot.rows if (row.group, row.topic) == (group, topic)]
        backlog = sum(row.backlog for row in rows)
        table.add_row(
            group,
            topic,
            f"{sum(row.lag for row in rows):,}",
            f"{backlog:,}",
            f"{max(row.seconds(now) for row in rows):.1f}",
            f"{now - max(row.commit_seen_at for row in rows):.0f} s",
            "nothing moves" if math.isinf(drain[group]) else f"{drain[group]:.1f} s",
            style="yellow" if backlog else "",
        )
    problems = [Text(f"not measured: {problem}", style="red") for problem in snapshot.problems]
    left_open = [Text(words, style="yellow") for words in _left_open(snapshot)]
    return Group(table, *left_open, *problems)
