"""How long a backlog takes. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence


def drain_s(
    backlog: float,
    arrivals_per_s: float,
    reviews_per_s: float,
    replicas: int,
    starts_in_s: Sequence[float] = (),
) -> float:
    """Seconds until nothing waits, while so many arrive; infinite if it never does.

    `reviews_per_s`: of one replica. `replicas`: those that answer now. `starts_in_s`: in how many
    seconds each further one answers.
    """
    now = 0.0
    for answering, until in enumerate((*sorted(starts_in_s), math.inf), replicas):
        spare = answering * reviews_per_s - arrivals_per_s
        if backlog <= 0:
            return now
        if spare > 0 and backlog <= spare * (until - now):
            return now + backlog / spare
        if until == math.inf:
            break
        backlog -= spare * (until - now)
        now = until
    return math.inf
