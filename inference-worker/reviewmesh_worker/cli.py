"""`reviewmesh-models`: train, export and evaluate the embedded model.

`train` and `export` need the extra `training`; `evaluate` runs with what serves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from reviewmesh_worker.engines.interface import EngineLoadError
from reviewmesh_worker.evaluation.run import evaluate as evaluate_model
from reviewmesh_worker.evaluation.run import read_dev_rows
from reviewmesh_worker.evaluation.table import print_scores
from reviewmesh_worker.models import BUNDLED_MODEL

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


@app.command()
def evaluate(
    data: Data,
    model: Annotated[Path, typer.Option(help="Folder of the model.")] = BUNDLED_MODEL,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="File to write the scores to as well.")
    ] = None,
) -> None:
    """Score a model on the dev rows, through the engine that serves it."""
    try:
        scores = evaluate_model(model, read_dev_rows(data))
    except (FileNotFoundError, EngineLoadError) as error:
        raise _fail(str(error)) from error
    print_scores(scores, Console())
    if json_file is not None:
        json_file.write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")


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
