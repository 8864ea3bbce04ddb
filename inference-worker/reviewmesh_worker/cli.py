"""`reviewmesh-models`: train, export and evaluate models.

`train` and `export` need the extra `training`; the others run with what serves.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from reviewmesh_worker import registry_commands as registry
from reviewmesh_worker.evaluation import commands

if TYPE_CHECKING:
    from types import ModuleType

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

Data = Annotated[Path, typer.Option(help="Folder with the labelled rows, JSON lines.")]
Output = Annotated[Path, typer.Option(help="Folder to write the model to.")]
Version = Annotated[str, typer.Option(help="Version that results will carry in their lineage.")]

_WRONG_USAGE = 2


@app.command()
def train(
    data: Data,
    output: Output,
    version: Version = "1",
    epochs: Annotated[int, typer.Option(min=1)] = 4,
    minutes: Annotated[
        float, typer.Option(help="The learning rate runs out by then if the epochs do not.")
    ] = 120.0,
    seed: int = 7,
) -> None:
    """Fine-tune the encoder, quantize it, fit its thresholds on held-out rows."""
    training = _training()
    console = Console()
    schedule = training.Schedule(epochs, minutes, seed)
    try:
        training.train(data, output, version, schedule, console.print)
    except FileNotFoundError as error:
        raise _fail(str(error)) from error
    console.print(f"written to {output}")


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint that `train` left behind.")],
    data: Data,
    output: Output,
    version: Version = "1",
) -> None:
    """Write a checkpoint as the int8 model that serves."""
    try:
        _training().export_checkpoint(checkpoint, data, output, version)
    except FileNotFoundError as error:
        raise _fail(str(error)) from error
    Console().print(f"written to {output}")


for command in (commands.evaluate, commands.gate, commands.compare):
    app.command()(command)
app.command("list")(registry.list_packages)
app.command()(registry.show)
app.command()(registry.add)
app.command()(registry.promote)
app.command()(registry.rollback)


def _training() -> ModuleType:
    try:
        from reviewmesh_worker.training import run
    except ModuleNotFoundError as error:
        raise _fail(
            f"training needs the package {error.name}, which is not installed here: "
            "install requirements/vllm.txt"
        ) from error
    return run


def _fail(message: str) -> typer.Exit:
    Console(stderr=True).print(message, style="red", markup=False)
    return typer.Exit(_WRONG_USAGE)


if __name__ == "__main__":
    app()
