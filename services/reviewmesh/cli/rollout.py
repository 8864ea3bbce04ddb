"""`reviewmesh rollout`: a task's candidate, from shadow over the canary to being promoted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from reviewmesh.cli.completing import among
from reviewmesh.cli.errors import CommandFailed
from reviewmesh.cli.sequence import drawn
from reviewmesh.cli.terminal import err, json_text, out
from reviewmesh.enrich.rollouts import CANARY, READY, SHADOW
from reviewmesh.judge.answers import ALL
from reviewmesh.judge.bounds import Bounds, BoundsProblem, read_bounds
from reviewmesh.judge.rollout import ABORT, ADVANCE, START, RolloutRecord
from reviewmesh.query.connection import connect
from reviewmesh.query.labelled_rows import RowsProblem, read_labelled
from reviewmesh.query.rollouts import (
    ENDS_IT,
    again_command,
    give,
    labels_said,
    limits_of,
    promote_command,
    rollouts,
    standing,
)
from reviewmesh.query.values import iso
from reviewmesh_schemas.names import TASKS

app = typer.Typer(
    help="Let a candidate of a task answer beside its workers, then some reviews in their place.",
    no_args_is_help=True,
)

COMPLETED = among(TASKS)
Task = Annotated[
    str,
    typer.Option(
        help=f"The task: {', '.join(TASKS)}.", show_default=False, autocompletion=COMPLETED
    ),
]
Epoch = Annotated[
    int | None,
    typer.Option(
        help="The epoch that was looked at; a command for an older one is refused. Without it, "
        "the one of this moment.",
        show_default=False,
    ),
]
INDENT = "    "


@app.command()
def start(
    task: Task,
    bounds: Annotated[
        Path | None,
        typer.Option(help="Bounds of the judge, as YAML; docs/rollouts.md.", show_default=False),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Labelled rows, as JSON lines, to ask both models.", show_default=False),
    ] = None,
    epoch: Epoch = None,
) -> None:
    """Begin in shadow: the candidate answers reviews as well, and its answers are not published."""
    _check(task)
    try:
        chosen = read_bounds(bounds) if bounds is not None else Bounds()
        labelled = read_labelled(labels, task) if labels is not None else []
    except (BoundsProblem, RowsProblem) as error:
        raise typer.BadParameter(str(error)) from None
    if labelled:
        _check_labels(task, labelled)
    _give(task, START, epoch, bounds=chosen.model_dump_json(), labelled=labelled)
    if not labelled:
        err.print("without --labels the judge cannot tell a better candidate from a worse one")


def _check_labels(task: str, labelled: Sequence[Mapping[str, Any]]) -> None:
    """A label that no model ever says makes both models wrong, and hides which one is worse."""
    said = labels_said(connect(), task)
    # Of a name, its place comes before the label.
    given = {right.rpartition(":")[2] for row in labelled for right in row["right"]}
    if not said or not (unknown := sorted(given - said)):
        return
    words = f"{', '.join(unknown)}; the task's latest answers said {', '.join(sorted(said))}"
    if not given & said:
        raise CommandFailed(f"expected labels of the task {task}, got {words}")
    err.print(f"labels that did not come up lately: {words}", style="yellow")


@app.command()
def advance(task: Task, epoch: Epoch = None) -> None:
    """Advance to the next step without waiting for the judge; from READY, end the rollout."""
    _check(task)
    _give(task, ADVANCE, epoch)


@app.command()
def abort(task: Task, epoch: Epoch = None) -> None:
    """End a rollout: the candidate gets no more calls."""
    _check(task)
    _give(task, ABORT, epoch)


@app.command()
def status(
    task: Annotated[
        str | None,
        typer.Option(help="Only this task.", show_default=False, autocompletion=COMPLETED),
    ] = None,
    as_lines: Annotated[bool, typer.Option("--json", help="One line of JSON a task.")] = False,
) -> None:
    """Show the state of each rollout, what it waits for, and its confidence sequences."""
    if task is not None:
        _check(task)
    for record in rollouts(connect()).values():
        if task not in (None, record.task):
            continue
        if as_lines:
            print(json_text(as_json(record)))
        else:
            for line in told(record, out.width):
                out.print(line)


def _check(task: str) -> None:
    if task not in TASKS:
        raise typer.BadParameter(
            f"expected one of {', '.join(TASKS)}, got {task!r:.80}", param_hint="--task"
        )


def _give(task: str, action: str, epoch: int | None, **more: Any) -> None:
    connection = connect()
    at = rollouts(connection)[task].epoch if epoch is None else epoch
    record = give(connection, task, action, at, **more)
    out.print(record.rollout)
    err.print(f"{standing(record)}; see `reviewmesh rollout status --task {task}`")


def told(record: RolloutRecord, room: int) -> Iterator[str]:
    """`room`: the columns that there are."""
    yield f"{record.task}: {standing(record)}"
    if not record.rollout:
        return
    yield f"  {record.reason or ''} ({iso(record.stage_at or 0)})"
    if record.model is not None:
        yield f"  candidate: {record.model}"
    if record.is_running and record.verdict:
        yield f"  now: {record.verdict}"
    if record.compared or record.state == SHADOW:
        yield f"  {_compared(record)}"
    if record.canaries:
        yield f"  {record.canaries:,} canaries seen"
    yield from _sequences(record, room)
    if record.canaries or record.state in (CANARY, READY):
        yield "  the candidate's answers again, by the task's own workers:"
        yield f"    {again_command(record)}"
    if record.state == READY:
        yield "  promote it, then end the rollout:"
        yield f"    {promote_command(record)}"
        yield f"    reviewmesh rollout advance --task {record.task}"


def _compared(record: RolloutRecord) -> str:
    if record.state != SHADOW:
        return f"{record.compared:,} answers were compared in shadow"
    return (
        f"{record.compared:,} of {record.answered:,} answers were compared in shadow: "
        f"{record.compared / max(1, record.answered):.1%}"
    )


def _sequences(record: RolloutRecord, room: int) -> Iterator[str]:
    try:
        bounds = record.parsed_bounds()
    except BoundsProblem as error:
        yield f"  its bounds cannot be read: {error}"
        return
    limits = limits_of(record, bounds)
    if record.unpriced:
        yield f"  cost is not judged: it is not known of both answers of {record.unpriced:,} pairs"
    for metric, limit in limits.items():
        own = record.looks_at(metric, ALL)
        if not own:
            continue
        yield f"  {metric}: {ENDS_IT[metric]}; ends if it is shown to be above {limit:g} (┊)"
        for line in drawn(own, limit, room - len(INDENT)):
            yield f"{INDENT}{line}"
        for name in record.slices:
            if looks := record.looks_at(metric, name):
                last = looks[-1]
                yield (
                    f"    {name}: {last.mean:.3f} [{last.low:.3f}, {last.high:.3f}] "
                    f"over {last.observations:,}"
                )


def as_json(record: RolloutRecord) -> dict[str, Any]:
    content = record.content()
    for name in ("started_at", "stage_at", "changed_at"):
        content[name] = None if content[name] is None else iso(content[name])
    if record.rollout:
        content["again"] = again_command(record)
        content["promote"] = promote_command(record)
    return content
