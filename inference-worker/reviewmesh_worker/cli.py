"""`reviewmesh-models`: train and evaluate models.

`train` needs the extra `training`; `evaluate` runs with what serves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from reviewmesh_worker.engines.interface import EngineLoadError
from reviewmesh_worker.evaluation.run import evaluate as evaluate_model
from reviewmesh_worker.evaluation.run import read_dev_rows
from reviewmesh_worker.evaluation.table import print_scores
from reviewmesh_worker.models import BUNDLED_MODEL
from reviewmesh_worker.training.command import train

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

Data = Annotated[Path, typer.Option(help="Folder with the labelled rows, JSON lines.")]

_WRONG_USAGE = 2


app.command()(train)


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


def _fail(message: str) -> typer.Exit:
    Console(stderr=True).print(message, style="red", markup=False)
    return typer.Exit(_WRONG_USAGE)


if __name__ == "__main__":
    app()
