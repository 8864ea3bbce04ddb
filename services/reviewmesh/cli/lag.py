"""`reviewmesh lag`: how far each group is behind, in records and in seconds."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from confluent_kafka import Consumer, TopicPartition
from rich.table import Table

from reviewmesh.cli.connection import Connection, connect
from reviewmesh.cli.reading import CALL_TIMEOUT_S, EARLIEST, Place, offsets, places, read_until
from reviewmesh.cli.render import out
from reviewmesh.runtime.ledger import decode_finished

ACCEPTED = "reviews.accepted"
RESULTS = ("reviews.ner", "reviews.topic", "reviews.sentiment")
INPUTS = {
    "reviewmesh-intake": ("reviews.raw",),
    "reviewmesh-enricher-ner": (ACCEPTED,),
    "reviewmesh-enricher-topic": (ACCEPTED,),
    "reviewmesh-enricher-sentiment": (ACCEPTED,),
    "reviewmesh-joiner": (ACCEPTED, *RESULTS),
}


@dataclass(frozen=True)
class Progress:
    """What a group has finished of one partition."""

    committed: int
    finished: frozenset[int]
    """Offsets beyond `committed` that are finished too."""

    def covers(self, offset: int) -> bool:
        return offset < self.committed or offset in self.finished


@dataclass(frozen=True)
class Lag:
    """One group on one partition; `unfinished` leaves out what is done beyond the commit."""

    group: str
    topic: str
    partition: int
    committed: int
    end: int
    lag: int
    unfinished: int
    seconds: float


def lag(
    as_lines: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
) -> None:
    """Show what each group has not finished yet, in records and in seconds."""
    rows = measure(connect())
    if as_lines:
        print(json.dumps([asdict(row) for row in rows]))
        return
    out.print(_table(rows))


def measure(connection: Connection) -> list[Lag]:
    """All groups on all of their partitions."""
    topics = sorted({topic for inputs in INPUTS.values() for topic in inputs})
    everywhere = places(connection, *topics)
    ends = offsets(connection, everywhere)
    starts = offsets(connection, everywhere, EARLIEST)
    return [
        row
        for group, inputs in INPUTS.items()
        for row in _of_group(connection, group, places(connection, *inputs), starts, ends)
    ]


def progress_of(connection: Connection, group: str, wanted: list[Place]) -> dict[Place, Progress]:
    """What `group` (without the prefix) has committed; no commit is an offset of 0."""
    options = {
        **connection.settings.kafka.as_librdkafka(),
        "group.id": connection.settings.prefix + group,
        "enable.auto.commit": "false",
        "log_level": "0",
    }
    # It asks for the group's commits and never joins the group.
    consumer: Any = Consumer(options)
    try:
        found = consumer.committed(
            [TopicPartition(connection.topic(topic), number) for topic, number in wanted],
            timeout=CALL_TIMEOUT_S,
        )
    finally:
        consumer.close()
    return {
        place: Progress(
            max(0, at.offset),
            frozenset(decode_finished(at.offset, at.metadata) if at.offset >= 0 else ()),
        )
        for place, at in zip(wanted, found, strict=True)
    }


def _of_group(
    connection: Connection,
    group: str,
    inputs: list[Place],
    starts: dict[Place, int],
    ends: dict[Place, int],
) -> list[Lag]:
    rows = []
    for place, progress in progress_of(connection, group, inputs).items():
        committed = max(progress.committed, starts[place])
        behind = max(0, ends[place] - committed)
        oldest = _oldest_unfinished(connection, place, committed, ends[place], progress)
        done_beyond = sum(committed <= offset < ends[place] for offset in progress.finished)
        rows.append(
            Lag(
                group=connection.settings.prefix + group,
                topic=connection.topic(place[0]),
                partition=place[1],
                committed=committed,
                end=ends[place],
                lag=behind,
                unfinished=0 if oldest is None else behind - done_beyond,
                seconds=0.0 if oldest is None else round(max(0.0, time.time() - oldest / 1000), 3),
            )
        )
    return rows


def _oldest_unfinished(
    connection: Connection, place: Place, committed: int, end: int, progress: Progress
) -> int | None:
    """Kafka's timestamp of the first record that is not finished; markers are no records."""
    for record in read_until(connection, {place: committed}, {place: end}):
        if not progress.covers(record.offset):
            return record.timestamp_ms
    return None


def _table(rows: list[Lag]) -> Table:
    numbers = ("committed", "end", "lag", "unfinished", "seconds")
    table = Table(box=None)
    for name in ("group", "topic"):
        table.add_column(name, overflow="fold")
    table.add_column("partition", justify="right")
    for name in numbers:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row.group,
            row.topic,
            str(row.partition),
            str(row.committed),
            str(row.end),
            str(row.lag),
            str(row.unfinished),
            f"{row.seconds:.1f}",
            style="yellow" if row.unfinished else "",
        )
    return table
