"""When reviews were accepted, counted by the step of time."""

from __future__ import annotations

from confluent_kafka import OFFSET_BEGINNING

from reviewmesh.query.connection import Connection
from reviewmesh.query.errors import NotFound
from reviewmesh.query.reading import offsets, partitions_of, read_until
from reviewmesh_schemas.names import ACCEPTED


def accepted_by_step(
    connection: Connection, step_ms: int, since_ms: int | None, until_ms: int | None
) -> tuple[int, list[int]]:
    """Where the first step begins, and the accepted reviews of each step.

    Times are the broker's, from `since_ms` until before `until_ms`; a last step that is not over is
    left out where others are. Raises CannotReach, KafkaException, and NotFound without a review.
    """
    wanted = partitions_of(connection, ACCEPTED)
    ends = offsets(connection, wanted)
    found = offsets(connection, wanted, OFFSET_BEGINNING if since_ms is None else since_ms)
    starts = {place: at if at >= 0 else ends[place] for place, at in found.items()}
    steps: dict[int, int] = {}
    latest = 0
    for record in read_until(connection, starts, ends):
        at = record.timestamp_ms
        if (since_ms is None or at >= since_ms) and (until_ms is None or at < until_ms):
            steps[at // step_ms] = steps.get(at // step_ms, 0) + 1
            latest = max(latest, at)
    if not steps:
        raise NotFound("no accepted review is kept of that time")
    first, last = min(steps), max(steps)
    if last > first and latest < (last + 1) * step_ms - 1 and until_ms is None:
        last -= 1
    return first * step_ms, [steps.get(step, 0) for step in range(first, last + 1)]
