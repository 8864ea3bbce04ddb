"""Rollouts of candidates: their records in `reviews.control`, and commands to the judge."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_BEGINNING

from reviewmesh.avro.codec import DecodeError
from reviewmesh.judge.answers import judged_answer
from reviewmesh.judge.bounds import Bounds
from reviewmesh.judge.comparison import COST, DISAGREEMENT, FAILURES, LABELS, LATENCY
from reviewmesh.judge.decision import HALF
from reviewmesh.judge.rollout import RolloutRecord, record_of
from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.query.connection import Connection
from reviewmesh.query.errors import CannotReach, NotCarriedOut
from reviewmesh.query.reading import offsets, partitions_of, read_all, read_until
from reviewmesh.query.sending import Sender
from reviewmesh_schemas.names import COMMANDS, CONTROL, RESULT_OF, TASKS

ANSWER_WITHIN_S = 30.0
ASK_EVERY_S = 0.5
LATEST_ANSWERS = 500
"""Offsets of each partition of a topic of results."""
ENDS_IT = {
    LABELS: "less often right about labelled texts than the task's own workers",
    DISAGREEMENT: "other answers than the task's own workers",
    FAILURES: "more failures than the task's own workers",
    LATENCY: "answers that take longer than allowed",
    COST: "answers that cost more than allowed",
}
"""By metric, what ends a rollout once it is shown."""


def rollouts(connection: Connection) -> dict[str, RolloutRecord]:
    """The last rollout of every task. Raises CannotReach."""
    found = epochs_of_rollouts(connection)
    return {task: found[task][-1] if found[task] else RolloutRecord(task) for task in TASKS}


def epochs_of_rollouts(connection: Connection) -> dict[str, list[RolloutRecord]]:
    """By task, the last record of each epoch, oldest first. Compaction deletes earlier ones.

    Raises CannotReach.
    """
    found: dict[str, dict[int, RolloutRecord]] = {task: {} for task in TASKS}
    for record in _records(connection):
        if record.task in found:
            found[record.task].pop(record.epoch, None)
            found[record.task][record.epoch] = record
    return {task: list(epochs.values()) for task, epochs in found.items()}


def _records(connection: Connection) -> Iterator[RolloutRecord]:
    """Of each task in order. Raises CannotReach."""
    codec = connection.codec(CONTROL)
    for record in read_all(connection, partitions_of(connection, CONTROL)):
        try:
            yield record_of(codec.decode_ours(record.value or b""))
        except DecodeError:
            continue


def standing(record: RolloutRecord) -> str:
    """Where a rollout is, in words."""
    if not record.rollout:
        return "no rollout"
    share = f" at {100 * record.share:.4g} % of the reviews" if record.is_running else ""
    return f"{record.state.lower()}{share}, epoch {record.epoch}, rollout {record.rollout}"


def limits_of(record: RolloutRecord, bounds: Bounds) -> dict[str, float]:
    """What a rollout ends above, by metric. Cost is left out where it is not judged."""
    limits = {
        LABELS: bounds.worse,
        DISAGREEMENT: bounds.disagreement,
        FAILURES: bounds.failures,
        LATENCY: HALF,
        COST: HALF,
    }
    return {
        metric: limit for metric, limit in limits.items() if metric != COST or not record.unpriced
    }


def again_command(record: RolloutRecord) -> str:
    """The command that does the candidate's answers again with the task's own workers."""
    return (
        f"reviewmesh reprocess --task {record.task} "
        f'--where \'rollout = "{record.rollout}" and route = "candidate"\''
    )


def promote_command(record: RolloutRecord) -> str:
    return f"reviewmesh-models promote {record.model or 'NAME@VERSION'} --task {record.task}"


def labels_said(connection: Connection, task: str) -> frozenset[str]:
    """The labels of the task's latest answers; empty without any. Raises CannotReach."""
    topic = RESULT_OF[task]
    codec = connection.codec(topic)
    wanted = partitions_of(connection, topic)
    ends, begin = offsets(connection, wanted), offsets(connection, wanted, OFFSET_BEGINNING)
    starts = {at: max(begin[at], ends[at] - LATEST_ANSWERS) for at in wanted}
    found: set[str] = set()
    for record in read_until(connection, starts, ends):
        try:
            found |= judged_answer(task, codec.decode_ours(record.value or b"")).labels
        except DecodeError:
            continue
    return frozenset(found)


def give(
    connection: Connection,
    task: str,
    action: str,
    epoch: int,
    bounds: str | None = None,
    labelled: Sequence[Mapping[str, Any]] = (),
) -> RolloutRecord:
    """Give the judge a command and wait for its answer; returns the record after it.

    Raises NotCarriedOut, with the judge's words, and CannotReach if no judge answers.
    """
    name = write_command(connection, task, action, epoch, bounds, labelled)
    deadline = time.monotonic() + ANSWER_WITHIN_S
    while time.monotonic() < deadline:
        record = _answer_to(connection, name)
        if record is not None and record.refusal is not None:
            raise NotCarriedOut(record.refusal)
        if record is not None:
            return record
        time.sleep(ASK_EVERY_S)
    raise CannotReach(
        f"no judge answered within {ANSWER_WITHIN_S:g} s; see `reviewmesh ps`. The command is "
        "kept: a judge that comes back carries it out, if nothing has changed until then"
    )


def _answer_to(connection: Connection, command: str) -> RolloutRecord | None:
    """The first record after it: the last one may be the answer to a command that came later."""
    answers = [record for record in _records(connection) if record.last_command == command]
    return answers[0] if answers else None


def write_command(
    connection: Connection,
    task: str,
    action: str,
    epoch: int,
    bounds: str | None = None,
    labelled: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Write a command for the judge; returns the id of the command."""
    name, key = secrets.token_hex(8), task.encode()
    value = connection.codec(COMMANDS).encode(
        {
            "command": name,
            "task": task,
            "action": action,
            "epoch": epoch,
            "bounds": bounds,
            "labelled": list(labelled),
            "requested_at": int(time.time() * 1000),
        }
    )
    sender = Sender(connection)
    sender.send(COMMANDS, partition_of(key, connection.partitions(COMMANDS)), key, value, ())
    sender.close()
    return name
