"""A misspelt setting ends a process with its name; what is meant for others does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reviewmesh_kit.environment import unknown_settings

ROOT = Path(__file__).parents[3]
MODULES = (["reviewmesh.intake"], ["reviewmesh_worker"])
READ_BY_TESTS_ALONE = {"REVIEWMESH_A", "REVIEWMESH_JION__STRAGGLER_S", "REVIEWMESH_PREFX"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("REVIEWMESH_JION__STRAGGLER_S", "REVIEWMESH_JOIN__STRAGGLER_S"),
        ("REVIEWMESH_PREFX", "REVIEWMESH_PREFIX"),
        ("REVIEWMESH_KAFKA_BOOTSTRAP_SERVERS", "REVIEWMESH_KAFKA__BOOTSTRAP_SERVERS"),
        ("REVIEWMESH_WORKERS_NER", "REVIEWMESH_WORKERS__NER"),
        ("REVIEWMESH_FOO", ""),
    ],
)
def test_a_name_that_nothing_reads_is_told_with_the_one_meant(name: str, meant: str) -> None:
    [line] = unknown_settings([name, "PATH", "REVIEWMESH_SLOT"])
    assert line.startswith(f"{name}: there is no such setting")
    assert line.endswith(f"did you mean {meant}?" if meant else "setting")


@pytest.mark.parametrize(
    "name",
    [
        "REVIEWMESH_INTAKE_SERVICE_HOST",
        "REVIEWMESH_INTAKE_SERVICE_PORT",
        "REVIEWMESH_INTAKE_SERVICE_PORT_HTTP",
        "REVIEWMESH_WORKER_NER_PORT",
        "REVIEWMESH_WORKER_NER_PORT_50051_TCP",
        "REVIEWMESH_WORKER_NER_PORT_50051_TCP_ADDR",
    ],
)
def test_what_kubernetes_tells_of_services_is_no_setting(name: str) -> None:
    assert unknown_settings([name]) == []


def test_every_name_that_the_project_reads_is_known() -> None:
    found = set()
    for folder in ("services", "inference-worker", "bench", "tests", "deploy"):
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in {".py", ".sh", ""} and file.is_file():
                text = file.read_text(encoding="utf-8", errors="replace")
                found |= set(re.findall(r'environ(?:\.get\(|\[)"(REVIEWMESH_[A-Z0-9_]+)"', text))
    compose = (ROOT / "docker-compose.yml").read_text()
    found |= set(re.findall(r"\b(REVIEWMESH_[A-Z0-9_]+):", compose))
    assert len(found) > 5
    assert unknown_settings(found - READ_BY_TESTS_ALONE) == []


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REVIEWMESH_JION__STRAGGLER_S", "5"),
        ("REVIEWMESH_PREFX", "a."),
        ("REVIEWMESH_HTTP__PROT", "9100"),
        ("REVIEWMESH_HTTP__PORT", "99999"),
        ("REVIEWMESH_LOG__LEVEL", "LOUD"),
    ],
)
def test_a_process_ends_with_2_and_names_the_setting(
    module: list[str], name: str, value: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *module],
        env=os.environ | {name: value},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(name)
    assert "Traceback" not in done.stderr
