"""The queries of the ScaledObjects: Prometheus makes the number of replicas of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from reviewmesh_schemas.names import ENRICHER_GROUPS, TASKS
from tests.chart.rendered import EXAMPLES, Object, of_kind, template, workloads
from tests.unit.deploy.test_dashboards import declared, series_in

SCALED = [
    (case, name) for case in ("production", "scram") for name in of_kind(case, "ScaledObject")
]
PARTITIONS = 6


# What KEDA 2.21 reads of a trigger of type prometheus: its schema lets any other name pass, and
# KEDA reads nothing of it.
KEDA_READS = {"serverAddress", "query", "threshold", "ignoreNullValues", "authModes"}


def trigger(case: str, name: str, which: str = "work") -> Object:
    triggers = of_kind(case, "ScaledObject")[name]["spec"]["triggers"]
    [found] = [trigger for trigger in triggers if trigger["name"] == which]
    return dict(found)


def query(case: str, name: str, which: str = "work") -> str:
    return str(trigger(case, name, which)["metadata"]["query"])


def replicas(expression: str, series: dict[str, str], tmp_path: Path) -> float | None:
    """What Prometheus answers after 10 minutes of these series; None without an answer."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing: it comes with Debian's package prometheus")
    test = {
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": s, "values": v} for s, v in series.items()],
                "promql_expr_test": [{"expr": expression, "eval_time": "10m", "exp_samples": []}],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(test))
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=60
    )
    if done.returncode == 0:
        return None
    found = re.search(r"got:\s*(?:\{\})?\s*([-+.\w]+)", done.stdout + done.stderr)
    assert found, done.stdout + done.stderr
    return float(found[1])


def mesh(
    rate: float, backlog: dict[str, float], matchers: str = 'namespace="reviews"', prefix: str = ""
) -> dict[str, str]:
    """Reviews per second that arrive at two replicas of intake, and what waits in each group."""
    series = {f"reviewmesh_lag_measurement_age_seconds{{{matchers}}}": "5x60"}
    for pod in (0, 1):
        series[
            'reviewmesh_records_written_total{topic="reviews.accepted",service="intake",'
            f'pod="intake-{pod}",{matchers}}}'
        ] = f"0+{rate / 2 * 15:g}x60"
    for group, waiting in backlog.items():
        for partition in range(PARTITIONS):
            series[
                f'reviewmesh_backlog_records{{group="{prefix}{group}",'
                f'topic="{prefix}reviews.accepted",partition="{partition}",{matchers}}}'
            ] = f"{waiting / PARTITIONS:g}x60"
    # Another mesh, and the joiner's other topics, which are not the work of this one.
    series['reviewmesh_backlog_records{group="reviewmesh-enricher-ner",namespace="other"}'] = (
        "1e6x60"
    )
    return series


def groups(waiting: float = 0) -> dict[str, float]:
    return {ENRICHER_GROUPS[task]: waiting for task in TASKS}


@pytest.mark.parametrize(
    ("rate", "waiting", "wanted"),
    [
        # encoder: 60 reviews a second for each of two tasks, at 0.8: both add up.
        (0, 0, 0),
        (24, 0, 2 * 24 / 48),
        (24, 1440, 2 * (24 + 1440 / 60) / 48),
        (480, 0, 20),
    ],
)
def test_a_group_has_the_sum_over_its_tasks(
    rate: float, waiting: float, wanted: float, tmp_path: Path
) -> None:
    expression = query("production", "mesh-reviewmesh-worker-encoder")
    found = replicas(expression, mesh(rate, groups(waiting)), tmp_path)
    assert found == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize(
    ("rate", "waiting", "wanted"),
    [
        # Two h100 that stay do 2 × 120 × 0.8 = 192 a second; an l4 does 25 × 0.8 = 20.
        (100, 0, 0),
        (192, 0, 0),
        (292, 0, 5),
        (292, 6000, 10),
    ],
)
def test_small_gpus_do_what_the_large_ones_leave(
    rate: float, waiting: float, wanted: float, tmp_path: Path
) -> None:
    expression = query("production", "mesh-reviewmesh-worker-topic-l4")
    found = replicas(expression, mesh(rate, groups(waiting)), tmp_path)
    assert found == pytest.approx(wanted, rel=0.01)


def test_groups_of_one_task_share_it_by_what_they_can_do(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "scaling": {"enabled": True, "prometheus": {"serverAddress": "http://p"}},
        "workers": {
            "ner": {
                "scaling": {"enabled": True, "maxReplicas": 4, "reviewsPerSecond": {"ner": 30}}
            },
            "big": {
                "tasks": ["ner"],
                "scaling": {"enabled": True, "maxReplicas": 3, "reviewsPerSecond": {"ner": 80}},
            },
        },
    }
    done = template(values, EXAMPLES / "minimal.yaml")
    assert done.returncode == 0, done.stderr
    scaled = {
        found["metadata"]["name"]: found["spec"]["triggers"][0]["metadata"]["query"]
        for found in yaml.safe_load_all(done.stdout)
        if found["kind"] == "ScaledObject"
    }
    # All at their largest do 4 × 30 + 3 × 80 = 360 a second, at 0.8 288: just what arrives.
    series = mesh(288, groups())
    small = replicas(scaled["mesh-reviewmesh-worker-ner"], series, tmp_path)
    large = replicas(scaled["mesh-reviewmesh-worker-big"], series, tmp_path)
    assert small == pytest.approx(4, rel=0.01)
    assert large == pytest.approx(3, rel=0.01)


