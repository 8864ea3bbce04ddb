"""`reviewmesh find`: shows all records of one review in the mesh."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from reviewmesh.cli.lag import print_left_open
from reviewmesh.cli.names import short_topic
from reviewmesh.cli.tables import Column, FittingTable
from reviewmesh.cli.terminal import err, json_text, out, shortened
from reviewmesh.query.connection import connect
from reviewmesh.query.lag import measure_lag
from reviewmesh.query.search import Occurrence, occurrences_of
from reviewmesh.query.values import iso

SHOWN_OUTCOME = 500


def find(
    review_id: Annotated[str, typer.Argument(help="The id to look for.")],
    as_lines: Annotated[bool, typer.Option("--json", help="One line of JSON a record.")] = False,
) -> None:
    """Show where a review is: topic, partition, offset, time and outcome."""
    connection = connect()
    found = occurrences_of(connection, review_id)
    if not any(occurrence.is_last for occurrence in found):
        # Records after an open transaction are not visible.
        print_left_open(measure_lag(connection))
    if not found:
        err.print(f"{review_id!r} is in no topic of this mesh")
        raise typer.Exit(1)
    if as_lines:
        for occurrence in found:
            print(json_text(_as_json(occurrence, connection.topic(occurrence.record.topic))))
    else:
        out.print(table_of(found))


def table_of(found: list[Occurrence]) -> FittingTable:
    table = FittingTable("topic", "place", "time", Column("outcome", wraps=True))
    for occurrence in found:
        record = occurrence.record
        table.add_row(
            short_topic(record.topic),
            f"{record.partition}/{record.offset}",
            iso(record.timestamp_ms),
            shortened(occurrence.outcome, SHOWN_OUTCOME),
        )
    return table


def _as_json(occurrence: Occurrence, topic: str) -> dict[str, Any]:
    record = occurrence.record
    return {
        "topic": topic,
        "partition": record.partition,
        "offset": record.offset,
        "time": iso(record.timestamp_ms),
        "outcome": occurrence.outcome,
    }
