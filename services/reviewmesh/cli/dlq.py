"""`reviewmesh dlq`: lists, shows and replays dead letters."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from reviewmesh.cli.errors import CommandFailed
from reviewmesh.cli.terminal import err, json_text, out, shortened
from reviewmesh.loop.replays import Marks
from reviewmesh.query.connection import Connection, connect
from reviewmesh.query.deadletters import (
    DeadLetter,
    all_letters,
    erasures,
    is_erased,
    letter_placed,
    replayed_marks,
    send_again,
)
from reviewmesh.query.values import as_json, iso, schema_of
from reviewmesh_kit.printable import plain
from reviewmesh_schemas.names import DEAD_LETTER

app = typer.Typer(help="Dead letters: list, show, send again.", no_args_is_help=True)


CauseOption = Annotated[
    str | None, typer.Option(help="Only of this cause, such as FAILED or EMPTY.")
]
StageOption = Annotated[str | None, typer.Option(help="Only of this stage, such as intake.")]


@app.command("list")
def list_(
    cause: CauseOption = None,
    stage: StageOption = None,
    as_lines: Annotated[bool, typer.Option("--json", help="One line of JSON a letter.")] = False,
) -> None:
    """List dead letters, oldest first in each partition."""
    connection = connect()
    letters = [item for item in _all(connection) if _matches(item, cause, stage)]
    marks = replayed_marks(connection)
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
    """Whether it was replayed, and of which dead letter it is the failed replay."""
    words = ["replayed"] if marks.has(item.letter) else []
    if item.replay_of is not None:
        words.append(f"of {item.replay_of}")
    return ", ".join(words) or "-"


@app.command()
def show(place: Annotated[str, typer.Argument(metavar="PARTITION/OFFSET")]) -> None:
    """Show one dead letter as JSON; bytes are in base64."""
    connection = connect()
    print(_json(_at(connection, place), replayed_marks(connection), indent=2))


@app.command()
def replay(
    chosen: Annotated[
        list[str] | None, typer.Argument(metavar="[PARTITION/OFFSET]...", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that match the filters.")] = False,
    cause: CauseOption = None,
    stage: StageOption = None,
) -> None:
    """Send dead letters to the topic that they were read from, each once, past intake's dedupe."""
    if bool(chosen) == everything:
        raise typer.BadParameter(
            "name dead letters as PARTITION/OFFSET, or give --all, which keeps to the filters"
        )
    connection = connect()
    places_ = dict.fromkeys(chosen or ())
    found = [_at(connection, place) for place in places_] if chosen else _all(connection)
    marks = replayed_marks(connection)
    letters = [item for item in found if _matches(item, cause, stage)]
    fresh = [item for item in letters if not marks.has(item.letter)]
    erased = erasures(connection)
    forgotten = [item for item in fresh if is_erased(connection, item, erased)]
    fresh = [item for item in fresh if item not in forgotten]
    sendable = [item for item in fresh if not item.problem]
    for item in fresh:
        if item.problem:
            err.print(f"{item.place} cannot be replayed: {plain(item.problem)}", style="red")
    failures = send_again(connection, sendable)
    words = f"{len(sendable) - len(failures)} replayed"
    if before := len(letters) - len(fresh) - len(forgotten):
        words += f", {before} skipped that were replayed before"
    if forgotten:
        words += f", {len(forgotten)} skipped whose reviews were erased since"
    if again := sum(item.replay_of is not None for item in sendable):
        words += f"; {again} of them are replays that failed again"
    err.print(words)
    if failures:
        raise CommandFailed(
            f"{len(failures)} dead letters could not be sent, the first: {failures[0]}; replay it "
            "again"
        )
    if len(sendable) < len(fresh):
        raise typer.Exit(1)


def _all(connection: Connection) -> list[DeadLetter]:
    return all_letters(connection, lambda words: err.print(plain(words), style="red"))


def _at(connection: Connection, place: str) -> DeadLetter:
    try:
        return letter_placed(connection, place)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


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
