"""What the chart makes of the contracts: rules, dashboards, scrapes and topics."""

from __future__ import annotations

import json
import tomllib

import pytest
import yaml

from reviewmesh.avro.topics import load_topics
from tests.chart.rendered import CHART, ROOT, component, container, objects, of_kind, pods
from tests.unit.deploy.files import pins

RULES = sorted((ROOT / "observability/rules").glob("*.yml"))
DASHBOARDS = sorted((ROOT / "observability/grafana/dashboards").glob("*.json"))


@pytest.mark.parametrize("case", ["production", "scram"])
def test_rules_are_those_of_observability(case: str) -> None:
    [found] = of_kind(case, "PrometheusRule").values()
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    assert found["spec"]["groups"] == groups


@pytest.mark.parametrize(("case", "uid"), [("production", "prometheus"), ("scram", "mimir")])
def test_dashboards_are_those_of_observability_with_the_users_prometheus(
    case: str, uid: str
) -> None:
    found = {
        name: text
        for config_map in of_kind(case, "ConfigMap").values()
        if config_map["metadata"]["labels"].get("grafana_dashboard") == "1"
        for name, text in config_map["data"].items()
    }
    assert found.keys() == {file.name for file in DASHBOARDS}
    for file in DASHBOARDS:
        expected = file.read_text().replace('"uid": "prometheus"', f'"uid": "{uid}"')
        assert json.loads(found[file.name]) == json.loads(expected)
        assert f'"uid": "{uid}"' in found[file.name]


def test_prometheus_gives_processes_the_jobs_and_components_that_the_rules_go_by() -> None:
    [monitor] = of_kind("production", "PodMonitor").values()
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    labels = {
        rule["targetLabel"]: rule["sourceLabels"][0].removeprefix("__meta_kubernetes_pod_label_")
        for rule in endpoint["relabelings"]
    }
    scraped = yaml.safe_load((ROOT / "observability/prometheus.yml").read_text())
    jobs = {
        (job["job_name"], name)
        for job in scraped["scrape_configs"]
        for name in job["dns_sd_configs"][0]["names"]
    }
    found = set()
    for name, pod in pods("scram").items():
        if name == "worker-candidate":
            continue
        meta = {
            key.replace("/", "_").replace(".", "_").replace("-", "_"): value
            for key, value in pod["metadata"]["labels"].items()
        }
        if "reviewmesh_job" in meta:
            found.add((meta[labels["job"]], meta[labels["component"]]))
            assert endpoint["port"] in {port["name"] for port in container(pod)["ports"]}
    assert found == jobs


@pytest.mark.parametrize(
    ("case", "prefix", "replicas"), [("production", "", 3), ("scram", "acme.", 1)]
)
def test_topics_are_those_of_the_contracts(case: str, prefix: str, replicas: int) -> None:
    found = {
        topic["spec"]["topicName"]: topic["spec"] for topic in of_kind(case, "KafkaTopic").values()
    }
    for contract in load_topics().topics:
        spec = found.pop(f"{prefix}{contract.name}")
        assert spec["partitions"] == contract.partitions
        assert spec["replicas"] == replicas
        assert spec["config"] == contract.config(replicas)
    assert not found


def test_topics_stay_when_the_release_goes() -> None:
    for topic in of_kind("production", "KafkaTopic").values():
        assert topic["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        assert topic["metadata"]["namespace"] == "kafka"


def test_nothing_is_a_hook() -> None:
    """`helm install --wait` would wait for services that wait for what a hook does after it."""
    for case in ("production", "scram"):
        for found in objects(case):
            assert "helm.sh/hook" not in found["metadata"].get("annotations", {})


def test_versions_are_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert chart["version"] == chart["appVersion"] == project["version"]
    own = {
        image
        for name, image in pins().items()
        if name.startswith(("SERVICE", "INSIGHTS", "WORKER"))
    }
    assert {container(pod)["image"] for pod in pods("minimal").values()} <= own


def test_every_object_says_whose_it_is() -> None:
    for case in ("production", "scram"):
        for found in objects(case):
            labels = found["metadata"]["labels"]
            assert labels["app.kubernetes.io/instance"] == "mesh"
            assert labels["app.kubernetes.io/managed-by"] == "Helm"
            component(found)
