"""Shared by the commands of `reviewmesh-models`: options, exit codes, error messages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from pydantic import ValidationError
from rich.console import Console

from reviewmesh_kit.printable import plain_lines
from reviewmesh_kit.settings import problems
from reviewmesh_models.labelling.store import StoreError
from reviewmesh_worker.engines.interface import EngineDead, EngineLoadError

FAILED: Final = 1
WRONG_USAGE: Final = 2

RegistryFolder = Annotated[
    Path | None,
    typer.Option(
        "--registry",
        help="Folder of the registry; REVIEWMESH_WORKER__MODEL_REGISTRY if none.",
    ),
]
TasksFolder = Annotated[
    Path | None,
    typer.Option(
        "--tasks",
        help="Folder of task definitions with golden rows; REVIEWMESH_WORKER__TASK_DEFINITIONS if "
        "none. Packages for other versions have those that they carry.",
    ),
]


def complain(message: str) -> None:
    # The message may contain text from a provider or a file.
    Console(stderr=True).print(plain_lines(message), style="red", markup=False, soft_wrap=True)


def ended(code: int, message: str) -> typer.Exit:
    """An exit to raise, with a message instead of a traceback."""
    complain(message)
    return typer.Exit(code)


@contextmanager
def exits_on_errors() -> Iterator[None]:
    """Turns the expected errors of a command into a message and an exit code."""
    try:
        yield
    except ValidationError as error:
        raise ended(WRONG_USAGE, "\n".join(problems(error))) from error
    except (ValueError, EngineLoadError, FileNotFoundError) as error:
        # Errors of packages, tasks, rows, teachers and decisions say what to do.
        raise ended(WRONG_USAGE, str(error)) from error
    except (StoreError, OSError) as error:
        raise ended(FAILED, str(error)) from error
    except EngineDead as error:
        raise ended(FAILED, f"the engine died: {error}") from error
