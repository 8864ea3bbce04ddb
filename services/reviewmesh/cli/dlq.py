"""`reviewmesh dlq`: lists, shows, replays and edits dead letters."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
import time
from collections.abc import Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from reviewmesh.avro.codec import DecodeError
from reviewmesh.cli.completing import among
from reviewmesh.cli.errors import CommandFailed
from reviewmesh.cli.names import short_topic
from reviewmesh.cli.tables import Column, FittingTable
from reviewmesh.cli.terminal import err, json_text, out, shortened
from reviewmesh.cli.times import TIMES, age, span_named
from reviewmesh.loop.deadletter import MAX_MESSAGE
from reviewmesh.loop.replays import Marks
from reviewmesh.metrics import DEAD_LETTER_CAUSES
from reviewmesh.query.connection import Connection, connect
from reviewmesh.query.deadletters import DeadLetter, all_letters, letter_placed, replayed_marks
from reviewmesh.query.redrive import (
    BadEdit,
    Plan,
    Planned,
    Stays,
    edited,
    hopeless,
    plan,
    redrive,
    send_edited,
)
from reviewmesh.query.values import as_json, iso, schema_of
from reviewmesh_kit.printable import plain
from reviewmesh_schemas.names import DEAD_LETTER, RAW

app = typer.Typer(help="Dead letters: list, show, send again, edit.", no_args_is_help=True)

# What cannot be decoded is shown so far.
SHOWN_BYTES = 512
TIME_FIELDS = ("created_at",)

CauseOption = Annotated[
    str | None,
    typer.Option(
        help="Only of this cause, such as FAILED or EMPTY.",
        autocompletion=among(DEAD_LETTER_CAUSES),
    ),
]
StageOption = Annotated[str | None, typer.Option(help="Only of this stage, such as intake.")]
SinceOption = Annotated[
    str | None, typer.Option(help=f"Only from then on: {TIMES}.", show_default=False)
]


@app.command("list")
def list_(
    cause: CauseOption = None,
    stage: StageOption = None,
    since: SinceOption = None,
    as_lines: Annotated[bool, typer.Option("--json", help="One line of JSON a letter.")] = False,
) -> None:
    """List dead letters, oldest first in each partition."""
    start = None if since is None else span_named("--since", since)[0]
    connection = connect()
    letters = [item for item in _all(connection) if _matches(item, cause, stage, start)]
    marks = replayed_marks(connection)
    if as_lines:
        for item in letters:
            print(json_text(_as_json(item, marks)))
        return
    out.print(table_of(letters, marks, int(time.time() * 1000)) if letters else "no dead letters")


def table_of(letters: list[DeadLetter], marks: Marks, now_ms: int) -> FittingTable:
    table = FittingTable(
        *("place", "age", "stage", "cause", "replay"),
        *(Column("review", wraps=True), Column("message", wraps=True)),
    )
    for item in letters:
        content = item.content
        table.add_row(
            item.place,
            age(now_ms - item.timestamp_ms),
            shortened(content["stage"] or "-"),
            shortened(content["cause"] or "-"),
            _replay_words(item, marks),
            plain(content["review_id"] or "-"),
            shortened(content["message"] or "", MAX_MESSAGE),
        )
    return table


def _replay_words(item: DeadLetter, marks: Marks) -> str:
    """Whether it was replayed, and of which dead letter it is the failed replay."""
    words = ["replayed"] if marks.has(item.letter) else []
    if item.replay_of is not None:
        words.append(f"of {item.replay_of}")
    return ", ".join(words) or "-"


@app.command()
def show(place: Annotated[str, typer.Argument(metavar="PARTITION/OFFSET")]) -> None:
    """Show one dead letter as JSON: the record decoded as far as it can be, and its bytes."""
    connection = connect()
    item = _at(connection, place)
    shown = _as_json(item, replayed_marks(connection))
    shown["decoded"] = _decoded(connection, item)
    shown["not_replayable"] = item.problem or hopeless(connection, item) or None
    print(json_text(shown, indent=2))


def _decoded(connection: Connection, item: DeadLetter) -> dict[str, Any]:
    """The record for people; bytes that are no text are in hexadecimal digits."""
    content = item.content
    found: dict[str, Any] = {
        "key": _text_of(content["key"]),
        "headers": {header["key"]: _text_of(header["value"]) for header in content["headers"]},
    }
    if content["value"] is None:
        return found
    try:
        value = connection.codec(content["topic"]).decode(content["value"])
    except KeyError:
        problem = f"{content['topic']!r:.60} is no topic of the mesh"
    except DecodeError as error:
        problem = str(error)
    else:
        return found | {"value": as_json(schema_of(content["topic"]), value)}
    begin = content["value"][:SHOWN_BYTES]
    return found | {
        "problem": problem,
        "text": begin.decode("utf-8", errors="replace"),
        "hex": begin.hex(" "),
    }


def _text_of(content: bytes | None) -> str | None:
    if content is None:
        return None
    try:
        return content[:SHOWN_BYTES].decode("utf-8")
    except UnicodeDecodeError:
        return content[:SHOWN_BYTES].hex(" ")


@app.command()
def replay(
    chosen: Annotated[
        list[str] | None, typer.Argument(metavar="[PARTITION/OFFSET]...", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that match the filters.")] = False,
    cause: CauseOption = None,
    stage: StageOption = None,
    since: SinceOption = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="So many at most, the oldest first.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say of each what would be done.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also those that intake refuses as they are: its services may run with another "
            "version or other settings.",
        ),
    ] = False,
    as_lines: Annotated[
        bool, typer.Option("--json", help="One line of JSON a letter, also of a dry run.")
    ] = False,
) -> None:
    """Send dead letters to the topic that they were read from, each once, past intake's dedupe."""
    if bool(chosen) == everything:
        raise typer.BadParameter(
            "name dead letters as PARTITION/OFFSET, or give --all, which keeps to the filters"
        )
    start = None if since is None else span_named("--since", since)[0]
    connection = connect()
    places = dict.fromkeys(chosen or ())
    found = [_at(connection, place) for place in places] if chosen else _all(connection)
    letters = [item for item in found if _matches(item, cause, stage, start)]
    planned = plan(connection, letters, limit, hopeless_too=force)
    if dry_run:
        _print_plan(planned, as_lines)
        return
    for entry in planned.staying(Stays.IMPOSSIBLE, Stays.HOPELESS):
        err.print(f"{entry.letter.place} {plain(entry.words)}", style="red")
    done = redrive(connection, planned)
    if as_lines:
        sent = {item.place for item in done.sent}
        for entry in planned.entries:
            print(json_text(_planned_as_json(entry, sent=entry.letter.place in sent)))
    err.print(_summary(planned, done.sent))
    if done.failures:
        raise CommandFailed(
            f"{len(done.failures)} dead letters could not be sent, the first: {done.failures[0]}; "
            "replay it again"
        )
    if planned.staying(Stays.HOPELESS):
        err.print(
            "what would be refused again needs another text: `reviewmesh dlq edit "
            "PARTITION/OFFSET`; --force sends it as it is"
        )
    if planned.staying(Stays.IMPOSSIBLE, Stays.HOPELESS):
        raise typer.Exit(1)


