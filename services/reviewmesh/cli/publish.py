"""`reviewmesh publish`: publishes the reviews of a file."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TextIO, cast

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from reviewmesh.cli.completing import among
from reviewmesh.cli.errors import CommandFailed
from reviewmesh.cli.interrupting import interrupted_by_sigterm
from reviewmesh.cli.publishing import Publishing, RefusedRows
from reviewmesh.cli.sources.columns import REST, Columns
from reviewmesh.cli.sources.errors import FileRefused
from reviewmesh.cli.sources.reading import Options, Source
from reviewmesh.cli.sources.sites import SITES, Site
from reviewmesh.cli.terminal import err, json_text
from reviewmesh.query.connection import connect
from reviewmesh.settings import Settings
from reviewmesh_kit.exit_codes import FAILED

STDIN = "-"
INTERRUPTED = 130
ROWS_PER_UPDATE = 200
# So many fit on a screen; a pipe or a file gets all of them.
IDS_SHOWN = 10


def publish(
    file: Annotated[
        str,
        typer.Argument(
            help="JSON lines, a JSON array, CSV or TSV, plain or in gzip or zstd; - for stdin."
        ),
    ],
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="COLUMN=FIELD",
            help="Take a column as a field, as attributes.NAME, as created_at:s (seconds), or as "
            "nothing.",
        ),
    ] = None,
    constants: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Give every review this value."),
    ] = None,
    rest: Annotated[
        str,
        typer.Option(
            help=f"What to do with other columns: {', '.join(REST)}.", autocompletion=among(REST)
        ),
    ] = REST[0],
    id_from: Annotated[
        str | None,
        typer.Option(metavar="COLUMNS", help="Make the id of these columns, with commas."),
    ] = None,
    site: Annotated[
        str | None,
        typer.Option(
            help=f"The file is an export of {', '.join(SITES)}.", autocompletion=among(SITES)
        ),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of a file that is not in UTF-8, such as cp1252.")
    ] = None,
    unquoted: Annotated[
        bool, typer.Option("--unquoted", help="Quotes in a table are text like any other.")
    ] = False,
    unchecked: Annotated[
        bool,
        typer.Option("--unchecked", help="Send also what intake will refuse: dead letters."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every row, send nothing; needs no mesh.")
    ] = False,
    rejects: Annotated[
        Path | None,
        typer.Option(
            help="Write refused rows here with their reasons: mended, it can be published."
        ),
    ] = None,
    skip: Annotated[
        int, typer.Option(min=0, help="Leave out so many rows, as after an interruption.")
    ] = 0,
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="At most this many reviews a second.")
    ] = None,
) -> None:
    """Publish the reviews of a file. A row that is no review is refused with its reason."""
    if rest not in REST:
        raise typer.BadParameter(f"--rest: expected one of {', '.join(REST)}, got {rest!r}")
    try:
        options = Options(
            columns=Columns.of(columns or (), rest, constants or (), id_from),
            site=None if site is None else Site.named(site),
            encoding=encoding,
            unquoted=unquoted,
            skip=skip,
        )
    except FileRefused as error:
        raise typer.BadParameter(str(error)) from error
    with ExitStack() as open_files:
        content = open_files.enter_context(_opened(file))
        try:
            source = Source(content, options)
        except FileRefused as error:
            raise CommandFailed(f"{_name(file)}: {error}") from error
        if dry_run or source.kind != "JSON lines":
            err.print(f"{_name(file)}: {source.words}")
        connection = None if dry_run else connect()
        refused = None if rejects is None else open_files.enter_context(_fresh(rejects, skip))
        progress = open_files.enter_context(_Shown(content))
        publishing = Publishing(
            settings=Settings(),
            refusals=RefusedRows(refused),
            path=None if file == STDIN else str(Path(file).resolve()),
            before=skip,
            rate=rate,
            checked=not unchecked,
            on_generated=_ids_printed(),
            on_row=progress.advance,
        )
        progress.of = publishing
        with interrupted_by_sigterm():
            if connection is None:
                publishing.try_out(source, _first_printed())
            else:
                publishing.publish(source, connection)
    _report(publishing, source, dry_run, rejects)
    _end(publishing, file)


def _report(publishing: Publishing, source: Source, dry_run: bool, rejects: Path | None) -> None:
    refusals = publishing.refusals
    for words in source.notes.of_file:
        err.print(words)
    for words, count in source.notes.of_rows.most_common():
        err.print(f"{words} ({count:,} {'row' if count == 1 else 'rows'})")
    for kind, count in refusals.kinds.most_common():
        if refusals.total > len(refusals.kinds):
            err.print(f"refused {count:,}: {kind}")
    did = "would be published" if dry_run else "published"
    words = f"{publishing.published:,} {did}, {refusals.total:,} refused"
    if rejects is not None and refusals.total:
        words += f"; with their reasons: {rejects}"
    err.print(words)


def _end(publishing: Publishing, file: str) -> None:
    """Exit codes, and how to go on after an early end."""
    if publishing.interrupted:
        err.print(f"interrupted; {_resumed(publishing, file)}")
        raise typer.Exit(INTERRUPTED)
    if publishing.broken is not None:
        raise CommandFailed(
            f"{_name(file)}: {publishing.broken}; {_resumed(publishing, file)}, once it is mended"
        )
    if publishing.failure is not None:
        raise CommandFailed(
            f"not every review was acknowledged, the first: {publishing.failure}; "
            f"{_resumed(publishing, file)}"
        )
    if publishing.refusals.total:
        raise typer.Exit(FAILED)


def _resumed(publishing: Publishing, file: str) -> str:
    done = publishing.settled.up_to
    words = f"every row up to {done:,} is done"
    if publishing.settled.pending:
        words += (
            f" and {publishing.settled.pending:,} after it were sent and not acknowledged: sent "
            "again within an hour they are published once"
        )
    how = "give the same input again to" if file == STDIN else "go on with"
    return f"{words}; {how}: {_command(done)}"


def _command(skip: int) -> str:
    """This command, from a later row on."""
    words: list[str] = []
    arguments = iter(sys.argv[1:])
    for word in arguments:
        if word == "--skip":
            next(arguments, None)
        elif not word.startswith("--skip="):
            words.append(word)
    return shlex.join(["reviewmesh", *words, "--skip", str(skip)])


def _name(file: str) -> str:
    return "stdin" if file == STDIN else file


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == STDIN:
        yield sys.stdin.buffer
        return
    try:
        # Without a buffer its position says how far the work is.
        opened = open(file, "rb", buffering=0)  # noqa: SIM115 - closed below
    except OSError as error:
        raise typer.BadParameter(f"cannot read {file}: {error.strerror}") from error
    with opened:
        yield cast(BinaryIO, opened)


@contextmanager
def _fresh(path: Path, skip: int) -> Iterator[TextIO]:
    """A file that is not there yet; a run that goes on adds to that of the first."""
    try:
        opened = path.open("a" if skip else "x", encoding="utf-8")
    except FileExistsError:
        raise typer.BadParameter(
            f"--rejects: {path} exists; name another file, or remove it"
        ) from None
    except OSError as error:
        raise typer.BadParameter(f"--rejects: cannot write {path}: {error.strerror}") from error
    with opened:
        yield opened
        is_empty = opened.tell() == 0
    if is_empty:
        path.unlink()


def _ids_printed() -> Callable[[str], None]:
    printed = 0

    def on_generated(review_id: str) -> None:
        nonlocal printed
        printed += 1
        if not sys.stdout.isatty() or printed <= IDS_SHOWN:
            print(review_id)
        elif printed == IDS_SHOWN + 1:
            print("… (more ids were made: write stdout to a file to see all)")

    return on_generated


def _first_printed() -> Callable[[dict[str, Any]], None]:
    """Shows what the first row becomes, so that a mapping can be looked at."""
    is_first = True

    def on_review(review: dict[str, Any]) -> None:
        nonlocal is_first
        if is_first:
            is_first = False
            print(json_text(review, indent=2))

    return on_review


class _Shown:
    """How far the work is, on a terminal."""

    def __init__(self, file: BinaryIO) -> None:
        self.of: Publishing | None = None
        self._file = file
        self._size = _size_of(file)
        columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn()) if self._size else ()
        self._progress = Progress(
            TextColumn("{task.description}"),
            *columns,
            console=err,
            disable=not err.is_terminal,
            transient=True,
            # It would go to the terminal, also where it is meant for a file.
            redirect_stdout=False,
        )
        self._task = self._progress.add_task("publishing", total=self._size or None)
        self._rows = 0

    def __enter__(self) -> _Shown:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def advance(self) -> None:
        self._rows += 1
        if self._rows % ROWS_PER_UPDATE == 1 and self.of is not None and err.is_terminal:
            refused = self.of.refusals.total
            self._progress.update(
                self._task,
                description=f"{self.of.published:,} published, {refused:,} refused",
                completed=self._file.tell() if self._size else 0,
            )


def _size_of(file: BinaryIO) -> int:
    """0 for what has none, such as a pipe."""
    try:
        return os.fstat(file.fileno()).st_size if file.seekable() else 0
    except OSError:
        return 0
