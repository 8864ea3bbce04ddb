"""`reviewmesh-models evaluate`, `gate` and `compare`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from reviewmesh_models.cli.command_line import (
    FAILED,
    WRONG_USAGE,
    RegistryFolder,
    TasksFolder,
    ended,
    exits_on_errors,
)
from reviewmesh_models.evaluation.compare import compare_engines
from reviewmesh_models.evaluation.gate import check_gate, read_gate
from reviewmesh_models.evaluation.page import write_page
from reviewmesh_models.evaluation.predictions import OnAnswered, Step
from reviewmesh_models.evaluation.promotion import made_for
from reviewmesh_models.evaluation.report import Report, read_report, write_report
from reviewmesh_models.evaluation.rows import (
    QUICK_ROWS,
    REVIEWS_FILE,
    quick_rows,
    read_dev_rows,
    read_rows,
)
from reviewmesh_models.evaluation.run import evaluate_engine, reference_of
from reviewmesh_models.evaluation.table import print_comparison, print_gate, print_report
from reviewmesh_worker.engines.factory import open_engine
from reviewmesh_worker.engines.interface import Engine
from reviewmesh_worker.engines.settings import EngineChoice
from reviewmesh_worker.packages.manifest import Package
from reviewmesh_worker.packages.registry import Registry, RegistryError
from reviewmesh_worker.serving.settings import Settings
from reviewmesh_worker.tasks.definition import Task, load_tasks

_PACKAGE: Final = "Folder of a package, or NAME@VERSION in a registry."
PackageArgument = Annotated[str, typer.Argument(metavar="PACKAGE", help=_PACKAGE)]
DataArgument = Annotated[Path, typer.Argument(help="Folder with labelled rows, JSON lines.")]
EngineOption = Annotated[
    EngineChoice | None,
    typer.Option("--engine", help="Engine; REVIEWMESH_WORKER__ENGINE if none."),
]
AgainstOption = Annotated[
    str | None,
    typer.Option(
        help="Package to compare with; those that serve its tasks if none and it is in a registry."
    ),
]


@dataclass(frozen=True)
class LocalPackages:
    """Finds packages and opens engines for them, as a worker does."""

    settings: Settings
    tasks: Mapping[str, Task]
    registry: Registry | None

    @classmethod
    def of(cls, registry: Path | None, tasks: Path | None) -> LocalPackages:
        settings = Settings()
        folder = registry or settings.worker.model_registry
        return cls(
            settings,
            load_tasks(tasks or settings.worker.task_definitions),
            None if folder is None else Registry(folder),
        )

    @property
    def gate_file(self) -> Path | None:
        """The registry's own rules, if it has any."""
        if self.registry is None or not self.registry.gate_file.is_file():
            return None
        return self.registry.gate_file

    def package(self, name: str) -> Package:
        """The verified package, by its folder or its name in the registry."""
        if Path(name).is_dir() or "@" not in name:
            package = Package.open(Path(name))
        elif self.registry is None:
            raise RegistryError(
                f"expected the registry that holds {name}: --registry or "
                "REVIEWMESH_WORKER__MODEL_REGISTRY"
            )
        else:
            package = self.registry.package(name)
        package.verify(self.tasks)
        return package

    def rivals(self, package: Package, against: str | None) -> dict[str, Package | None]:
        """By task of the package, the package to compare it with."""
        fitting = package.fitting(self.tasks)
        if against is not None:
            rival = self.package(against)
            return dict.fromkeys(fitting, rival)
        if self.registry is None:
            return dict.fromkeys(fitting)
        return {task: self._serving(self.registry, task, package) for task in fitting}

    def engine(self, package: Package, choice: EngineChoice | None = None) -> Engine:
        chosen = self.settings.engines
        settings = replace(chosen, engine=choice) if choice else chosen
        return open_engine(package, package.fitting(self.tasks), settings)

    def _serving(self, registry: Registry, task: str, package: Package) -> Package | None:
        if registry.aliases(task).serving is None:
            return None
        serving = registry.resolve(task).package
        if serving.digest == package.digest:
            return None
        serving.verify(self.tasks)
        return serving


