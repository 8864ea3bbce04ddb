"""`reviewmesh-models`: label reviews; make models of GGUF files a base; train, evaluate, compare,
register and promote packages; compare the cost of own GPUs with a provider's.

Needs the extras `worker` and `cli`; `convert` and `train` need `training` as well.
"""

from __future__ import annotations

import typer

from reviewmesh_models.cli import crossover_command
from reviewmesh_models.cli import evaluation_commands as evaluation
from reviewmesh_models.cli import labelling_commands as labelling
from reviewmesh_models.cli import registry_commands as registry
from reviewmesh_models.cli.training_command import convert, train

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)

app.command()(labelling.label)
app.command()(labelling.adjudicate)
app.command()(labelling.agreement)
app.command()(convert)
app.command()(train)
app.command()(evaluation.evaluate)
app.command()(evaluation.reference)
app.command()(evaluation.gate)
app.command()(evaluation.compare)
app.command("list")(registry.list_packages)
app.command()(registry.show)
app.command()(registry.add)
app.command()(registry.candidate)
app.command()(registry.promote)
app.command()(registry.rollback)
app.command()(crossover_command.crossover)


if __name__ == "__main__":
    app()
