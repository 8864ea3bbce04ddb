"""Shared by the commands of `reviewmesh-models`: options, exit codes, error messages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from reviewmesh_kit.printable import plain_lines

FAILED: Final = 1
WRONG_USAGE: Final = 2

RegistryFolder = Annotated[
    Path | None,
    typer.Option(
        "--registry",
        help="Folder of the registry; REVIEWMESH_WORKER__MODEL_REGISTRY if none.",
    ),
]


def complain(message: str) -> None:
    # A provider's or a file's words may be among it.
    Console(stderr=True).print(plain_lines(message), style="red", markup=False, soft_wrap=True)


def ended(code: int, message: str) -> typer.Exit:
    """An exit to raise, with a message instead of a traceback."""
    complain(message)
    return typer.Exit(code)
