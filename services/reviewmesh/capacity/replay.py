"""Arrivals that were, through the policy: how late reviews get, and how many workers that takes.

A simulation second by second. A review waits in one queue, oldest first, and each worker that
answers takes its measured rate out of it. How long an answer itself takes is not part of the lag.
Pure.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from reviewmesh.capacity.drain import drain_s
from reviewmesh.capacity.policy import LOOK_S, Scaler, ScalingPolicy

TICK_S = 1.0
# Prometheus scrapes every 15 s: what the autoscaler hears is at most so old.
KNOWN_AFTER_S = 15
# Sums of shares of a review leave a rest.
NOTHING_LEFT = 1e-9
HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Moment:
    """The state at a look of the autoscaler."""

    at_s: float
    arrivals_per_s: float
    backlog: float
    lag_s: float
    """The age of the oldest review that waits."""
    replicas: int
    answering: int
    """Those of them that have started."""


@dataclass
class Replayed:
    """What came of it."""

    moments: list[Moment] = field(default_factory=list)
    waited: defaultdict[float, float] = field(default_factory=lambda: defaultdict(float))
    """Reviews by the seconds that they waited."""
    unanswered: float = 0.0
    """Reviews that still waited in the end."""
    changes: list[tuple[float, int]] = field(default_factory=list)
    """When there were more or fewer replicas, and by how many."""
    replica_s: float = 0.0
    """Seconds of replicas, starting ones too."""
    predicted_drain_s: float = 0.0
    """At the largest backlog: how long it takes, if no more replicas are added."""
    drained_s: float = 0.0
    """How long it took."""

    @property
    def replica_hours(self) -> float:
        return self.replica_s / HOUR_S

    @property
    def most_replicas(self) -> int:
        return max(moment.replicas for moment in self.moments)

    @property
    def largest_backlog(self) -> Moment:
        return max(self.moments, key=lambda moment: moment.backlog)

    @property
    def turns(self) -> int:
        """How often fewer replicas followed on more, or more on fewer."""
        ups = [change > 0 for _, change in self.changes]
        return sum(before != after for before, after in pairwise(ups))

    def lag_s(self, share: float) -> float:
        """So large a share of reviews waited no longer; infinite if too many still wait."""
        total = sum(self.waited.values()) + self.unanswered
        seen = 0.0
        for seconds in sorted(self.waited):
            seen += self.waited[seconds]
            if seen >= share * total - NOTHING_LEFT:
                return seconds
        return math.inf if self.unanswered else 0.0


class _Queue:
    """Reviews by the second of their arrival, oldest first."""

    def __init__(self) -> None:
        self._waiting: deque[list[float]] = deque()
        self.size = 0.0

    def add(self, at: float, count: float) -> None:
        if count > 0:
            self._waiting.append([at, count])
            self.size += count

    def take(self, now: float, most: float, waited: defaultdict[float, float]) -> None:
        while self._waiting and most > 0:
            first = self._waiting[0]
            taken = min(most, first[1])
            waited[now - first[0]] += taken
            most -= taken
            self.size -= taken
            first[1] -= taken
            if first[1] <= NOTHING_LEFT:
                self._waiting.popleft()
        if not self._waiting:
            self.size = 0.0

    def age_s(self, now: float) -> float:
        return now - self._waiting[0][0] if self._waiting else 0.0


class _Replicas:
    """Those that answer, and when the others will."""

    def __init__(self, count: int, start_s: float) -> None:
        self._start_s = start_s
        self.answering = count
        self.ready_at: deque[float] = deque()

    def set(self, now: float, wanted: int) -> None:
        """The last ones to start go first."""
        while self.answering + len(self.ready_at) < wanted:
            self.ready_at.append(now + self._start_s)
        while self.answering + len(self.ready_at) > wanted:
            if self.ready_at:
                self.ready_at.pop()
            else:
                self.answering -= 1

    def start(self, now: float) -> None:
        while self.ready_at and self.ready_at[0] <= now:
            self.ready_at.popleft()
            self.answering += 1


def replay(
    policy: ScalingPolicy, counts: Sequence[float], step_s: float, replicas: int | None = None
) -> Replayed:
    """`counts`: the reviews of each step of `step_s` seconds, spread evenly over it.

    `replicas`: there are so many in the beginning; without it, as many as the first step needs.
    Before the first step as many arrived as in it. After the last one the queue is worked off, for
    at most as long again.
    """
    steps_s = len(counts) * step_s
    first = counts[0] / step_s if counts else 0.0
    scaler = Scaler(policy, policy.wanted(first, 0) if replicas is None else replicas)
    there = _Replicas(scaler.replicas, policy.start_s)
    queue, found = _Queue(), Replayed()
    window = deque([first] * int(max(1, policy.rate_window_s)))
    in_window = first * len(window)
    known: deque[float] = deque(maxlen=KNOWN_AFTER_S + 1)
    largest = 0.0
    now, next_look = 0.0, 0.0
    largest_at = 0.0
    while now < steps_s or (queue.size > 0 and now < 2 * steps_s):
        arriving = _rate(counts, step_s, now)
        known.append(policy.work(in_window / len(window), queue.size))
        if now >= next_look:
            before = scaler.replicas
            wanted = scaler.look(now, known[0])
            if wanted != before:
                found.changes.append((now, wanted - before))
            there.set(now, wanted)
            found.moments.append(
                Moment(now, arriving, queue.size, queue.age_s(now), wanted, there.answering)
            )
            next_look += LOOK_S
        there.start(now)
        found.replica_s += (there.answering + len(there.ready_at)) * TICK_S
        queue.add(now, arriving * TICK_S)
        queue.take(now, there.answering * policy.reviews_per_s * TICK_S, found.waited)
        if queue.size > largest:
            largest, largest_at = queue.size, now
            found.drained_s = math.inf
            found.predicted_drain_s = drain_s(
                queue.size,
                _rate(counts, step_s, now + TICK_S),
                policy.reviews_per_s,
                there.answering,
                [at - now for at in there.ready_at],
            )
        elif not queue.size and found.drained_s == math.inf:
            found.drained_s = now - largest_at
        in_window += arriving - window.popleft()
        window.append(arriving)
        now += TICK_S
    found.unanswered = queue.size
    return found


def _rate(counts: Sequence[float], step_s: float, at: float) -> float:
    step = int(at / step_s)
    return counts[step] / step_s if step < len(counts) else 0.0
