"""The chart's formula, its defaults and its autoscaler are those of the scaling policy."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from reviewmesh.capacity import policy as constants
from reviewmesh.capacity.file import WorkerCapacity, chart_values
from reviewmesh.capacity.policy import ScalingPolicy
from reviewmesh.capacity.promql import MEASURED_WITHIN_S, work_query

CHART = Path(__file__).parents[2] / "deploy/helm/reviewmesh"
TEMPLATE = (CHART / "templates/_scaling.tpl").read_text()
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
POLICY = ScalingPolicy(reviews_per_s=50, target_utilisation=0.8)
MATCHERS = 'namespace="reviews"'
DEFINED = re.compile(r'define "reviewmesh\.(\w+)" -?}}\n(.*?)\n?{{-? end -}}', re.S)
PARTS = dict(DEFINED.findall(TEMPLATE))


def filled(text: str) -> str:
    """The template's line with its actions replaced; every one must be known."""
    known = {
        ".arrives": "reviews.accepted",
        "$matchers": MATCHERS,
        "$scaling.rateWindow": "2m",
        ".root.Values.prefix": "",
        ".group": "reviewmesh-enricher-topic",
        ".reads": "reviews.accepted",
        'include "reviewmesh.value" $scaling.backlogSeconds': "60",
        'include "reviewmesh.matchers" .': MATCHERS,
        '"{"': "{",
        '"}"': "}",
    }
    return re.sub(r"{{-?\s*(.+?)\s*-?}}", lambda match: known[match[1]], text)


def test_the_query_is_the_charts() -> None:
    demand = filled(PARTS["demand"].splitlines()[-1])
    measured = filled(PARTS["measured"])
    # A group that has its task to itself takes all of it.
    assert 'printf "%s / %s" $demand' in TEMPLATE
    assert '({{ join " + " $parts }}) {{ include "reviewmesh.measured"' in TEMPLATE
    assert work_query(POLICY, "topic", MATCHERS) == f"({demand} / 40) {measured}"
    assert f"< {MEASURED_WITHIN_S})" in measured


def test_the_defaults_are_the_charts() -> None:
    scaling, worker = VALUES["scaling"], VALUES["workerDefaults"]
    expected = replace(
        POLICY,
        backlog_s=scaling["backlogSeconds"],
        target_utilisation=scaling["targetUtilisation"],
        scale_down_s=scaling["scaleDownSeconds"],
        start_s=worker["startSeconds"],
        min_replicas=worker["scaling"]["minReplicas"],
        max_replicas=worker["scaling"]["maxReplicas"],
        rate_window_s=60 * int(scaling["rateWindow"].removesuffix("m")),
    )
    assert expected == ScalingPolicy(reviews_per_s=50)


@pytest.mark.parametrize(
    "line",
    [
        "$calm := max (ceil $scaling.scaleDownSeconds) "
        f"(ceil (mulf {constants.STARTS_OF_CALM} (default 0 $own.startSeconds)))",
        f"stabilizationWindowSeconds: {{{{ min {constants.LONGEST_CALM_S:.0f} $calm }}}}",
        f"policies: [{{type: Pods, value: {constants.FEWER_PODS}, "
        f"periodSeconds: {constants.CHANGE_PERIOD_S:.0f}}}]",
        f"stabilizationWindowSeconds: {constants.SCALE_UP_WINDOW_S:.0f}\n",
        "policies: [{type: Percent, value: 100, "
        f"periodSeconds: {constants.CHANGE_PERIOD_S:.0f}}}, "
        f"{{type: Pods, value: {constants.MORE_PODS}, "
        f"periodSeconds: {constants.CHANGE_PERIOD_S:.0f}}}]",
        'ignoreNullValues: "false"',
        "behavior: currentReplicasIfHigher",
    ],
)
def test_the_autoscaler_is_told_what_the_policy_assumes(line: str) -> None:
    assert line in TEMPLATE


def test_the_tolerance_is_kubernetes_own() -> None:
    assert "tolerance" not in TEMPLATE
    assert constants.TOLERANCE == 0.1


def test_measured_values_have_the_names_of_the_charts() -> None:
    entries = [
        WorkerCapacity(
            task=task,
            device="H200",
            objective_s=1,
            reviews_per_s=rate,
            p50_s=0.1,
            p95_s=0.9,
            start_s=start_s,
        )
        for task, rate, start_s in (("topic", 48.5, 61.2), ("ner", 30.0, None))
    ]
    values = chart_values("large", entries)
    group = values["workers"]["large"]
    assert group == {
        "scaling": {"enabled": True, "reviewsPerSecond": {"topic": 48.5, "ner": 30.0}},
        "startSeconds": 62,
    }
    defaults = VALUES["workerDefaults"]
    assert "workers" in VALUES and set(group) <= set(defaults)
    assert set(group["scaling"]) <= set(defaults["scaling"])
