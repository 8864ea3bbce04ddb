"""From settings and a policy to a plan; what does not fit ends the process with exit code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reviewmesh.enrich.__main__ import plan_of
from reviewmesh.settings import Settings, WrongSetting

NAMES = "all:\n  regions: [eu]\n  mask: [patterns, names]\n"


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(NAMES)
    monkeypatch.setenv("REVIEWMESH_POLICY", str(path))
    return path


def test_a_task_without_fallback_workers_has_no_plan(policy: Path) -> None:
    assert plan_of(Settings(), "topic") is None


def test_without_a_policy_nothing_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVIEWMESH_FALLBACKS__TOPIC", "eu@a:1")
    plan = plan_of(Settings(), "topic")
    assert plan is not None and plan.policy.rules() == [] and plan.names is None


def test_names_are_found_by_the_workers_of_ner(
    policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVIEWMESH_FALLBACKS__TOPIC", "eu@a:1,us@b:2")
    monkeypatch.setenv("REVIEWMESH_WORKERS__NER", "ner:3")
    plan = plan_of(Settings(), "topic")
    assert plan is not None and plan.names is not None
    assert (plan.names.task, plan.names.addresses) == ("ner", ("ner:3",))
    assert {region: of.addresses for region, of in plan.pools.items()} == {
        "eu": ("a:1",),
        "us": ("b:2",),
    }


def test_ner_has_no_fallback_where_names_are_masked(
    policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVIEWMESH_FALLBACKS__NER", "eu@a:1")
    with pytest.raises(WrongSetting, match=rf"^REVIEWMESH_POLICY: {policy}:1: expected no names"):
        plan_of(Settings(), "ner")
    policy.write_text(NAMES.replace(", names", ""))
    assert plan_of(Settings(), "ner") is not None


def test_a_wrong_policy_ends_the_enricher_with_2_and_its_line(policy: Path) -> None:
    policy.write_text("all:\n  regions: eu\n  mask: [patterns]\n")
    done = subprocess.run(
        [sys.executable, "-m", "reviewmesh.enrich", "--task", "topic"],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"REVIEWMESH_POLICY: {policy}:2: all.regions: ")
    assert "Traceback" not in done.stderr
