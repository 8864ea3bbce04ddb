"""Alerts on the workers of a task that follow from what was measured of one and from the policy.

Pure: they are printed as a file of rules for Prometheus.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reviewmesh.capacity.policy import ScalingPolicy
from reviewmesh.capacity.promql import work_query
from reviewmesh_schemas.names import ENRICHER_GROUPS

RUNBOOK = "docs/capacity.md#alerts-on-the-workers"
# Of the time, 1 in 100 may be late: at 14.4 times that the budget of a week is gone in 12 hours.
LATE_SHARE = 0.01
FAST_BURN = 14.4
WINDOWS = ("1h", "5m")


def alert_rules(
    policies: Sequence[tuple[str, ScalingPolicy]],
    wait_s: float,
    matchers: str = "",
    prefix: str = "",
) -> dict[str, Any]:
    """A file of rules. `policies`: with their tasks. `wait_s`: how long reviews may wait."""
    rules = [
        rule
        for task, policy in policies
        for rule in (
            _exceeded(task, policy, matchers, prefix),
            _burns(task, wait_s, matchers, prefix),
        )
    ]
    return {"groups": [{"name": "reviewmesh-capacity", "rules": rules}]}


def _exceeded(task: str, policy: ScalingPolicy, matchers: str, prefix: str) -> dict[str, Any]:
    """The query of the ScaledObject, beyond what it may ask for."""
    most = policy.max_replicas
    return {
        "alert": "WorkersExceeded",
        "expr": f"({work_query(policy, task, matchers, prefix)}) > {most}",
        "for": "10m",
        "labels": {"severity": "ticket", "task": task},
        "annotations": {
            "summary": f"{task} has work for {{{{ $value | humanize }}}} workers, of which there "
            f"are {most} at most: reviews wait until less arrives",
            "runbook": RUNBOOK,
        },
    }


def _burns(task: str, wait_s: float, matchers: str, prefix: str) -> dict[str, Any]:
    more = f",{matchers}" if matchers else ""
    group = f"{prefix}{ENRICHER_GROUPS[task]}"
    late = f'max(kafka_consumergroup_group_lag_seconds{{group="{group}"{more}}}) > bool {wait_s:g}'
    bound = f"{FAST_BURN:g} * {LATE_SHARE:g}"
    return {
        "alert": "WaitObjectiveBurns",
        "expr": " and ".join(
            f"avg_over_time(({late})[{window}:15s]) > {bound}" for window in WINDOWS
        ),
        "labels": {"severity": "page", "task": task},
        "annotations": {
            "summary": f"for {{{{ $value | humanizePercentage }}}} of the last hour reviews waited "
            f"longer than {wait_s:g} s for {task}: what a week allows is gone in hours",
            "runbook": RUNBOOK,
        },
    }
