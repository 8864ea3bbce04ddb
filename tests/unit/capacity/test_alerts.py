"""The printed alerts, evaluated by Prometheus' own tool."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from reviewmesh.capacity.alerts import RUNBOOK, alert_rules
from reviewmesh.capacity.policy import ScalingPolicy
from reviewmesh.capacity.promql import work_query

ROOT = Path(__file__).parents[3]
MATCHERS = 'namespace="reviews"'
# 40 reviews a second are planned for each of two.
POLICY = ScalingPolicy(reviews_per_s=50, target_utilisation=0.8, max_replicas=2)
RULES = alert_rules([("topic", POLICY)], 60, MATCHERS, "eu.")
WRITTEN = f'reviewmesh_records_written_total{{topic="reviews.accepted", {MATCHERS}}}'
OF_GROUP = f'group="eu.reviewmesh-enricher-topic", topic="eu.reviews.accepted", {MATCHERS}'
BACKLOG = f"reviewmesh_backlog_records{{{OF_GROUP}}}"
AGE = f"reviewmesh_lag_measurement_age_seconds{{{MATCHERS}}}"
LAG = f'kafka_consumergroup_group_lag_seconds{{{OF_GROUP}, partition="0"}}'


def case(series: dict[str, str], name: str, checks: dict[str, str]) -> dict[str, Any]:
    """`checks`: by their times, the summary of the alert that fires then; empty for none."""
    severity = {rule["alert"]: rule["labels"]["severity"] for rule in RULES["groups"][0]["rules"]}
    return {
        "interval": "1m",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "alert_rule_test": [
            {
                "alertname": name,
                "eval_time": at,
                "exp_alerts": [
                    {
                        "exp_labels": {"severity": severity[name], "task": "topic"},
                        "exp_annotations": {"summary": summary, "runbook": RUNBOOK},
                    }
                ]
                if summary
                else [],
            }
            for at, summary in checks.items()
        ],
    }


def test_they_fire_and_are_over(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing: it comes with Debian's package prometheus")
    (tmp_path / "capacity.yml").write_text(yaml.safe_dump(RULES, width=1000))
    calm = {BACKLOG: "0x90", AGE: "1x90"}
    exceeded = (
        "topic has work for 2.5 workers, of which there are 2 at most: reviews wait until less "
        "arrives"
    )
    burns = (
        "for 100% of the last hour reviews waited longer than 60 s for topic: what a week allows "
        "is gone in hours"
    )
    peak = {WRITTEN: "0+6000x30 180600+600x60", **calm}
    cases = [
        # A hundred a second for half an hour, then ten.
        case(peak, "WorkersExceeded", {"8m": "", "20m": exceeded, "40m": ""}),
        # Nothing is known of the backlog.
        case(peak | {AGE: "300x90"}, "WorkersExceeded", {"20m": ""}),
        # Within the maximum.
        case({WRITTEN: "0+4500x90", **calm}, "WorkersExceeded", {"30m": ""}),
        case({LAG: "61x30 0x60"}, "WaitObjectiveBurns", {"30m": burns, "40m": ""}),
        case({LAG: "60x90"}, "WaitObjectiveBurns", {"30m": ""}),
    ]
    file = tmp_path / "test.yml"
    settings = {"rule_files": ["capacity.yml"], "evaluation_interval": "1m"}
    file.write_text(yaml.safe_dump({**settings, "tests": cases}))
    done = subprocess.run(
        ["promtool", "test", "rules", file], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_they_ask_as_the_chart_does() -> None:
    exceeded = RULES["groups"][0]["rules"][0]
    assert exceeded["expr"] == f"({work_query(POLICY, 'topic', MATCHERS, 'eu.')}) > 2"


def test_their_runbook_is_there() -> None:
    page, anchor = RUNBOOK.split("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}