def test_a_candidate_has_the_part_of_its_rollout(tmp_path: Path) -> None:
    expression = query("scram", "mesh-reviewmesh-worker-candidate")
    series = mesh(160, groups(), 'mesh="acme"', "acme.")
    share = 'reviewmesh_rollout_share_ratio{task="sentiment",state="CANARY",mesh="acme"}'
    found = replicas(expression, {**series, share: "0.25x60"}, tmp_path)
    assert found == pytest.approx(160 * 0.25 / (10 * 0.8), rel=0.01)


def test_replicas_of_a_service_follow_its_work_and_its_lag(tmp_path: Path) -> None:
    expression = query("production", "mesh-reviewmesh-enricher-ner")
    found = replicas(expression, mesh(640, groups(9600)), tmp_path)
    assert found == pytest.approx((640 + 9600 / 60) / (400 * 0.8), rel=0.01)
    lag = query("production", "mesh-reviewmesh-enricher-ner", "lag")
    series = mesh(10, groups())
    for pod in range(3):
        up = f'up{{job="service",component="enricher-ner",pod="{pod}",namespace="reviews"}}'
        series[up] = "1x60" if pod else "0x60"
    label = 'group="reviewmesh-enricher-ner",topic="reviews.accepted",namespace="reviews"'
    for partition, seconds in enumerate((3, 45)):
        name = f'kafka_consumergroup_group_lag_seconds{{{label},partition="{partition}"}}'
        series[name] = f"{seconds}x60"
    # Two answer, and the oldest record waits for one and a half times as long as it may.
    assert replicas(lag, series, tmp_path) == pytest.approx(2 * 45 / 30)


@pytest.mark.parametrize("missing", ["backlog", "age"])
def test_without_a_measurement_there_is_no_answer(missing: str, tmp_path: Path) -> None:
    expression = query("production", "mesh-reviewmesh-worker-encoder")
    series = {name: v for name, v in mesh(100, groups()).items() if missing not in name}
    assert replicas(expression, series, tmp_path) is None


def test_an_old_measurement_is_no_answer(tmp_path: Path) -> None:
    expression = query("production", "mesh-reviewmesh-worker-encoder")
    series = mesh(100, groups())
    series['reviewmesh_lag_measurement_age_seconds{namespace="reviews"}'] = "0+15x60"
    assert replicas(expression, series, tmp_path) is None


def test_before_the_first_review_there_is_no_work(tmp_path: Path) -> None:
    expression = query("production", "mesh-reviewmesh-worker-encoder")
    series = {n: v for n, v in mesh(1, groups()).items() if "records_written" not in n}
    assert replicas(expression, series, tmp_path) == 0


@pytest.mark.parametrize(("case", "name"), SCALED)
def test_queries_ask_for_series_and_labels_that_the_code_has(case: str, name: str) -> None:
    known = declared()
    for which in of_kind(case, "ScaledObject")[name]["spec"]["triggers"]:
        expression = which["metadata"]["query"]
        for series in series_in(re.sub(r'"[^"]*"', "", expression)):
            assert series in known, f"{name} asks for {series}"
        for series, labels in re.findall(r"(\w+)\{([^}]*)\}", expression):
            asked = {label.partition("=")[0] for label in labels.split(",")}
            assert asked <= known[series] | {"namespace", "mesh", "component", "job"}


@pytest.mark.parametrize(("case", "name"), SCALED)
def test_no_series_is_an_error_and_the_replicas_stay(case: str, name: str) -> None:
    spec = of_kind(case, "ScaledObject")[name]["spec"]
    for found in spec["triggers"]:
        # KEDA knows no metadata that is not text; the fallback is for averages only.
        assert all(isinstance(value, str) for value in found["metadata"].values())
        assert found["metadata"].keys() <= KEDA_READS
        assert found["metadata"]["ignoreNullValues"] == "false"
        assert found["metadata"]["threshold"] == "1"
        assert found["metricType"] == "AverageValue"
    assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"
    assert spec["minReplicaCount"] >= 1
    assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]


@pytest.mark.parametrize(("case", "name"), SCALED)
def test_fewer_come_after_longer_than_a_start_and_one_at_a_time(case: str, name: str) -> None:
    spec = of_kind(case, "ScaledObject")[name]["spec"]
    down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    starts = {"mesh-reviewmesh-worker-topic-l4": 420}.get(name, 60)
    assert spec["cooldownPeriod"] >= 1.5 * starts
    assert down["stabilizationWindowSeconds"] >= min(3600, 1.5 * starts)
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 60}]


@pytest.mark.parametrize(("case", "name"), SCALED)
def test_what_is_scaled_exists_and_says_no_number_of_its_own(case: str, name: str) -> None:
    spec = of_kind(case, "ScaledObject")[name]["spec"]
    target = spec["scaleTargetRef"]
    [found] = [
        workload
        for workload in workloads(case).values()
        if (workload["kind"], workload["metadata"]["name"]) == (target["kind"], target["name"])
    ]
    assert "replicas" not in found["spec"], "each upgrade would set it back"
    if target["kind"] == "StatefulSet":
        assert spec["maxReplicaCount"] <= PARTITIONS


@pytest.mark.parametrize("case", ["production", "scram"])
def test_what_is_not_scaled_has_its_number(case: str) -> None:
    scaled = {name for of, name in SCALED if of == case}
    for workload in workloads(case).values():
        if workload["kind"] != "Job" and workload["metadata"]["name"] not in scaled:
            assert workload["spec"]["replicas"] >= 1


def test_without_scaling_nothing_is_scaled() -> None:
    assert not of_kind("minimal", "ScaledObject")
