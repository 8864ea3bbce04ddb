"""`reviewmesh forget`: says where a review is still held, and has its content replaced."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from reviewmesh.cli.errors import CommandFailed
from reviewmesh.cli.names import short_topic
from reviewmesh.cli.tables import Column, FittingTable
from reviewmesh.cli.terminal import err, json_text, out
from reviewmesh.intake.erasure import REPLACEMENT
from reviewmesh.query.connection import Connection, connect
from reviewmesh.query.forgetting import ELSEWHERE, HeldRecord, can_erase, erase, held
from reviewmesh.query.values import iso
from reviewmesh_schemas.names import DEAD_LETTER, PARTIAL


def forget(
    review_id: Annotated[str, typer.Argument(help="The id of the review.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Write a tombstone; without it nothing is changed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="All of it as one line of JSON.")] = False,
) -> None:
    """Say where a review is held, and until when; with --yes replace its content.

    Kafka deletes no single record of a topic. A tombstone has intake accept a newer version of
    the review with the text "(erased)", for consumers to keep instead. The records go with their
    retention, and replays of its dead letters take no effect.
    """
    connection = connect()
    found = held(connection, review_id)
    if not found:
        err.print(f"{review_id!r} is in no topic of this mesh")
        if not as_json:
            _print_elsewhere()
        raise typer.Exit(1)
    erasable = can_erase(found)
    place = _erased(connection, review_id) if yes and erasable else None
    if as_json:
        print(json_text(_as_json(connection, review_id, found, erasable, place)))
        return
    out.print(table_of(found))
    for line in _notes(found):
        out.print(line)
    _print_elsewhere()
    out.print(_done(erasable, place))


def _erased(connection: Connection, review_id: str) -> tuple[int, int]:
    try:
        return erase(connection, review_id)
    except ValueError:
        raise CommandFailed(
            f"expected an id in Unicode, got {review_id!r}: no review of that id can be published"
        ) from None


def table_of(found: list[HeldRecord]) -> FittingTable:
    last = Column("deleted at the latest", wraps=True)
    table = FittingTable("topic", "place", "time", last)
    for item in found:
        record = item.occurrence.record
        table.add_row(
            short_topic(record.topic),
            f"{record.partition}/{record.offset}",
            iso(record.timestamp_ms),
            item.no_time if item.deleted_by is None else iso(item.deleted_by),
        )
    return table


def _notes(found: list[HeldRecord]) -> list[str]:
    topics = {item.occurrence.record.topic for item in found}
    notes = [
        "these times hold while the brokers run; Kafka can delete a record earlier only together "
        "with everything before it in its partition"
    ]
    if PARTIAL in topics:
        notes.append(
            f"{PARTIAL} belongs to the joiner, which erases the review there once a newer version "
            "is complete or its late window is over; nothing is written there from outside"
        )
    if DEAD_LETTER in topics:
        notes.append("once it is erased, replays of these dead letters take no effect")
    return notes


def _print_elsewhere() -> None:
    out.print("not in the topics of the mesh, and not looked at:")
    for where, what in ELSEWHERE:
        out.print(f"  {where}: {what}")


def _done(erasable: bool, place: tuple[int, int] | None) -> str:
    if place is not None:
        return (
            f'a tombstone is at {place[0]}/{place[1]} of the raw topic; "{REPLACEMENT}" comes out '
            "as a newer version"
        )
    if erasable:
        return f'nothing was changed; --yes has "{REPLACEMENT}" come out as a newer version'
    return "nothing to erase: only tombstones are left"


def _as_json(
    connection: Connection,
    review_id: str,
    found: list[HeldRecord],
    erasable: bool,
    place: tuple[int, int] | None,
) -> dict[str, Any]:
    return {
        "review_id": review_id,
        "records": [
            {
                "topic": connection.topic(item.occurrence.record.topic),
                "partition": item.occurrence.record.partition,
                "offset": item.occurrence.record.offset,
                "time": iso(item.occurrence.record.timestamp_ms),
                "outcome": item.occurrence.outcome,
                "deleted_by": None if item.deleted_by is None else iso(item.deleted_by),
                "no_time": item.no_time or None,
            }
            for item in found
        ],
        "elsewhere": [{"where": where, "what": what} for where, what in ELSEWHERE],
        "replaceable": erasable,
        "replaced_at": None if place is None else f"{place[0]}/{place[1]}",
    }
