"""`reviewmesh-models train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from reviewmesh_models.cli.command_line import WRONG_USAGE, ended
from reviewmesh_models.training.config import ConfigError, read_training_config
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
        train_package(
            read_training_config(config),
            load_tasks(tasks),
            data=data,
            output=output,
            console=console,
        )
    except ModuleNotFoundError as error:
        raise ended(
            WRONG_USAGE,
            f"training needs the package {error.name}, which is not installed here: "
            "install requirements/vllm.txt",
        ) from error
    except _REFUSED as error:
        raise ended(WRONG_USAGE, str(error)) from error
    console.print(f"written to {output}", highlight=False, soft_wrap=True)
