"""How many replicas there should be. Pure.

The chart's ScaledObjects carry this policy out: KEDA asks Prometheus for the replicas wanted
(`capacity/promql.py`), and Kubernetes' autoscaler takes them as `Scaler` does.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

# Kubernetes' autoscaler: what the chart leaves as it is, or sets to this.
TOLERANCE = 0.1
LOOK_S = 15.0
SCALE_UP_WINDOW_S = 30.0
CHANGE_PERIOD_S = 60.0
MORE_PODS = 4
FEWER_PODS = 1
LONGEST_CALM_S = 3600.0
# With the tolerance on top a replica is still not asked for more than it does.
MOST_UTILISATION = 0.9
# What is taken away before a start is over is missing for as long.
STARTS_OF_CALM = 1.5
# KEDA hands whole thousandths on.
THOUSANDTHS = 1000


@dataclass(frozen=True)
class ScalingPolicy:
    """Of the replicas of one task's workers, or of one service."""

    reviews_per_s: float
    """Of one replica, measured."""
    backlog_s: float = 60.0
    """Within how long a backlog is to be worked off."""
    target_utilisation: float = 0.8
    min_replicas: int = 1
    max_replicas: int = 4
    rate_window_s: float = 120.0
    """Over which the arrival rate is taken."""
    scale_down_s: float = 300.0
    """How long there has to be less work before there are fewer."""
    start_s: float = 60.0
    """From the decision until a replica answers."""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        for name in ("reviews_per_s", "backlog_s", "rate_window_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"expected {name} above 0, got {getattr(self, name):g}")
        for name in ("scale_down_s", "start_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"expected {name} of 0 or more, got {getattr(self, name):g}")
        if not 0 < self.target_utilisation <= MOST_UTILISATION:
            raise ValueError(
                f"expected target_utilisation above 0 and at most {MOST_UTILISATION:g}, got "
                f"{self.target_utilisation:g}"
            )
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise ValueError(
                "expected min_replicas of 1 or more and at most max_replicas, got "
                f"{self.min_replicas} and {self.max_replicas}"
            )

    @property
    def planned_per_s(self) -> float:
        """What one replica is planned with."""
        return self.reviews_per_s * self.target_utilisation

    @property
    def calm_s(self) -> float:
        """How long there has to be less work before there are fewer; above a start."""
        calm = max(math.ceil(self.scale_down_s), math.ceil(STARTS_OF_CALM * self.start_s))
        return min(LONGEST_CALM_S, calm)

    def work(self, arrivals_per_s: float, backlog: float) -> float:
        """The replicas that the work fills, as a fraction: the query's value."""
        return (arrivals_per_s + backlog / self.backlog_s) / self.planned_per_s

    def wanted(self, arrivals_per_s: float, backlog: float) -> int:
        """The replicas for this work, whatever there are now."""
        return self.bounded(whole(self.work(arrivals_per_s, backlog)))

    def bounded(self, replicas: int) -> int:
        return max(self.min_replicas, min(self.max_replicas, replicas))


def whole(work: float) -> int:
    """The replicas that hold so much work: rounded up, from whole thousandths."""
    return math.ceil(math.floor(work * THOUSANDTHS) / THOUSANDTHS)


def of_consumers(most: int, partitions: int) -> int:
    """The most replicas of a service that reads: one without a partition does nothing."""
    return min(most, partitions)


def work_by_lag(lag_s: float, allowed_s: float, replicas: int) -> float:
    """The replicas, as a fraction, of a service that is so far behind."""
    return lag_s / allowed_s * replicas


class Scaler:
    """Takes a policy's replicas as Kubernetes' autoscaler does, look by look.

    Up: if the work exceeds what there is by TOLERANCE, in every look of SCALE_UP_WINDOW_S. Down: if
    fewer keep up with the most work of the last `calm_s`, by one a minute.
    """

    def __init__(self, policy: ScalingPolicy, replicas: int) -> None:
        self._policy = policy
        self.replicas = policy.bounded(replicas)
        self._wanted: deque[tuple[float, int]] = deque()
        self._changes: deque[tuple[float, int]] = deque()

    def look(self, now: float, work: float | None) -> int:
        """The replicas from now on; `work` None: Prometheus did not answer. Times do not fall."""
        current = self.replicas
        if work is None:
            return current
        if not self._wanted:
            self._wanted.append((now, current))
        self._wanted.append((now, self._policy.bounded(self._by_tolerance(work))))
        while self._wanted[0][0] < now - max(self._policy.calm_s, SCALE_UP_WINDOW_S):
            self._wanted.popleft()
        while self._changes and self._changes[0][0] <= now - CHANGE_PERIOD_S:
            self._changes.popleft()
        at_least = min(self._since(now - SCALE_UP_WINDOW_S))
        at_most = max(self._since(now - self._policy.calm_s))
        target = min(max(current, at_least), at_most)
        if target > current:
            before = current - sum(change for _, change in self._changes if change > 0)
            target = min(target, max(current, before * 2, before + MORE_PODS))
        elif target < current:
            before = current - sum(change for _, change in self._changes if change < 0)
            target = max(target, min(current, before - FEWER_PODS))
        if target != current:
            self._changes.append((now, target - current))
            self.replicas = target
        return target

    def _by_tolerance(self, work: float) -> int:
        if abs(work / self.replicas - 1) <= TOLERANCE:
            return self.replicas
        return whole(work)

    def _since(self, moment: float) -> Iterable[int]:
        return [wanted for at, wanted in self._wanted if at >= moment]
