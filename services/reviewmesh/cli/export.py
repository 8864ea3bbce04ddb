"""`reviewmesh export`: writes the latest revision of each review to files, for analysts."""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reviewmesh.cli.errors import CommandFailed
from reviewmesh.cli.terminal import err, json_text, out, shortened
from reviewmesh.query.connection import connect

if TYPE_CHECKING:
    from reviewmesh.export.run import Outcome

NEEDED = ("fsspec", "pyarrow")
SHOWN_PROBLEMS = 20


class FileFormat(StrEnum):
    """How files are written."""

    PARQUET = "parquet"
    JSONL = "jsonl"


def export(
    folder: Annotated[
        str,
        typer.Argument(
            metavar="DEST",
            help="A folder, or the URL of an object store, such as s3://bucket/path.",
        ),
    ],
    file_format: Annotated[
        FileFormat | None,
        typer.Option("--format", help="Of the files; that of the folder, or parquet in a new one."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The outcome as one line of JSON.")
    ] = False,
) -> None:
    """Write the latest revision of each enriched review to files, and end.

    Run again, it goes on where it ended or was killed: new reviews are added, new revisions replace
    the earlier ones, erased reviews leave. Readers follow manifest.json in the folder. Exit code 1
    when something could not be exported, which is said once.
    """
    missing = [name for name in NEEDED if not find_spec(name)]
    if missing:
        raise CommandFailed(
            f"export needs {' and '.join(missing)}: run `make export` in a clone, or `pip install "
            '"reviewmesh[mesh,cli,export]"`'
        )
    from reviewmesh.export.errors import ExportEnds
    from reviewmesh.export.run import ExportRun
    from reviewmesh.export.source import EnrichedReviews
    from reviewmesh.export.store import Store

    connection = connect()
    try:
        store = Store(folder)
        outcome = ExportRun(
            store,
            EnrichedReviews(connection),
            file_format.value if file_format else None,
            lambda text: err.print(text) if err.is_terminal else None,
        )()
    except ExportEnds as error:
        raise CommandFailed(str(error)) from error
    _report(folder, outcome, as_json)
    if not outcome.is_whole:
        raise typer.Exit(1)


def _report(folder: str, outcome: Outcome, as_json: bool) -> None:
    for partition, (start, end) in sorted(outcome.gaps.items()):
        err.print(
            f"partition {partition}: offsets {start} to {end - 1} were deleted by the topic's "
            "retention before they were exported",
            style="red",
        )
    for problem in outcome.unreadable[:SHOWN_PROBLEMS]:
        err.print(f"cannot be read: {shortened(problem, 500)}", style="red")
    if len(outcome.unreadable) > SHOWN_PROBLEMS:
        err.print(f"… and {len(outcome.unreadable) - SHOWN_PROBLEMS} more", style="red")
    if outcome.topic_is_new:
        err.print("the topic was created again: exported from its beginning")
    if as_json:
        print(json_text(_as_json(outcome)))
        return
    published = outcome.published
    assert published is not None
    total = sum(part.rows for part in published.parts)
    out.print(
        f"{outcome.read:,} records read, {outcome.superseded:,} earlier revisions taken out; "
        f"{folder} holds {total:,} reviews in {len(published.parts):,} files of each view"
    )


def _as_json(outcome: Outcome) -> dict[str, Any]:
    published = outcome.published
    assert published is not None
    return {
        "read": outcome.read,
        "superseded": outcome.superseded,
        "reviews": sum(part.rows for part in published.parts),
        "files": len(published.parts),
        "published_at": published.at,
        "gaps": [
            {"partition": partition, "from": start, "to": end - 1}
            for partition, (start, end) in sorted(outcome.gaps.items())
        ],
        "unreadable": outcome.unreadable,
        "topic_is_new": outcome.topic_is_new,
    }
