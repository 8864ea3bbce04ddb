"""`reviewmesh-models train`, and `convert`, which makes a base for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from reviewmesh_models.cli.command_line import (
    WRONG_USAGE,
    RegistryFolder,
    ended,
    exits_on_errors,
)
from reviewmesh_models.training.config import read_gguf_base, read_training_config
from reviewmesh_models.training.train import learned_tasks, train_package
from reviewmesh_worker.packages.manifest import version_of
from reviewmesh_worker.packages.registry import Registry
from reviewmesh_worker.packages.versions import Known, check_versions
from reviewmesh_worker.serving.settings import Settings
from reviewmesh_worker.tasks import BUNDLED_TASKS
from reviewmesh_worker.tasks.definition import load_tasks


def train(
    config: Annotated[Path, typer.Argument(help="What to train and how, a YAML file.")],
    data: Annotated[Path, typer.Option(help="Folder with the labelled rows, JSON lines.")],
    output: Annotated[Path, typer.Option(help="Folder to make the package in; empty or new.")],
    tasks: Annotated[Path, typer.Option(help="Folder of the tasks.")] = BUNDLED_TASKS,
    registry: RegistryFolder = None,
) -> None:
    """Make a package from labelled rows; the same command continues where it was stopped."""
    console = Console()
    with exits_on_errors():
        settings = read_training_config(config)
        defined = load_tasks(tasks)
        learned = learned_tasks(settings, defined)
        made_for = {name: version_of(task) for name, task in learned.items()}
        check_versions(made_for, _known_versions(registry))
        with _needs_packages():
            train_package(settings, defined, data=data, output=output, console=console)
    console.print(f"written to {output}", highlight=False, soft_wrap=True)


def convert(
    config: Annotated[Path, typer.Argument(help="A chat model's, which names its GGUF file.")],
) -> None:
    """Make the base folder of a config out of a GGUF file."""
    with exits_on_errors():
        base, source = read_gguf_base(config)
        with _needs_packages():
            # Not where packages for training are missing.
            from reviewmesh_models.training.gguf_base.convert import convert_base

            convert_base(base, source)
    Console().print(f"written to {base.folder}", highlight=False, soft_wrap=True)


def _known_versions(registry: Path | None) -> list[Known]:
    """Of the tasks that come with the project, and of the packages in the registry, if any."""
    bundled = {name: version_of(task) for name, task in load_tasks().items()}
    known: list[Known] = [("the tasks that come with the project", bundled)]
    folder = registry or Settings().worker.model_registry
    if folder is not None and folder.is_dir():
        known += Registry(folder).versions()
    return known


@contextmanager
def _needs_packages() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ended(
            WRONG_USAGE,
            f"training needs the package {error.name}, which is not installed here: "
            "install requirements/vllm.txt",
        ) from error
