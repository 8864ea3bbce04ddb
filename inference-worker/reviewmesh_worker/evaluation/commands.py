"""`reviewmesh-models evaluate`, `gate` and `compare`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from reviewmesh_worker.engines.factory import open_engine
from reviewmesh_worker.engines.interface import Engine, EngineDead, EngineLoadError
from reviewmesh_worker.evaluation.asking import Answered, Step
from reviewmesh_worker.evaluation.compare import compare as compare_engines
from reviewmesh_worker.evaluation.gate import GateError, check, read_gate
from reviewmesh_worker.evaluation.page import write_page
from reviewmesh_worker.evaluation.report import ReportError, TaskMade, read_report, write_report
from reviewmesh_worker.evaluation.rows import REVIEWS_FILE, RowsError, read_dev_rows, read_rows
from reviewmesh_worker.evaluation.run import evaluate as evaluate_engine
from reviewmesh_worker.evaluation.table import print_comparison, print_gate, print_report
from reviewmesh_worker.packages import manifest as packages
from reviewmesh_worker.settings import Settings
from reviewmesh_worker.tasks.definition import load_tasks

FAILED: Final = 1
WRONG_USAGE: Final = 2

Package = Annotated[Path, typer.Argument(help="Folder of the package.")]
Data = Annotated[Path, typer.Argument(help="Folder with labelled rows, JSON lines.")]


def evaluate(
    package: Package,
    data: Data,
    against: Annotated[
        Path | None, typer.Option(help="Package to compare with, on the same rows.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the report; that of the package if none.")
    ] = None,
) -> None:
    """Score a package through the engine that serves it; writes evaluation.json and .html."""
    tasks = load_tasks()
    with _refusing(), _progress() as step:
        engine = _engine(package)
        rows = read_dev_rows(data, {name: tasks[name] for name in engine.tasks})
        others = [_engine(against)] if against is not None else []
        report = evaluate_engine(engine, rows, tasks, _command(), step, others)
    folder = output or package
    folder.mkdir(parents=True, exist_ok=True)
    console = Console()
    print_report(report, console)
    for file in (write_report(report, folder), write_page(report, folder)):
        console.print(f"written to {file}", soft_wrap=True)


def gate(
    package: Package,
    gate_file: Annotated[
        Path | None, typer.Option("--gate", help="The rules; those of the project if none.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Package in service, which it must not be worse than.")
    ] = None,
) -> None:
    """Hold a package's report against the gate; exits with 1 when it may not serve."""
    with _refusing():
        rules = read_gate(gate_file)
        report = read_report(package)
        made_for = {
            name: TaskMade(version=task.version, digest=task.digest)
            for name, task in load_tasks().items()
            if name in packages.Package.open(package).manifest.tasks
        }
        serving = _digest(against) if against is not None else None
        result = check(report, _digest(package), made_for, rules, serving)
    console = Console()
    print_gate(result, console)
    if not result.passed:
        raise typer.Exit(FAILED)


def compare(
    ours: Annotated[Path, typer.Argument(help="Folder of a package.")],
    theirs: Annotated[Path, typer.Argument(help="Folder of the other package.")],
    data: Data,
    output: Annotated[
        Path | None, typer.Option(help="File for every disagreement with its scores, JSON.")
    ] = None,
) -> None:
    """Ask two packages about the same reviews: how often they say the same, and where not."""
    with _refusing(), _progress() as step:
        texts = [row["text"] for row in read_rows(data / REVIEWS_FILE)]
        comparison = compare_engines(_engine(ours), _engine(theirs), texts, step)
    console = Console()
    print_comparison(comparison, console)
    if output is not None:
        output.write_text(comparison.model_dump_json(indent=2) + "\n", encoding="utf-8")
        console.print(f"written to {output}", soft_wrap=True)


def _engine(folder: Path) -> Engine:
    """The engine that a worker with this environment's settings serves the package by."""
    settings = Settings()
    tasks = load_tasks(settings.worker.task_definitions)
    package = packages.Package.open(folder)
    package.verify(tasks)
    return open_engine(package, package.fitting(tasks), settings)


def _digest(folder: Path) -> str:
    return packages.Package.open(folder).digest


def _command() -> str:
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


@contextmanager
def _refusing() -> Iterator[None]:
    """Exits with what was expected and what to do, in place of a traceback."""
    errors = Console(stderr=True)
    try:
        yield
    except (
        FileNotFoundError,
        RowsError,
        EngineLoadError,
        packages.PackageError,
        GateError,
        ReportError,
    ) as error:
        errors.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(WRONG_USAGE) from error
    except EngineDead as error:
        errors.print(f"the engine died: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(FAILED) from error


@contextmanager
def _progress() -> Iterator[Step]:
    """A bar for each step, on standard error."""
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )

    def step(what: str, texts: int) -> Answered:
        bar = bars.add_task(what, total=texts)
        return lambda answered: bars.advance(bar, answered)

    with bars:
        yield step
