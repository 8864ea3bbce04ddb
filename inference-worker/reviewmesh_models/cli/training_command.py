"""`reviewmesh-models train`, and `convert`, which makes a base for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from reviewmesh_models.cli.command_line import WRONG_USAGE, ended, exits_on_errors
from reviewmesh_models.training.config import (
    ConfigError,
    read_gguf_base,
    read_training_config,
)
from reviewmesh_models.training.rows import DataError
from reviewmesh_models.training.train import train_package
from reviewmesh_models.training.workplace import OutputError
from reviewmesh_worker.packages.manifest import PackageError
from reviewmesh_worker.tasks import BUNDLED_TASKS
from reviewmesh_worker.tasks.chat import ChatError
from reviewmesh_worker.tasks.definition import TaskError, load_tasks

_REFUSED = (
    FileNotFoundError,
    ChatError,
    ConfigError,
    DataError,
    OutputError,
    PackageError,
    TaskError,
)


def train(
    config: Annotated[Path, typer.Argument(help="What to train and how, a YAML file.")],
    data: Annotated[Path, typer.Option(help="Folder with the labelled rows, JSON lines.")],
    output: Annotated[Path, typer.Option(help="Folder to make the package in; empty or new.")],
    tasks: Annotated[Path, typer.Option(help="Folder of the tasks.")] = BUNDLED_TASKS,
) -> None:
    """Make a package from labelled rows; the same command continues where it was stopped."""
    console = Console()
    try:
        with _needs_packages():
            train_package(
                read_training_config(config),
                load_tasks(tasks),
                data=data,
                output=output,
                console=console,
            )
    except _REFUSED as error:
        raise ended(WRONG_USAGE, str(error)) from error
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
