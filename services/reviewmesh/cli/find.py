"""`reviewmesh find`: shows all records of one review in the mesh."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from reviewmesh.cli.lag import print_left_open
from reviewmesh.cli.terminal import err, out, shortened
from reviewmesh.query.connection import connect
from reviewmesh.query.lag import measure_lag
from reviewmesh.query.search import occurrences_of
from reviewmesh.query.values import iso

SHOWN_OUTCOME = 500


def find(review_id: Annotated[str, typer.Argument(help="The id to look for.")]) -> None:
    """Show where a review is: topic, partition, offset, time and outcome."""
    connection = connect()
    found = occurrences_of(connection, review_id)
    if not any(occurrence.is_last for occurrence in found):
        # Records after an open transaction are not visible.
        print_left_open(measure_lag(connection))
    if not found:
        err.print(f"{review_id!r} is in no topic of this mesh")
        raise typer.Exit(1)
    table = Table("topic", "partition", "offset", "time", "outcome", box=None)
    for occurrence in found:
        record = occurrence.record
        table.add_row(
            connection.topic(record.topic),
            str(record.partition),
            str(record.offset),
            iso(record.timestamp_ms),
            shortened(occurrence.outcome, SHOWN_OUTCOME),
        )
    out.print(table)
