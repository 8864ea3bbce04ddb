"""The chart's objects as `helm template` gives them, and what the tests ask of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/reviewmesh"
EXAMPLES = CHART / "examples"
TOOLS = ROOT / "build/chart-tools"
HELM = TOOLS / "helm"
KUBECONFORM = TOOLS / "kubeconform"
KUBERNETES = "1.36.3"
NAMESPACE = "reviews"
RELEASE = "mesh"
FULL = f"{RELEASE}-reviewmesh"
# Of Kubernetes' types: an unquoted = is a string.
yaml.SafeLoader.add_constructor("tag:yaml.org,2002:value", lambda _, node: str(node.value))

# Values by the name of a case: a file of examples/, or what a test needs besides.
MORE: dict[str, dict[str, Any]] = {
    # Every switch on, in the way that production.yaml does not have it.
    "scram": {
        "prefix": "acme.",
        "settings": {"INTAKE__DEDUPE_IDS": 1_000_000, "LOG__FORMAT": "json"},
        "kafka": {
            "bootstrapServers": "kafka-1:9096, kafka-2:9097",
            "options": {"socket_timeout_ms": 10_000_000},
            "tls": {"enabled": True, "ca": {"secret": "kafka-ca"}},
            "auth": {
                "type": "scram",
                "users": {"topics": "admin"},
                "secrets": {"topics": "admin-secret"},
            },
        },
        "registry": {
            "url": "https://registry/apis/ccompat/v7",
            "ca": {"secret": "registry-ca"},
            "certificate": {"secret": "registry-client"},
        },
        "tls": {"enabled": True},
        "services": {
            "intake": {"forwardingSecret": {"secret": "forwarding"}, "replicas": 6},
            "tracer": {"enabled": True},
        },
        "traces": {
            "endpoint": "http://collector:4318",
            "authorization": {"secret": "collector"},
        },
        "workers": {
            "candidate": {
                "role": "candidate",
                "tasks": ["sentiment"],
                "modelRegistry": {"image": {"reference": "models:1"}},
                "strategy": {"type": "Recreate"},
                "scaling": {"enabled": True, "reviewsPerSecond": {"sentiment": 10}},
            }
        },
        "externalWorkers": {"candidate": {"ner": ["10.0.0.9:50051"]}},
        "scaling": {
            "enabled": True,
            "prometheus": {
                "serverAddress": "https://prometheus",
                "matchers": 'mesh="acme"',
                "authentication": {"name": "prometheus", "modes": "bearer"},
            },
        },
        "networkPolicy": {"externalWorkers": {"to": [{"ipBlock": {"cidr": "10.0.0.9/32"}}]}},
        "podMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True, "datasourceUid": "mimir"},
        "strimzi": {"topics": {"enabled": True, "cluster": "mesh", "replicas": 1}},
    },
    "without": {
        "kafka": {"bootstrapServers": "kafka:9092"},
        "registry": {"url": "http://registry/apis/ccompat/v7"},
        "services": {"insights": {"enabled": False}, "judge": {"enabled": False}},
        "topicsJob": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "podDisruptionBudget": {"enabled": False},
        "topologySpread": [],
        "serviceAccount": {"create": False},
    },
}
CASES = [*sorted(path.stem for path in EXAMPLES.glob("*.yaml")), *MORE]
Object = dict[str, Any]


def helm(*arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [str(HELM), *map(str, arguments)]
    if arguments[0] != "package":
        # One that is built from its source takes itself for an old Kubernetes.
        command += ["--kube-version", KUBERNETES]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=120)


def template(values: dict[str, Any], *files: Path) -> subprocess.CompletedProcess[str]:
    """What helm makes of files, and of values over them."""
    options = [word for file in files for word in ("--values", str(file))]
    return helm(
        "template", RELEASE, CHART, "--namespace", NAMESPACE, *options, "--values", "-",
        given=yaml.safe_dump(values),
    )  # fmt: skip


def refusal(values: dict[str, Any]) -> str:
    """Why helm does not take minimal.yaml with these values over it."""
    done = template(values, EXAMPLES / "minimal.yaml")
    assert done.returncode != 0, "it was taken"
    return done.stderr


@cache
def text_of(case: str) -> str:
    files = () if case in MORE else (EXAMPLES / f"{case}.yaml",)
    done = template(MORE.get(case, {}), *files)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def objects(case: str) -> list[Object]:
    return [found for found in yaml.safe_load_all(text_of(case)) if found]


def of_kind(case: str, kind: str) -> dict[str, Object]:
    """By name."""
    return {found["metadata"]["name"]: found for found in objects(case) if found["kind"] == kind}


def component(found: Object) -> str:
    """The service or group that an object is of; empty for one of the whole mesh."""
    return str(found["metadata"]["labels"].get("app.kubernetes.io/component", ""))


def workloads(case: str) -> dict[str, Object]:
    """StatefulSets, Deployments and the job, by component."""
    kinds = ("StatefulSet", "Deployment", "Job")
    return {component(found): found for found in objects(case) if found["kind"] in kinds}


def pods(case: str) -> dict[str, Object]:
    return {name: found["spec"]["template"] for name, found in workloads(case).items()}


def container(pod: Object) -> Object:
    [only] = pod["spec"]["containers"]
    return dict(only)


def environment(pod: Object) -> dict[str, str]:
    """The variables with values; the slot is the pod's ordinal."""
    found = {}
    for entry in container(pod)["env"]:
        assert entry["name"] not in found, f"{entry['name']} is there twice"
        found[entry["name"]] = entry.get("value", "0")
    return found


def mounted_files(case: str, pod: Object) -> Iterator[str]:
    """The files below /etc/reviewmesh that a pod's volumes give it."""
    mounts = {mount["name"]: mount["mountPath"] for mount in container(pod)["volumeMounts"]}
    for volume in pod["spec"].get("volumes", []):
        folder = mounts[volume["name"]]
        sources = volume.get("projected", {}).get("sources", [])
        items = [item for source in sources for item in source["secret"]["items"]]
        items += volume.get("secret", {}).get("items", [])
        yield from (f"{folder}/{item['path']}" for item in items)
        if "configMap" in volume:
            data = of_kind(case, "ConfigMap")[volume["configMap"]["name"]]["data"]
            yield from (f"{folder}/{name}" for name in data)
