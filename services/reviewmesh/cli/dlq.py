"""`reviewmesh dlq`: dead letters, seen and sent again."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.table import Table

from reviewmesh.cli.connection import Connection, connect
from reviewmesh.cli.errors import CommandFailed
from reviewmesh.cli.publish import flush, make_producer, send
from reviewmesh.cli.reading import offsets, places, read_all, read_until
from reviewmesh.cli.render import as_json, err, iso, out, shortened
from reviewmesh.cli.tail import schema_of
from reviewmesh.runtime.codec import DecodeError
from reviewmesh.runtime.record import REPLAY

DEAD_LETTER = "reviews.dead-letter"
ALL_TASKS = b"all"
PLACE = re.compile(r"(\d+)/(\d+)")

app = typer.Typer(help="Dead letters: list, show, send again.", no_args_is_help=True)


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter and where it lies."""

    partition: int
    offset: int
    timestamp_ms: int
    content: dict[str, Any]

    @property
    def place(self) -> str:
        return f"{self.partition}/{self.offset}"


Cause = Annotated[str | None, typer.Option(help="Only of this cause, such as FAILED or EMPTY.")]
Stage = Annotated[str | None, typer.Option(help="Only of this stage, such as intake.")]


@app.command("list")
def list_(
    cause: Cause = None,
    stage: Stage = None,
    as_lines: Annotated[bool, typer.Option("--json", help="One line of JSON a letter.")] = False,
) -> None:
    """List dead letters, oldest first in each partition."""
    letters = [item for item in _all(connect()) if _matches(item, cause, stage)]
    if as_lines:
        for item in letters:
            print(_json(item))
        return
    table = Table("place", "time", "stage", "cause", "review", "message", box=None)
    for item in letters:
        content = item.content
        table.add_row(
            item.place,
            iso(item.timestamp_ms),
            content["stage"],
            content["cause"],
            shortened(content["review_id"] or "-", 40),
            shortened(content["message"] or ""),
        )
    out.print(table if letters else "no dead letters", highlight=False)


@app.command()
def show(place: Annotated[str, typer.Argument(metavar="PARTITION/OFFSET")]) -> None:
    """Show one dead letter as JSON; bytes are in base64."""
    print(_json(_at(connect(), place), indent=2))


@app.command()
def replay(
    chosen: Annotated[
        list[str] | None, typer.Argument(metavar="[PARTITION/OFFSET]...", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that match the filters.")] = False,
    cause: Cause = None,
    stage: Stage = None,
) -> None:
    """Send dead letters to the topic that they were read from, past the dedupe of intake."""
    if bool(chosen) == everything:
        raise typer.BadParameter("name dead letters as PARTITION/OFFSET, or give --all")
    connection = connect()
    found = [_at(connection, place) for place in chosen] if chosen else _all(connection)
    letters = [item for item in found if _matches(item, cause, stage)]
    failures = _send(connection, letters)
    err.print(f"{len(letters) - len(failures)} replayed", highlight=False)
    if failures:
        raise CommandFailed(
            f"{len(failures)} dead letters were not taken, the first: {failures[0]}; replay it "
            "again"
        )


def _send(connection: Connection, letters: list[DeadLetter]) -> list[str]:
    """As they were read, marked as a replay. Gives what the broker refused."""
    producer, failures = make_producer(connection), []

    for item in letters:

        def delivered(error: Any, _message: Any, item: DeadLetter = item) -> None:
            if error is not None:
                failures.append(f"{item.place} ({error.str()})")

        content = item.content
        headers = [
            (header["key"], header["value"])
            for header in content["headers"]
            if header["key"] != REPLAY
        ]
        send(
            producer,
            connection.topic(content["topic"]),
            content["partition"],
            content["key"],
            content["value"],
            [*headers, (REPLAY, ALL_TASKS)],
            delivered,
        )
    flush(producer)
    return failures


def _all(connection: Connection) -> list[DeadLetter]:
    codec, letters = connection.codec(DEAD_LETTER), []
    for record in read_all(connection, places(connection, DEAD_LETTER)):
        try:
            content = codec.decode(record.value or b"")
        except DecodeError as error:
            place = f"{record.partition}/{record.offset}"
            err.print(f"{place}: no dead letter: {error}", style="red", markup=False)
            continue
        letters.append(DeadLetter(record.partition, record.offset, record.timestamp_ms, content))
    return sorted(letters, key=lambda item: (item.partition, item.offset))


def _at(connection: Connection, place: str) -> DeadLetter:
    match = PLACE.fullmatch(place)
    if match is None or int(match[1]) >= connection.partitions(DEAD_LETTER):
        raise typer.BadParameter(
            f"expected PARTITION/OFFSET with a partition below "
            f"{connection.partitions(DEAD_LETTER)}, got {place!r}"
        )
    at, offset = (DEAD_LETTER, int(match[1])), int(match[2])
    end = min(offset + 1, offsets(connection, [at])[at])
    for record in read_until(connection, {at: offset}, {at: end}):
        if record.offset == offset:
            content = connection.codec(DEAD_LETTER).decode(record.value or b"")
            return DeadLetter(record.partition, offset, record.timestamp_ms, content)
    raise CommandFailed(f"no dead letter lies at {place}; see `reviewmesh dlq list`")


def _matches(item: DeadLetter, cause: str | None, stage: str | None) -> bool:
    return cause in (None, item.content["cause"]) and stage in (None, item.content["stage"])


def _json(item: DeadLetter, indent: int | None = None) -> str:
    content = {"place": item.place, **as_json(schema_of(DEAD_LETTER), item.content)}
    return json.dumps(content, ensure_ascii=False, indent=indent)