def _summary(planned: Plan, sent: Collection[DeadLetter]) -> str:
    words = f"{len(sent)} replayed"
    for stays, told in (
        (Stays.REPLAYED, "skipped that were replayed before"),
        (Stays.ERASED, "skipped whose reviews were erased since"),
        (Stays.HOPELESS, "refused that cannot pass"),
        (Stays.IMPOSSIBLE, "that cannot be replayed"),
        (Stays.LATER, "left for later"),
    ):
        if count := len(planned.staying(stays)):
            words += f", {count} {told}"
    if again := sum(item.replay_of is not None for item in sent):
        words += f"; {again} of them are replays that failed again"
    return words


def _print_plan(planned: Plan, as_lines: bool) -> None:
    if as_lines:
        for entry in planned.entries:
            print(json_text(_planned_as_json(entry, sent=False)))
    elif planned.entries:
        out.print(plan_table(planned))
    err.print(f"{len(planned.sendable)} of {len(planned.entries)} would be sent; nothing was")


def plan_table(planned: Plan) -> FittingTable:
    table = FittingTable(
        *("place", "topic", "cause", Column("review", wraps=True), Column("replay", wraps=True))
    )
    for entry in planned.entries:
        content = entry.letter.content
        style = "" if entry.stays is None else "yellow"
        table.add_row(
            entry.letter.place,
            short_topic(shortened(content["topic"], 40)),
            shortened(content["cause"] or "-"),
            plain(content["review_id"] or "-"),
            Text(shortened(entry.words, MAX_MESSAGE), style=style),
        )
    return table


def _planned_as_json(entry: Planned, sent: bool) -> dict[str, Any]:
    return {
        "place": entry.letter.place,
        "review_id": entry.letter.content["review_id"],
        "sent": sent,
        "sendable": entry.stays is None,
        "stays": None if entry.stays is None else entry.stays.name,
        "reason": entry.reason or entry.stays,
    }


