"""`reviewmesh lag`: how far behind each group is, in records and in seconds."""

from __future__ import annotations

import math
import time
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from reviewmesh.cli.names import short_group, short_topic
from reviewmesh.cli.tables import FittingTable, right
from reviewmesh.cli.terminal import err, json_text, out
from reviewmesh.lag.meter import LagMeter, PartitionLag, Snapshot
from reviewmesh.query.connection import connect
from reviewmesh.query.errors import CannotReach
from reviewmesh.query.lag import grouped_lag, lag_meter, measure_open_twice, open_transactions
from reviewmesh.query.values import iso

WATCH_EVERY_S = 1.0


def lag(
    as_lines: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C.")] = False,
) -> None:
    """Show what each group has not finished yet, in records and in seconds."""
    if as_lines and watch:
        raise typer.BadParameter("--json and --watch do not go together")
    connection = connect()
    prefix = connection.settings.prefix
    with lag_meter(connection) as meter:
        if watch:
            _watch(meter, prefix)
            return
        snapshot = measure_open_twice(meter)
    if not snapshot.rows and snapshot.problems:
        raise CannotReach(f"nothing could be measured: {snapshot.problems[0]}")
    if as_lines:
        now = time.time()
        print(json_text([_as_json(row, now) for row in snapshot.rows]))
    else:
        out.print(partitions_table(snapshot, prefix, time.time()))
    print_left_open(snapshot)
    for problem in snapshot.problems:
        err.print(f"not measured: {problem}", style="red")
    if snapshot.problems:
        raise CannotReach("the numbers above are incomplete")


def print_left_open(snapshot: Snapshot) -> None:
    for words in open_transactions(snapshot):
        err.print(words, style="yellow", markup=False, highlight=False)


def _watch(meter: LagMeter, prefix: str) -> None:
    """Measure until Ctrl-C; without a terminal, print one table after the other."""
    try:
        while not out.is_terminal:
            out.print(
                iso(int(time.time() * 1000)), live_table(meter.measure(), prefix, time.time())
            )
            out.file.flush()
            time.sleep(WATCH_EVERY_S)
        with Live(console=out, auto_refresh=False) as live:
            while True:
                live.update(live_table(meter.measure(), prefix, time.time()), refresh=True)
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


def partitions_table(snapshot: Snapshot, prefix: str, now: float) -> FittingTable:
    """A line per partition."""
    numbers = right("committed", "end", "lag", "unfinished", "seconds")
    table = FittingTable("group", "topic/partition", *numbers)
    for row in snapshot.rows:
        table.add_row(
            short_group(row.group, prefix),
            f"{short_topic(row.topic, prefix)}/{row.partition}",
            *map(str, (row.committed, row.end, row.lag, row.backlog)),
            f"{row.seconds(now):.1f}",
            style="yellow" if row.backlog else "",
        )
    return table


def live_table(snapshot: Snapshot, prefix: str, now: float) -> Group:
    """A line per group and topic: there are too many partitions for a screen."""
    numbers = right("lag", "unfinished", "seconds", "last commit", "time to drain")
    table = FittingTable("group", "topic", *numbers)
    for row in grouped_lag(snapshot, now):
        table.add_row(
            short_group(row.group, prefix),
            short_topic(row.topic, prefix),
            f"{row.lag:,}",
            f"{row.backlog:,}",
            f"{row.seconds:.1f}",
            f"{row.commit_age_s:.0f} s",
            "nothing moves" if math.isinf(row.drain_s) else f"{row.drain_s:.1f} s",
            style="yellow" if row.backlog else "",
        )
    problems = [Text(f"not measured: {problem}", style="red") for problem in snapshot.problems]
    held_up = [Text(words, style="yellow") for words in open_transactions(snapshot)]
    return Group(table, *held_up, *problems)
