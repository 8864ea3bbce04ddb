"""Every query of dashboards and rules, asked of a real Prometheus that scrapes a live mesh.

The commonest failure of dashboards is a query that matches nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.broker import TestStack
from tests.command_line import reviewmesh
from tests.inference import ScriptedWorker
from tests.mesh import SERVICES, Mesh, review
from tests.prometheus_server import RULES, Prometheus, prometheus
from tests.stream import Stream

DASHBOARDS = sorted((Path(__file__).parents[2] / "observability/grafana/dashboards").glob("*.json"))
SOON_S = 90
RANGE = re.compile(r"\[[^\]]+\]")
NAME = re.compile(r"\b(?:reviewmesh|kafka|process)[_:][\w:]+")
TASK = "topic"
# Without TLS nobody shows a certificate; tests/integration/test_mutual_tls.py sees them.
OF_TLS = {
    f"reviewmesh_{whose}certificate_{edge}_timestamp_seconds"
    for whose in ("", "worker_")
    for edge in ("not_before", "not_after")
}
WORKER = "reviewmesh_worker"


@pytest.fixture(scope="module")
def mesh(stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """With a fallback, budgets and a rollout, so that their series are there as well."""
    folder: Path = tmp_path_factory.mktemp("mesh")
    other = ScriptedWorker(folder / "other", {"SCRIPTED_MODEL_VERSION": "2"})
    other.process.start()
    (folder / "policy.yaml").write_text("all: {regions: [eu], mask: [patterns]}\n")
    (folder / "budgets.yaml").write_text(
        "call: {tokens: 1000}\nall:\n  day: {requests: 100000}\n  month: {requests: 1000000}\n"
    )
    settings = {
        "REVIEWMESH_POLICY": str(folder / "policy.yaml"),
        "REVIEWMESH_BUDGETS": str(folder / "budgets.yaml"),
        f"REVIEWMESH_FALLBACKS__{TASK.upper()}": f"eu@{other.address}",
        f"REVIEWMESH_CANDIDATES__{TASK.upper()}": other.address,
    }
    try:
        with Mesh(
            stack, f"pr{folder.parent.name[-3:]}.", folder, settings, worker_command=[WORKER]
        ) as mesh:
            mesh.start()
            for name in ("judge", "lag"):
                mesh.add(name).start()
            mesh.wait_ready()
            mesh.wait_for(other.process.is_ready, SOON_S, "the candidate serves")
            yield mesh
    finally:
        other.stop()


@pytest.fixture(scope="module")
def scraped(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """While reviews flow, of which some fail, and a candidate answers in shadow."""
    jobs = {
        "service": {name: mesh.processes[name] for name in SERVICES},
        "worker": {"worker-topic": mesh.processes["worker"]},
        "lag": {"lag": mesh.processes["lag"]},
        "judge": {"judge": mesh.processes["judge"]},
    }
    environment = mesh.processes["intake"].environment
    folder = tmp_path_factory.mktemp("prometheus")
    # The candidate is scripted: whatever the review, it speaks of speed.
    (folder / "bounds.yaml").write_text("disagreement: 0.999\nslower_times: 1000\n")
    command = ["rollout", "start", "--task", TASK, "--bounds", "bounds.yaml"]
    started = reviewmesh(environment, folder, *command)
    assert started.returncode == 0, started.stderr
    with prometheus(folder, jobs) as server, Stream(mesh, every_s=0.1) as stream:
        mesh.publish_raw(b"nothing that decodes", key=b"broken")
        # Some of another topic: of a label that all reviews have, agreement is not defined.
        crashes = "The app crashes whenever I open it."
        mesh.publish([review(f"app-{number}", crashes) for number in range(20)])
        mesh.wait_for(lambda: not server.targets_down(), SOON_S, "every process is scraped")
        mesh.wait_for(lambda: len(stream.enriched()) > 100, SOON_S, "reviews flow")
        yield server


def wait_for_samples(mesh: Mesh, server: Prometheus, expressions: dict[str, str]) -> None:
    """`expressions`: each with what it is for."""
    missing = dict(expressions)

    def all_there() -> bool:
        for expression in list(missing):
            if server.query(expression):
                del missing[expression]
        return not missing

    try:
        mesh.wait_for(all_there, SOON_S, "every query has an answer")
    except AssertionError:
        lines = "\n".join(f"{what}: {expression}" for expression, what in missing.items())
        raise AssertionError(f"{len(missing)} queries match nothing:\n{lines}") from None


def test_each_query_of_the_dashboards_matches(mesh: Mesh, scraped: Prometheus) -> None:
    queries = {
        # As Grafana does, and over seconds in place of hours.
        RANGE.sub("[10s]", target["expr"]): f"{dashboard.stem}, {panel['title']}"
        for dashboard in DASHBOARDS
        for panel in json.loads(dashboard.read_text())["panels"]
        for target in panel.get("targets", [])
    }
    assert len(queries) > 40
    wait_for_samples(mesh, scraped, queries)


def test_each_series_of_the_rules_is_there(mesh: Mesh, scraped: Prometheus) -> None:
    """An alert that does not fire has no samples, but what it compares has."""
    rules = [
        rule
        for file in RULES
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]
    names = {
        name: rule.get("alert") or rule["record"]
        for rule in rules
        for name in NAME.findall(re.sub(r"\"[^\"]*\"", "", rule["expr"]))
    }
    assert {"reviewmesh_dead_letters_total", *OF_TLS} <= names.keys()
    there = {name: what for name, what in names.items() if name not in OF_TLS}
    wait_for_samples(mesh, scraped, there)
