"""The policy as PromQL, as the chart's ScaledObjects ask it. Pure."""

from __future__ import annotations

import json

from reviewmesh.capacity.policy import ScalingPolicy
from reviewmesh_schemas.names import ACCEPTED

# Older than this, the backlog is not known.
MEASURED_WITHIN_S = 60
DECIMALS = 6


def work_query(policy: ScalingPolicy, task: str, matchers: str = "", prefix: str = "") -> str:
    """What `ScalingPolicy.work` gives, of one task's workers.

    `matchers`: label matchers that every series gets, such as `namespace="reviews"`. Without a
    measurement of the backlog there is no value. Before the first review nothing was written: no
    arrivals.
    """
    more = f",{matchers}" if matchers else ""
    arrivals = (
        f'sum(rate(reviewmesh_records_written_total{{topic="{ACCEPTED}"{more}}}'
        f"[{_duration(policy.rate_window_s)}])) or vector(0)"
    )
    backlog = (
        f'sum(reviewmesh_backlog_records{{group="{prefix}reviewmesh-enricher-{task}",'
        f'topic="{prefix}{ACCEPTED}"{more}}}) / {_number(policy.backlog_s)}'
    )
    age = f"max(reviewmesh_lag_measurement_age_seconds{{{matchers}}}) < {MEASURED_WITHIN_S}"
    each = _number(round(policy.planned_per_s, DECIMALS))
    return f"((({arrivals}) + {backlog}) / {each}) and on() ({age})"


def _number(value: float) -> str:
    """As the chart's JSON has it."""
    return json.dumps(int(value) if value == int(value) else value)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{minutes:.0f}m" if not rest else f"{seconds:.0f}s"
