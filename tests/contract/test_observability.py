"""Prometheus' configuration and rules: valid, every alert tested, every metric one of ours."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import Counter, Histogram
from prometheus_client.metrics import MetricWrapperBase

from reviewmesh import metrics as service_metrics
from reviewmesh.console import alerts as console_alerts
from reviewmesh.lag import metrics as lag_metrics
from reviewmesh_worker.serving import metrics as worker_metrics

ROOT = Path(__file__).parents[2]
OBSERVABILITY = ROOT / "observability"
RULES = sorted((OBSERVABILITY / "rules").glob("*.yml"))
RULE_TESTS = sorted((OBSERVABILITY / "tests").glob("*.yml"))
# Prometheus' own, of every target.
GIVEN = {"up"}
METRIC = re.compile(r"\b(?:reviewmesh|kafka)[a-z0-9_:]*|\bup\b")
# What labels are compared with is no metric.
QUOTED = re.compile(r'"[^"]*"')


def promtool(*arguments: str | Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing: it comes with Debian's package prometheus")
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> Iterator[dict[str, Any]]:
    for file in RULES:
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from group["rules"]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def declared() -> set[str]:
    """Every series name that the code's metrics give."""
    names = {gauge.name for gauge in lag_metrics.ALL}
    for module in (service_metrics, worker_metrics):
        for metric in vars(module).values():
            if not isinstance(metric, MetricWrapperBase):
                continue
            [family] = metric.describe()
            suffixes = [""]
            if isinstance(metric, Counter):
                suffixes = ["_total"]
            elif isinstance(metric, Histogram):
                suffixes = ["_bucket", "_sum", "_count"]
            names |= {family.name + suffix for suffix in suffixes}
    return names


def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    promtool("check", "config", OBSERVABILITY / "prometheus.yml")
    promtool("check", "rules", *RULES)


def test_the_rules_do_what_their_tests_say() -> None:
    promtool("test", "rules", *RULE_TESTS)


def test_each_alert_fires_in_a_test_and_is_over_later_in_the_same() -> None:
    shown = set()
    for file in RULE_TESTS:
        for test in yaml.safe_load(file.read_text())["tests"]:
            checks = test.get("alert_rule_test", [])
            for name in {check["alertname"] for check in checks}:
                fires = [bool(c.get("exp_alerts")) for c in checks if c["alertname"] == name]
                # Not yet, then firing, then over.
                if not fires[0] and any(fires) and not fires[-1]:
                    shown.add(name)
    assert shown == set(alerts())


def test_each_alert_says_what_is_the_matter_and_where_to_read_on() -> None:
    headings = {
        match[1].lower()
        for match in re.finditer(r"^#+ (.+)$", (ROOT / "docs/lag.md").read_text(), re.M)
    }
    for name, alert in alerts().items():
        assert alert["labels"]["severity"] in ("page", "ticket"), name
        assert alert["annotations"]["summary"], name
        page, anchor = alert["annotations"]["runbook"].split("#")
        assert (page, anchor) == ("docs/lag.md", name.lower())
        assert anchor in headings


def test_rules_use_metrics_that_the_code_declares() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = {name for rule in rules() for name in METRIC.findall(QUOTED.sub("", rule["expr"]))}
    assert used - recorded <= declared() | GIVEN
    assert {lag_metrics.LAG_SECONDS.name, "reviewmesh_dead_letters_total"} <= used


def test_what_may_rise_is_there_from_the_start() -> None:
    service_metrics.start_at_zero("probe", "probe-stage", ["probe-topic"])
    samples = {
        (sample.name, sample.labels.get("cause"))
        for metric in (
            service_metrics.DEAD_LETTERS,
            service_metrics.PRODUCERS_RECOVERED,
            service_metrics.SKIPPED_OFFSETS,
        )
        for family in metric.collect()
        for sample in family.samples
        if "probe" in "".join(sample.labels.values())
    }
    causes = service_metrics.DEAD_LETTER_CAUSES
    assert {("reviewmesh_dead_letters_total", cause) for cause in causes} <= samples
    assert ("reviewmesh_producers_recovered_total", None) in samples
    assert ("reviewmesh_skipped_offsets_total", None) in samples


def test_the_console_judges_by_the_limits_of_the_alerts() -> None:
    own = {rule.name: rule for rule in console_alerts.RULES}
    assert {*own, *console_alerts.NEED_PROMETHEUS} == set(alerts())
    assert not own.keys() & set(console_alerts.NEED_PROMETHEUS)
    for name, rule in own.items():
        alert = alerts()[name]
        assert rule.severity == alert["labels"]["severity"], name
        assert rule.for_s == seconds_of(alert.get("for", "0s")), name
        assert rule.metric in METRIC.findall(alert["expr"]), name
        # Where the expression compares with "== 0", the console counts what it chooses.
        assert rule.above in limits_in(alert["expr"]) or "== 0" in alert["expr"], name
        assert not rule.within or f"[{rule.within}]" in alert["expr"], name
    assert console_alerts.STUCK_AFTER_S in limits_in(alerts()["GroupStuck"]["expr"])


def limits_in(expression: str) -> set[float]:
    return {float(limit) for limit in re.findall(r"> ([0-9.]+)", expression)}


def seconds_of(duration: str) -> int:
    """Of Prometheus' durations, such as 2m."""
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3_600}[duration[-1]]


def test_the_alert_on_models_goes_by_outcomes_that_workers_count_from_the_start() -> None:
    [rule] = [rule for rule in rules() if "reviewmesh_worker_swaps_total" in rule["expr"]]
    [asked] = re.findall(r'outcome=~"([^"]+)"', rule["expr"])
    there = {
        sample.labels["outcome"]
        for family in worker_metrics.SWAPS.collect()
        for sample in family.samples
        if sample.name == "reviewmesh_worker_swaps_total"
    }
    assert set(asked.split("|")) < there