def evaluate(
    package: PackageArgument,
    data: DataArgument,
    registry: RegistryFolder = None,
    tasks: TasksFolder = None,
    against: AgainstOption = None,
    engine: EngineOption = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the report; that of the package if none.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help=f"{QUICK_ROWS} rows of each file and no hostile texts: a look, which writes no "
            "report and passes no gate.",
        ),
    ] = False,
) -> None:
    """Score a package through the engine that serves it; writes evaluation.json and .html."""
    if quick and output is not None:
        raise ended(
            WRONG_USAGE, "expected --quick or --output, got both: a quick look writes no report"
        )
    with exits_on_errors(), progress() as step:
        here = LocalPackages.of(registry, tasks)
        asked = here.package(package)
        own = asked.fitting(here.tasks)
        rivals = {
            rival.digest: rival for rival in here.rivals(asked, against).values() if rival
        }.values()
        rows = read_dev_rows(data, own)
        rules = read_gate(here.gate_file)
        report = evaluate_engine(
            here.engine(asked, engine),
            quick_rows(rows) if quick else rows,
            tasks={**here.tasks, **own},
            command=_command(),
            step=step,
            against=[here.engine(rival) for rival in rivals],
            quick=quick,
        )
        written = [] if quick else _write(report, output or asked.folder)
    console = Console()
    print_report(report, rules, console)
    if quick:
        console.print("a quick look: no report was written")
    for file in written:
        console.print(f"written to {file}", soft_wrap=True)


def _write(report: Report, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return [write_report(report, folder), write_page(report, folder)]


def reference(
    package: PackageArgument,
    data: DataArgument,
    registry: RegistryFolder = None,
    tasks: TasksFolder = None,
    engine: EngineOption = None,
) -> None:
    """Add what a package answers on the gate's set to a report that was made without it.

    A worker that serves the package compares its answers with it. `evaluate` adds it by itself.
    """
    with exits_on_errors(), progress() as step:
        here = LocalPackages.of(registry, tasks)
        asked = here.package(package)
        report = read_report(asked.folder)
        if report.package.digest != asked.digest:
            raise ValueError(
                f"expected a report of {asked.digest} in {asked.folder}, found one of "
                f"{report.package.digest}; run `reviewmesh-models evaluate`"
            )
        rows = read_dev_rows(data, asked.fitting(here.tasks))
        found = reference_of(here.engine(asked, engine), rows, step)
        written = write_report(report.model_copy(update={"distributions": found}), asked.folder)
    Console().print(f"written to {written}", soft_wrap=True)


def gate(
    package: PackageArgument,
    registry: RegistryFolder = None,
    tasks: TasksFolder = None,
    gate_file: Annotated[
        Path | None, typer.Option("--gate", help="The rules; the registry's or ours if none.")
    ] = None,
    against: AgainstOption = None,
) -> None:
    """Check a package's report against the gate; exits with 1 if the package may not serve."""
    with exits_on_errors():
        here = LocalPackages.of(registry, tasks)
        asked = here.package(package)
        rules, report = read_gate(gate_file or here.gate_file), read_report(asked.folder)
        contested: dict[str | None, list[str]] = {}
        for task, rival in here.rivals(asked, against).items():
            contested.setdefault(None if rival is None else rival.digest, []).append(task)
        results = {
            serving: check_gate(
                report, asked.digest, tasks=made_for(asked, names), gate=rules, serving=serving
            )
            for serving, names in contested.items()
        }
    console = Console()
    for serving, result in results.items():
        print_gate(result, f"{asked.id} against {serving or 'nothing that serves'}", console)
    if not all(result.passed for result in results.values()):
        raise typer.Exit(FAILED)


def compare(
    ours: Annotated[str, typer.Argument(help=_PACKAGE)],
    theirs: Annotated[str, typer.Argument(help="The other package, or the same.")],
    data: DataArgument,
    registry: RegistryFolder = None,
    tasks: TasksFolder = None,
    engine: EngineOption = None,
    their_engine: Annotated[EngineChoice | None, typer.Option(help="That of the other.")] = None,
    output: Annotated[
        Path | None, typer.Option(help="File for every disagreement with its scores, JSON.")
    ] = None,
) -> None:
    """Ask two packages, or one on two engines, about the same reviews: where do they differ?"""
    with exits_on_errors(), progress() as step:
        here = LocalPackages.of(registry, tasks)
        texts = [row["text"] for row in read_rows(data / REVIEWS_FILE)]
        comparison = compare_engines(
            here.engine(here.package(ours), engine),
            here.engine(here.package(theirs), their_engine),
            texts,
            step,
        )
    console = Console()
    print_comparison(comparison, console)
    if output is not None:
        output.write_text(comparison.model_dump_json(indent=2) + "\n", encoding="utf-8")
        console.print(f"written to {output}", soft_wrap=True)


def _command() -> str:
    """The command as given, without paths of this machine."""
    words = (Path(word).name if Path(word).exists() else word for word in sys.argv)
    return shlex.join(words)


@contextmanager
def progress() -> Iterator[Step]:
    """A bar for each step, on standard error."""
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )

    def step(what: str, texts: int) -> OnAnswered:
        bar = bars.add_task(what, total=texts)
        return lambda answered: bars.advance(bar, answered)

    with bars:
        yield step
