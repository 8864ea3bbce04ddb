"""What `reviewmesh capacity values` prints is taken by the chart, and asks what the policy asks."""

from __future__ import annotations

from typing import Any

import yaml

from reviewmesh.capacity.file import WorkerCapacity, chart_values
from reviewmesh.capacity.policy import ScalingPolicy
from reviewmesh.capacity.promql import work_query
from tests.chart.rendered import EXAMPLES, NAMESPACE, template

MEASURED = WorkerCapacity(
    task="topic", device="cpu", objective_s=1, reviews_per_s=48.5, p50_s=0.1, p95_s=0.9, start_s=400
)


def test_measured_values_are_taken_and_ask_what_the_policy_asks() -> None:
    values: dict[str, Any] = chart_values("topic", [MEASURED])
    values["scaling"] = {"enabled": True, "prometheus": {"serverAddress": "http://prometheus"}}
    done = template(values, EXAMPLES / "minimal.yaml")
    assert done.returncode == 0, done.stderr
    [scaled] = [
        found for found in yaml.safe_load_all(done.stdout) if found["kind"] == "ScaledObject"
    ]
    [asked] = scaled["spec"]["triggers"]
    policy = ScalingPolicy(reviews_per_s=48.5, start_s=400)
    assert asked["metadata"]["query"] == work_query(policy, "topic", f'namespace="{NAMESPACE}"')
    assert scaled["spec"]["cooldownPeriod"] == policy.calm_s
