"""Values: typos are refused, and what cannot work; what is rendered is valid."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.rendered import (
    CASES,
    CHART,
    EXAMPLES,
    KUBECONFORM,
    MORE,
    ROOT,
    helm,
    objects,
    refusal,
    text_of,
)

SCHEMAS = Path(__file__).parent / "schemas"


def kubeconform(file: Path) -> subprocess.CompletedProcess[str]:
    location = f"{SCHEMAS}/{{{{.Group}}}}/{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json"
    return subprocess.run(
        [str(KUBECONFORM), "-strict", "-summary", "-schema-location", location, str(file)],
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("case", CASES)
def test_helm_lints_the_chart(case: str, tmp_path: Path) -> None:
    values = EXAMPLES / f"{case}.yaml"
    if case in MORE:
        values = tmp_path / "values.yaml"
        values.write_text(yaml.safe_dump(MORE[case]))
    done = helm("lint", "--strict", "--values", values, CHART)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES)
def test_kubernetes_and_the_operators_know_every_field(case: str, tmp_path: Path) -> None:
    file = tmp_path / "objects.yaml"
    file.write_text(text_of(case))
    done = kubeconform(file)
    assert done.returncode == 0, done.stdout
    assert f"Valid: {len(objects(case))}, Invalid: 0, Errors: 0, Skipped: 0" in done.stdout


def test_kubeconform_would_find_a_wrong_field(tmp_path: Path) -> None:
    file = tmp_path / "objects.yaml"
    file.write_text(text_of("minimal").replace("readinessProbe:", "readynessProbe:"))
    done = kubeconform(file)
    assert done.returncode == 1
    assert "readynessProbe" in done.stdout


def test_names_are_unique_and_short_enough() -> None:
    for case in CASES:
        names = [(found["kind"], found["metadata"]["name"]) for found in objects(case)]
        assert len(set(names)) == len(names)
        for kind, name in names:
            assert len(name) <= (52 if kind == "StatefulSet" else 63), name


def test_a_long_release_name_is_cut() -> None:
    name = "a-release-with-a-very-long-name-of-fifty-characters"[:50]
    done = helm("template", name, CHART, "--values", EXAMPLES / "production.yaml")
    assert done.returncode == 0, done.stderr
    for found in yaml.safe_load_all(done.stdout):
        assert len(found["metadata"]["name"]) <= 63


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"kafka": {"bootstrapServer": "k:9092"}}, "bootstrapServer"),
        ({"workers": {"ner": {"engin": "onnx"}}}, "engin"),
        ({"workers": {"Ner": {"tasks": ["ner"]}}}, "Ner"),
        ({"workers": {"ner": {"tasks": ["nerr"]}}}, "tasks"),
        ({"settings": {"JOIN__MAX_WAIT": 1}}, "JOIN__MAX_WAIT"),
        ({"settings": {"REGISTRY__PASSWORD": "x"}}, "REGISTRY__PASSWORD"),
        ({"workers": {"ner": {"settings": {"WORKER__PORT": 1}}}}, "WORKER__PORT"),
        ({"kafka": {"options": {"group_id": "x"}}}, "group_id"),
        ({"kafka": {"options": {"sasl_password": "x"}}}, "sasl_password"),
        ({"services": {"lag": {"replicas": 2}}}, "replicas"),
        ({"services": {"judge": {"replicas": 2}}}, "replicas"),
        ({"services": {"enricher": {}}}, "enricher"),
        ({"scaling": {"targetUtilisation": 1.2}}, "targetUtilisation"),
        ({"workers": {"ner": {"modelRegistry": {"hostPath": {"path": "/"}}}}}, "hostPath"),
        ({"workers": {"ner": {"modelRegistry": {"nfs": {"server": "s", "path": "/"}}}}}, "nfs"),
        ({"workerDefaults": {"resources": {"limits": {"memory": None}}}}, "memory"),
        # What the schema cannot see.
        ({"kafka": {"bootstrapServers": ""}}, "kafka.bootstrapServers is required"),
        ({"registry": {"url": ""}}, "registry.url is required"),
        ({"services": {"intake": {"replicas": 7}}}, "services.intake.replicas: expected at most 6"),
        (
            {"services": {"joiner": {"scaling": {"maxReplicas": 9}}}},
            "services.joiner.scaling.maxReplicas: expected at most 6",
        ),
        ({"workers": {"ner": {"enabled": False}}}, "for the task ner"),
        ({"workers": {"ner": {"role": "candidate"}}}, "for the task ner"),
        (
            {"workers": {"new": {"role": "candidate", "tasks": ["ner"]}}},
            "workers.new.modelRegistry",
        ),
        ({"workers": {"new": {"role": "fallback", "tasks": ["ner"]}}}, "workers.new.region"),
        ({"workers": {"new": {"engine": "openai", "tasks": ["ner"]}}}, "OPENAI__MODEL"),
        ({"workers": {"new": {"role": "primary"}}}, "workers.new.tasks"),
        (
            {"workers": {"ner": {"scaling": {"enabled": True}}}},
            "workers.ner.scaling.reviewsPerSecond.ner",
        ),
        ({"kafka": {"auth": {"type": "tls"}}}, "kafka.tls.enabled"),
        (
            {"tls": {"enabled": True, "source": "certManager"}},
            "tls.certManager.issuer.name is required",
        ),
        ({"strimzi": {"topics": {"enabled": True}}}, "strimzi.topics.cluster is required"),
        (
            {
                "scaling": {"enabled": True},
                "workers": {"ner": {"scaling": {"enabled": True, "reviewsPerSecond": {"ner": 1}}}},
            },
            "scaling.prometheus.serverAddress is required",
        ),
        (
            {
                "scaling": {"enabled": True, "prometheus": {"serverAddress": "http://p"}},
                "services": {"intake": {"scaling": {"enabled": True}}},
            },
            "services.intake.scaling.reviewsPerSecond is required",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_name(values: dict[str, Any], told: str) -> None:
    assert told in refusal(values)


def test_the_package_holds_the_files_that_the_chart_links_to(tmp_path: Path) -> None:
    """Links lead out of the chart; a package has what they led to."""
    done = helm("package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    [archive] = tmp_path.glob("*.tgz")
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    files = tmp_path / "unpacked/reviewmesh/files"
    linked = {
        "rules": ROOT / "observability/rules",
        "dashboards": ROOT / "observability/grafana/dashboards",
        "topics.yaml": ROOT / "schemas/reviewmesh_schemas/topics.yaml",
    }
    assert {path.name for path in files.iterdir()} == linked.keys()
    for name, source in linked.items():
        originals = sorted(source.iterdir()) if source.is_dir() else [source]
        copies = files / name
        for original in originals:
            copy = copies / original.name if source.is_dir() else copies
            assert not copy.is_symlink()
            assert copy.read_bytes() == original.read_bytes()
    assert not (tmp_path / "unpacked/reviewmesh/examples").exists()
