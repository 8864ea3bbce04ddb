"""`reviewmesh dlq`: dead letters, seen and sent again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer
from confluent_kafka import KafkaException
from rich.table import Table

from reviewmesh.avro.codec import DecodeError
from reviewmesh.cli.connection import Connection, connect
from reviewmesh.cli.errors import CommandFailed
from reviewmesh.cli.publish import flush, make_producer, send
from reviewmesh.cli.reading import offsets, places, read_all, read_until
from reviewmesh.cli.render import as_json, iso
from reviewmesh.cli.tail import schema_of
from reviewmesh.cli.terminal import err, json_text, out, plain, shortened
from reviewmesh.kafka.record import REPLAY, REPLAY_OF
from reviewmesh.loop.replays import PLACE, Letter, Marks, letter_at, place_named
from reviewmesh_schemas.names import ACCEPTED, DEAD_LETTER, RAW, REPLAYED, RESULT_OF

REPLAYABLE = (RAW, ACCEPTED, *RESULT_OF.values())
"""The topics that the mesh reads: a letter that names another is none of ours."""
ALL_TASKS = b"all"

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

    @property
    def letter(self) -> Letter:
        """What its replay and the mark of that name."""
        return letter_at(self.place, self.timestamp_ms, self.content["key"], self.content["value"])

    @property
    def replay_of(self) -> str | None:
        """The letter whose replay failed again and became this one."""
        for header in reversed(self.content["headers"]):
            if header["key"] == REPLAY_OF:
                return place_named(header["value"])
        return None

    @property
    def problem(self) -> str:
        """Why it cannot be sent again; empty when it can."""
        if self.content["topic"] not in REPLAYABLE:
            return f"it was read from {self.content['topic']!r:.60}, which the mesh does not read"
        if not 0 <= self.content["partition"] < 2**31:
            return f"no topic has a partition {self.content['partition']}"
        if self.content["value"] is None and self.content["cause"] in ("OVERSIZE", "UNREADABLE"):
            return "nothing of it could be read; publish the review again from its source"
        kept, length = len(self.content["value"] or b""), self.content.get("value_length")
        if length is not None and length > kept:
            return (
                f"only {kept:,} of its {length:,} bytes fit into the letter; publish the review "
                "again from its source"
            )
        return ""


Cause = Annotated[str | None, typer.Option(help="Only of this cause, such as FAILED or EMPTY.")]
Stage = Annotated[str | None, typer.Option(help="Only of this stage, such as intake.")]


@app.command("list")
def list_(
    cause: Cause = None,
    stage: Stage = None,
    as_lines: Annotated[bool, typer.Option("--json", help="One line of JSON a letter.")] = False,
) -> None:
    """List dead letters, oldest first in each partition."""
    connection = connect()
    letters = [item for item in _all(connection) if _matches(item, cause, stage)]
    marks = _marks(connection)
    if as_lines:
        for item in letters:
            print(_json(item, marks))
        return
    table = Table("place", "time", "stage", "cause", "replay", "review", "message", box=None)
    for item in letters:
        content = item.content
        table.add_row(
            item.place,
            iso(item.timestamp_ms),
            shortened(content["stage"] or "-"),
            shortened(content["cause"] or "-"),
            _replay_words(item, marks),
            shortened(content["review_id"] or "-", 40),
            shortened(content["message"] or ""),
        )
    out.print(table if letters else "no dead letters")


def _replay_words(item: DeadLetter, marks: Marks) -> str:
    """Whether it was sent again, and whether it is what came of sending another one again."""
    words = ["replayed"] if marks.has(item.letter) else []
    if item.replay_of is not None:
        words.append(f"of {item.replay_of}")
    return ", ".join(words) or "-"


@app.command()
def show(place: Annotated[str, typer.Argument(metavar="PARTITION/OFFSET")]) -> None:
    """Show one dead letter as JSON; bytes are in base64."""
    connection = connect()
    print(_json(_at(connection, place), _marks(connection), indent=2))


@app.command()
def replay(
    chosen: Annotated[
        list[str] | None, typer.Argument(metavar="[PARTITION/OFFSET]...", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that match the filters.")] = False,
    cause: Cause = None,
    stage: Stage = None,
) -> None:
    """Send dead letters to the topic that they were read from, each once, past intake's dedupe."""
    if bool(chosen) == everything:
        raise typer.BadParameter(
            "name dead letters as PARTITION/OFFSET, or give --all, which keeps to the filters"
        )
    connection = connect()
    places_ = dict.fromkeys(chosen or ())
    found = [_at(connection, place) for place in places_] if chosen else _all(connection)
    marks = _marks(connection)
    letters = [item for item in found if _matches(item, cause, stage)]
    fresh = [item for item in letters if not marks.has(item.letter)]
    sendable = [item for item in fresh if not item.problem]
    for item in fresh:
        if item.problem:
            err.print(f"{item.place} cannot be replayed: {plain(item.problem)}", style="red")
    failures = _send(connection, sendable)
    words = f"{len(sendable) - len(failures)} replayed"
    if len(fresh) < len(letters):
        words += f", {len(letters) - len(fresh)} skipped that were replayed before"
    if again := sum(item.replay_of is not None for item in sendable):
        words += f"; {again} of them are replays that failed again"
    err.print(words)
    if failures:
        raise CommandFailed(
            f"{len(failures)} dead letters were not taken, the first: {failures[0]}; replay it "
            "again"
        )
    if len(sendable) < len(fresh):
        raise typer.Exit(1)


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
            if header["key"] not in (REPLAY, REPLAY_OF)
        ]
        # The stage that takes it keeps the name, and drops a second replay of it.
        marks = [(REPLAY, ALL_TASKS), (REPLAY_OF, item.letter.name.encode())]
        try:
            send(
                producer,
                connection.topic(content["topic"]),
                content["partition"],
                content["key"],
                content["value"],
                [*headers, *marks],
                delivered,
            )
        except KafkaException as error:
            failures.append(f"{item.place} ({error.args[0].str()})")
    flush(producer)
    return failures


def _marks(connection: Connection) -> Marks:
    """Of the letters whose replay has arrived."""
    marks = Marks()
    # Until `topics apply` of this version has run.
    if connection.topic(REPLAYED) not in connection.found:
        return marks
    for record in read_all(connection, places(connection, REPLAYED)):
        marks.take(record)
    return marks


def _all(connection: Connection) -> list[DeadLetter]:
    codec, letters = connection.codec(DEAD_LETTER), []
    for record in read_all(connection, places(connection, DEAD_LETTER)):
        try:
            content = codec.decode(record.value or b"")
        except DecodeError as error:
            place = f"{record.partition}/{record.offset}"
            err.print(f"{place}: no dead letter: {plain(str(error))}", style="red")
            continue
        letters.append(DeadLetter(record.partition, record.offset, record.timestamp_ms, content))
    return sorted(letters, key=lambda item: (item.partition, item.offset))


def _at(connection: Connection, place: str) -> DeadLetter:
    match = PLACE.fullmatch(place)
    partitions = connection.partitions_found(DEAD_LETTER)
    if match is None or int(match[1]) >= partitions:
        raise typer.BadParameter(
            f"expected PARTITION/OFFSET with a partition below {partitions}, got {place!r}"
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


def _json(item: DeadLetter, marks: Marks, indent: int | None = None) -> str:
    content = {
        "place": item.place,
        "replayed": marks.has(item.letter),
        "replay_of": item.replay_of,
        **as_json(schema_of(DEAD_LETTER), item.content),
    }
    return json_text(content, indent)
