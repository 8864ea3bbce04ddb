"""`reviewmesh-models label`, `adjudicate` and `agreement`."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from reviewmesh_models.cli.command_line import (
    FAILED,
    RegistryFolder,
    complain,
    exits_on_errors,
)
from reviewmesh_models.cli.evaluation_commands import LocalPackages, progress
from reviewmesh_models.labelling.adjudication import JudgeSession, disputes_of, screen
from reviewmesh_models.labelling.agreement import agreement_of, write_agreement
from reviewmesh_models.labelling.decisions import Journal, agreed, read_judges
from reviewmesh_models.labelling.gold import gold_of
from reviewmesh_models.labelling.local import LocalTeacher
from reviewmesh_models.labelling.page import write_page
from reviewmesh_models.labelling.results import labelled, write_results
from reviewmesh_models.labelling.reviews import Review, read_gold, read_reviews
from reviewmesh_models.labelling.store import FILE, Store, StoreError
from reviewmesh_models.labelling.teachers import Teachers, read_teachers
from reviewmesh_worker.tasks import BUNDLED_TASKS, TASKS
from reviewmesh_worker.tasks.definition import Task, TaskError, load_tasks

TasksOption = Annotated[Path, typer.Option(help="Folder of the tasks.")]
FolderArgument = Annotated[Path, typer.Argument(help="Folder of a labelling, made by `label`.")]


def label(
    reviews: Annotated[
        str, typer.Argument(help="Reviews as JSON lines with `text`; - reads standard input.")
    ],
    teachers: Annotated[Path, typer.Option(help="Who is asked, and the budget: a YAML file.")],
    output: Annotated[Path, typer.Option(help="Folder of the labelling; the same one goes on.")],
    task: Annotated[
        list[str] | None, typer.Option(help="Task to label, several times; all if none.")
    ] = None,
    gold: Annotated[
        list[Path] | None,
        typer.Option(help="Labelled rows to mix in, several times: they judge the teachers."),
    ] = None,
    tasks: TasksOption = BUNDLED_TASKS,
    registry: RegistryFolder = None,
) -> None:
    """Ask two or more teachers for labels; the same command continues where it was stopped."""
    # Imported here: the provider's client takes a second to load, and other commands do not need
    # it.
    from reviewmesh_models.labelling.asked import ask_all

    with exits_on_errors():
        asked = read_teachers(teachers)
        chosen = _chosen(load_tasks(tasks), task)
        packages = _packages(asked, chosen, registry)
        for teacher in asked.teachers:
            teacher.key()
        with Store(output) as store:
            store.begin(
                {
                    one.name: packages[one.name].identity if one.package else one.identity
                    for one in asked.teachers
                },
                {name: one.digest for name, one in chosen.items()},
            )
            for file in gold or []:
                with file.open(encoding="utf-8") as lines:
                    store.add(list(read_gold(lines, file.name, chosen)))
            store.add(_read(reviews))
            with progress() as step:
                unfinished = asyncio.run(
                    ask_all(asked, packages, list(chosen.values()), store, step)
                )
            _write(store, chosen, output)
    for why in unfinished:
        complain(why)
    if unfinished:
        complain("answers so far are kept: run the same command again to continue")
        raise typer.Exit(FAILED)


def adjudicate(
    folder: FolderArgument,
    judge: Annotated[str, typer.Option(help="Who decides; each judge decides unseen by others.")],
    tasks: TasksOption = BUNDLED_TASKS,
) -> None:
    """Decide disputed labels at the terminal; continues where the judge stopped."""
    with exits_on_errors():
        definitions = load_tasks(tasks)
        with _labelled(folder) as store:
            disputes = disputes_of(labelled(store, _asked(store, definitions), {}))
        with closing(Journal(folder, judge)) as journal:
            session = JudgeSession(disputes, journal, time.monotonic())
            _decide(session)
        with _labelled(folder) as store:
            _write(store, _asked(store, definitions), folder)


def agreement(folder: FolderArgument, tasks: TasksOption = BUNDLED_TASKS) -> None:
    """Measure how far teachers and judges agree; writes agreement.json and agreement.html."""
    with exits_on_errors():
        with _labelled(folder) as store:
            judges = read_judges(folder)
            found = labelled(store, _asked(store, load_tasks(tasks)), agreed(judges))
            totals = store.totals()
        report = agreement_of(found, (totals.requests, totals.tokens, totals.money), judges)
        written = [write_agreement(report, folder), write_page(report, folder)]
    console = Console(soft_wrap=True, highlight=False)
    for name, of_task in report.tasks.items():
        for said, score in of_task.alpha.items():
            value = (
                "none"
                if score is None
                else f"{score.value:.3f}, 95 % from {score.low:.3f} to {score.high:.3f}"
            )
            console.print(f"{name}, {said}: alpha {value}")
    for file in written:
        console.print(f"written to {file}")


def _decide(session: JudgeSession) -> None:
    console = Console(soft_wrap=True, markup=False, emoji=False, highlight=False)
    with _keys() as keys:
        console.clear()
        console.print(screen(session))
        for key in keys:
            if session.press(key, time.monotonic()) == "quit":
                return
            console.clear()
            console.print(screen(session))


@contextmanager
def _keys() -> Iterator[Iterator[str]]:
    """Keys as they are pressed. The terminal keeps this mode between them: no key is lost or
    echoed.

    Raises StoreError without a terminal.
    """
    terminal = sys.stdin.fileno() if sys.stdin.isatty() else None
    if terminal is None:
        raise StoreError(
            "expected a terminal to ask for decisions, found none; run it without a pipe"
        )
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal, termios.TCSADRAIN)
        # At the end of input there is nothing more to read; Ctrl-C ends as q does.
        with suppress(KeyboardInterrupt):
            yield iter(lambda: os.read(terminal, 1).decode("ascii", "replace"), "")
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _labelled(folder: Path) -> Store:
    if not (folder / FILE).is_file():
        raise StoreError(f"expected a labelling at {folder}, found none; `label` makes one")
    return Store(folder)


def _asked(store: Store, tasks: Mapping[str, Task]) -> Mapping[str, Task]:
    """The tasks, if they are those that the teachers were asked with. Raises TaskError."""
    for name, digest in store.tasks.items():
        if name not in tasks or tasks[name].digest != digest:
            raise TaskError(
                f"the teachers were asked with another definition of the task {name}; name its "
                "folder with --tasks, or label again"
            )
    return tasks


def _write(store: Store, tasks: Mapping[str, Task], folder: Path) -> None:
    found = labelled(store, tasks, agreed(read_judges(folder)))
    console = Console(soft_wrap=True, highlight=False)
    for task, scored in gold_of(found).items():
        difference = scored.difference
        console.print(
            f"{task}: on {scored.rows} gold rows the consensus has {scored.measure} "
            f"{scored.consensus.value:.3f}, the best teacher ({scored.best}) "
            f"{scored.teachers[scored.best].value:.3f}; difference {difference.value:+.3f}, "
            f"95 % from {difference.low:+.3f} to {difference.high:+.3f}"
        )
    written = write_results(found, folder)
    for file, rows in written.items():
        console.print(f"{rows:,} rows written to {folder / file}")
    if not any(found_rows for found_rows in written.values()):
        console.print("no rows: did the input hold any reviews?")
    totals = store.totals()
    console.print(
        f"spent or reserved: {totals.requests:,} requests, {totals.tokens:,} tokens, "
        f"{totals.money:.4f} of money"
    )


def _chosen(tasks: Mapping[str, Task], names: list[str] | None) -> dict[str, Task]:
    if unknown := sorted(set(names or []) - tasks.keys()):
        raise TaskError(f"expected tasks among {', '.join(tasks)}, got {', '.join(unknown)}")
    return {name: tasks[name] for name in TASKS if name in tasks and name in (names or tasks)}


def _packages(
    teachers: Teachers, tasks: Mapping[str, Task], registry: Path | None
) -> Mapping[str, LocalTeacher]:
    named = {one.name: one.package for one in teachers.teachers if one.package is not None}
    if not named:
        return {}
    here = LocalPackages.of(registry, None)
    found = {}
    for name, package in named.items():
        opened = here.package(package)
        engine = here.engine(opened)
        served = [task for task in tasks if task in engine.tasks]
        kind = engine.tasks[served[0]].engine if served else ""
        found[name] = LocalTeacher(engine, f"{opened.digest} on {kind}")
    return found


def _read(reviews: str) -> list[Review]:
    if reviews == "-":
        return list(read_reviews(sys.stdin, "standard input"))
    with Path(reviews).open(encoding="utf-8") as lines:
        return list(read_reviews(lines, Path(reviews).name))
