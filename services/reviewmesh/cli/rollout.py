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
from reviewmesh.judge.comparison import COST, DISAGREEMENT, FAILURES, LABELS, LATENCY
from reviewmesh.judge.decision import HALF
from reviewmesh.judge.rollout import ABORT, ADVANCE, START, Look, RolloutRecord
from reviewmesh.query.connection import connect
from reviewmesh.query.labelled_rows import RowsProblem, read_labelled
from reviewmesh.query.rollouts import give, labels_said, rollouts
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
WORDS = {
    LABELS: "less often right about labelled texts than the task's own workers",
    DISAGREEMENT: "other answers than the task's own workers",
    FAILURES: "more failures than the task's own workers",
    LATENCY: "answers that take longer than allowed",
    COST: "answers that cost more than allowed",
}


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
    if record.refusal is not None:
        raise CommandFailed(record.refusal)
    out.print(record.rollout)
    err.print(f"{_standing(record)}; see `reviewmesh rollout status --task {task}`")


def again_command(record: RolloutRecord) -> str:
    """The command that does the candidate's answers again with the task's own workers."""
    return (
        f"reviewmesh reprocess --task {record.task} "
        f'--where \'rollout = "{record.rollout}" and route = "candidate"\''
    )


def promote_command(record: RolloutRecord) -> str:
    return f"reviewmesh-models promote {record.model or 'NAME@VERSION'} --task {record.task}"


def told(record: RolloutRecord, room: int) -> Iterator[str]:
    """`room`: the columns that there are."""
    if not record.rollout:
        yield f"{record.task}: no rollout"
        return
    yield f"{record.task}: {_standing(record)}"
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


def _standing(record: RolloutRecord) -> str:
    share = f" at {100 * record.share:.4g} % of the reviews" if record.is_running else ""
    return f"{record.state.lower()}{share}, epoch {record.epoch}, rollout {record.rollout}"


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
    limits = {
        LABELS: bounds.worse,
        DISAGREEMENT: bounds.disagreement,
        FAILURES: bounds.failures,
        LATENCY: HALF,
        COST: HALF,
    }
    if record.unpriced:
        del limits[COST]
        yield f"  cost is not judged: it is not known of both answers of {record.unpriced:,} pairs"
    for metric, limit in limits.items():
        own = _of(record, metric, ALL)
        if not own:
            continue
        yield f"  {metric}: {WORDS[metric]}; ends if it is shown to be above {limit:g} (┊)"
        for line in drawn(own, limit, room - len(INDENT)):
            yield f"{INDENT}{line}"
        for name in record.slices:
            if looks := _of(record, metric, name):
                last = looks[-1]
                yield (
                    f"    {name}: {last.mean:.3f} [{last.low:.3f}, {last.high:.3f}] "
                    f"over {last.observations:,}"
                )


def _of(record: RolloutRecord, metric: str, name: str) -> list[Look]:
    return [look for look in record.looks if (look.metric, look.slice) == (metric, name)]


def as_json(record: RolloutRecord) -> dict[str, Any]:
    content = record.content()
    for name in ("started_at", "stage_at", "changed_at"):
        content[name] = None if content[name] is None else iso(content[name])
    if record.rollout:
        content["again"] = again_command(record)
        content["promote"] = promote_command(record)
    return content