@app.command()
def edit(
    place: Annotated[str, typer.Argument(metavar="PARTITION/OFFSET")],
    with_: Annotated[
        Path | None,
        typer.Option(
            "--with",
            dir_okay=False,
            exists=True,
            help="A file with the review as JSON, as `dlq show` has it in `decoded`; without it "
            "$VISUAL or $EDITOR opens it.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also one that was replayed before.")
    ] = False,
) -> None:
    """Change the review of a dead letter and send it; the letter counts as replayed."""
    connection = connect()
    item = _at(connection, place)
    if item.content["topic"] != RAW or item.content["value"] is None:
        raise CommandFailed(
            f"expected a review of {RAW}, got a record of {item.content['topic']!r:.60}"
            f"{' without a value' if item.content['value'] is None else ''}; only what producers "
            "wrote can be edited"
        )
    [entry] = plan(connection, [item], hopeless_too=True).entries
    if entry.stays is Stays.ERASED or (entry.stays is Stays.REPLAYED and not force):
        raise CommandFailed(f"{place} {entry.words}")
    text = with_.read_text("utf-8") if with_ else _edited_by_hand(_editable(connection, item))
    if text is None:
        err.print("nothing was changed, nothing is sent")
        return
    value = _as_record(connection, text)
    partition, offset = send_edited(connection, item, value)
    err.print(f"sent to {short_topic(RAW)} {partition}/{offset}; see `reviewmesh find`")


def _editable(connection: Connection, item: DeadLetter) -> dict[str, Any]:
    """The review as JSON, empty where its bytes are no review."""
    empty: dict[str, Any] = {
        field["name"]: {} if field["name"] == "attributes" else None
        for field in schema_of(RAW)["fields"]
    }
    try:
        value = connection.codec(RAW).decode(item.content["value"])
    except DecodeError as error:
        err.print(f"it cannot be decoded, so all fields are empty: {plain(str(error))}")
        return empty | {"review_id": item.content["review_id"] or ""}
    shown: dict[str, Any] = as_json(schema_of(RAW), value)
    return shown


def _edited_by_hand(review: dict[str, Any]) -> str | None:
    """What an editor left; None if it failed, or nothing is changed."""
    text = json.dumps(review, ensure_ascii=False, indent=2) + "\n"
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not editor:
        raise CommandFailed("expected $VISUAL or $EDITOR to name an editor; or give --with FILE")
    # For this user's eyes only, as everything that holds a review.
    with tempfile.TemporaryDirectory(prefix="reviewmesh-") as folder:
        file = Path(folder) / "review.json"
        file.write_text(text, "utf-8")
        # No deadline: a person types.
        done = subprocess.run([*shlex.split(editor), str(file)], check=False)
        after = file.read_text("utf-8")
        return None if done.returncode or after == text else after


def _as_record(connection: Connection, text: str) -> bytes:
    """Raises CommandFailed, with the text where it would be lost."""
    try:
        review = json.loads(text)
        if not isinstance(review, dict):
            raise BadEdit(f"expected one JSON object, got {type(review).__name__}")
        return edited(connection, _times_as_numbers(review))
    except (ValueError, RecursionError) as error:
        err.print(text, end="")
        raise CommandFailed(f"the edited review would be refused: {error}") from None


def _times_as_numbers(review: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(review)
    for name in TIME_FIELDS:
        if isinstance(found.get(name), str):
            moment = datetime.fromisoformat(found[name])
            found[name] = int(moment.timestamp() * 1000)
    return found


def _all(connection: Connection) -> list[DeadLetter]:
    return all_letters(connection, lambda words: err.print(plain(words), style="red"))


def _at(connection: Connection, place: str) -> DeadLetter:
    try:
        return letter_placed(connection, place)
    except ValueError as error:
        if isinstance(error, DecodeError):
            raise
        raise typer.BadParameter(str(error)) from None


def _matches(
    item: DeadLetter, cause: str | None, stage: str | None, since_ms: int | None = None
) -> bool:
    return (
        cause in (None, item.content["cause"])
        and stage in (None, item.content["stage"])
        and (since_ms is None or item.timestamp_ms >= since_ms)
    )


def _as_json(item: DeadLetter, marks: Marks) -> dict[str, Any]:
    return {
        "place": item.place,
        "time": iso(item.timestamp_ms),
        "replayed": marks.has(item.letter),
        "replay_of": item.replay_of,
        **as_json(schema_of(DEAD_LETTER), item.content),
    }
