"""Grafana's files: dashboards ask for metrics and labels that the code declares."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

import reviewmesh.lag.metrics
import reviewmesh.metrics
import reviewmesh_worker.serving.metrics
from tests.unit.deploy.files import ROOT, services, text

GRAFANA = ROOT / "observability" / "grafana"
RECORDING = "observability/rules/recording.yml"
DASHBOARDS = sorted((GRAFANA / "dashboards").glob("*.json"))
# Prometheus' own, and what prometheus_client says of every process.
COMMON = {
    "up": set[str](),
    "process_cpu_seconds_total": set[str](),
    "process_resident_memory_bytes": set[str](),
}
TARGET_LABELS = {"component", "instance", "job", "le"}


def declared() -> dict[str, set[str]]:
    """Series to labels, of everything that the code exports."""
    found = dict(COMMON)
    for gauge in reviewmesh.lag.metrics.ALL:
        found[gauge.name] = set(gauge.labels)
    for module in (reviewmesh.metrics, reviewmesh_worker.serving.metrics):
        found |= _series(module)
    return found | _recorded()


def _recorded() -> dict[str, set[str]]:
    """Series to the labels that the expressions of their rules group by."""
    found = {}
    for group in yaml.safe_load(text(RECORDING))["groups"]:
        for rule in group["rules"]:
            labels = ", ".join(re.findall(r"by \(([^)]*)\)", rule["expr"]))
            found[rule["record"]] = set(labels.split(", "))
    return found


def _series(module: ModuleType) -> dict[str, set[str]]:
    found = {}
    for metric in vars(module).values():
        if isinstance(metric, MetricWrapperBase):
            [family] = metric.describe()
            ends = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}
            for end in ends.get(family.type, [""]):
                found[family.name + end] = set(metric._labelnames)
    return found


def panels(dashboard: Path) -> list[dict[str, Any]]:
    return list(json.loads(dashboard.read_text("utf-8"))["panels"])


def queries() -> Iterator[tuple[str, str]]:
    """(title, expression) of every panel of every dashboard."""
    for dashboard in DASHBOARDS:
        for panel in panels(dashboard):
            for target in panel.get("targets", []):
                yield panel["title"], target["expr"]


def series_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:reviewmesh|kafka|process|up)(?:[_:][\w:]+|\b)", expression))


def test_queries_ask_for_series_that_are_exported() -> None:
    known = declared()
    asked = {name for _, expression in queries() for name in series_in(expression)}
    assert asked <= known.keys(), f"not declared: {sorted(asked - known.keys())}"
    assert len(asked) > 20


def test_queries_group_by_labels_that_the_series_have() -> None:
    known = declared()
    for title, expression in queries():
        for labels, rest in re.findall(r"by \(([^)]*)\) \((.*?)(?=by \(|$)", expression):
            [series] = series_in(rest)
            unknown = {label.strip() for label in labels.split(",")} - known[series] - TARGET_LABELS
            assert not unknown, f"{title}: {series} has no {sorted(unknown)}"


def test_legends_name_labels_that_are_left() -> None:
    for dashboard in DASHBOARDS:
        for panel in panels(dashboard):
            for target in panel.get("targets", []):
                for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                    grouped = re.search(rf"by \([^)]*\b{label}\b", target["expr"])
                    whole = " by " not in target["expr"]
                    assert grouped or whole, f"{panel['title']}: {label}"


def test_what_people_steer_by_is_there() -> None:
    asked = {name for _, expression in queries() for name in series_in(expression)}
    assert {gauge.name for gauge in reviewmesh.lag.metrics.ALL[:3]} <= asked
    for wanted in (
        "reviewmesh:answer_drift:js_distance",
        "reviewmesh_budget_limit",
        "reviewmesh_budget_used",
        "reviewmesh_canary_reviews_total",
        "reviewmesh_dead_letters_total",
        "reviewmesh_end_to_end_seconds_bucket",
        "reviewmesh_inference_seconds_bucket",
        "reviewmesh_records_written_total",
        "reviewmesh_reviews_held_back",
        "reviewmesh_rollout_kappa",
        "reviewmesh_rollout_share_ratio",
        "reviewmesh_rollouts_rolled_back_total",
        "reviewmesh_shadow_reviews_total",
        "reviewmesh_worker_engine_seconds_bucket",
        "reviewmesh_worker_in_flight_items",
        "reviewmesh_worker_model_info",
        "reviewmesh_worker_swaps_total",
    ):
        assert wanted in asked


def test_queries_are_valid(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing; Debian has it in the package prometheus")
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, (_, expression) in enumerate(queries())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()


def test_panels_do_not_overlap() -> None:
    for dashboard in DASHBOARDS:
        cells = [
            (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
            for panel in panels(dashboard)
            for x in range(panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["h"])
        ]
        assert len(cells) == len(set(cells))
        assert max(x for x, _ in cells) < 24


def test_grafana_is_given_the_dashboards_and_the_prometheus_that_compose_starts() -> None:
    grafana = services()["grafana"]
    sources = dict(reversed(volume.split(":")[:2]) for volume in grafana["volumes"])
    [provider] = yaml.safe_load(
        text("observability/grafana/provisioning/dashboards/reviewmesh.yml")
    )["providers"]
    assert sources[provider["options"]["path"]] == "./observability/grafana/dashboards"
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert DASHBOARDS[0].name == Path(home).name
    source, jaeger = yaml.safe_load(
        text("observability/grafana/provisioning/datasources/prometheus.yml")
    )["datasources"]
    assert source["url"] == "http://prometheus:9090"
    # A click on an exemplar opens its trace, in the Jaeger that compose starts with `traces`.
    [opened] = source["jsonData"]["exemplarTraceIdDestinations"]
    assert opened == {"name": "trace_id", "datasourceUid": jaeger["uid"]}
    ui = services()["jaeger"]["ports"][0].rpartition(":")[2]
    assert jaeger["url"] == f"http://jaeger:{ui}"
    assert "--enable-feature=exemplar-storage" in services()["prometheus"]["command"]
    for dashboard in DASHBOARDS:
        for panel in panels(dashboard):
            for target in panel.get("targets", []):
                assert target["datasource"]["uid"] == source["uid"]
