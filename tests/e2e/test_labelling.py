"""A live sample of a mesh goes to teachers: whose texts, and what of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from tests.command_line import reviewmesh
from tests.mesh import Mesh, review
from tests.scripted_provider import Provider, sound

POLICY = """
all: nothing
businesses:
  globex: {regions: [eu], mask: [patterns, names]}
  initech: {regions: [eu, us], mask: [patterns]}
"""
LABEL_TIMEOUT_S = 120


def test_a_live_sample_reaches_teachers_as_the_policy_lets_it(mesh: Mesh, tmp_path: Path) -> None:
    mesh.script(label="person")
    texts = {
        "acme": "acme keeps it: Anna was kind, write to anna@mail.example",
        "globex": "all went well with Anna, write to anna@mail.example",
        "initech": "all was slow with Bernd, call +49 30 901820",
    }
    mesh.publish(
        review(f"live-{business}", text, business_id=business, language="en")
        for business, text in texts.items()
    )
    mesh.wait_enriched(len(texts))
    (tmp_path / "policy.yaml").write_text(POLICY)
    environment = os.environ | mesh.stack.environment() | {"REVIEWMESH_PREFIX": mesh.prefix}
    ask = ("tail", "--leaving", "eu", "--from-beginning", "--max", "3", "--timeout", "20")
    refused = reviewmesh(environment, tmp_path, *ask)
    assert refused.returncode == 2
    assert "REVIEWMESH_POLICY" in refused.stderr
    environment["REVIEWMESH_POLICY"] = str(tmp_path / "policy.yaml")
    sample = reviewmesh(environment, tmp_path, *ask)
    # One of three stays.
    assert sample.returncode == 1
    assert "1 reviews stay: the policy lets nothing of their business leave" in sample.stderr
    assert "2 of 3 records came within 20 s" in sample.stderr

    with Provider(lambda model, task, text: sound(task, "positive")) as provider:
        teachers = [
            {"name": model, "model": model, "base_url": provider.url, "region": "eu"}
            for model in ("large", "small")
        ]
        (tmp_path / "teachers.yaml").write_text(
            yaml.safe_dump({"teachers": teachers, "budget": {"requests": 100}})
        )
        labelled = _label(tmp_path, sample.stdout)
        assert labelled.returncode == 0, labelled.stderr
        heard = {text for _, _, text in provider.calls}
        assert heard == {
            "all went well with [NAME], write to [EMAIL]",
            "all was slow with Bernd, call [PHONE]",
        }
        # What has not been through the policy goes nowhere.
        unmasked = ("tail", "--json", "--from-beginning", "--max", "3", "--timeout", "60")
        whole = reviewmesh(environment, tmp_path, *unmasked)
        kept_in = _label(tmp_path, whole.stdout)
        assert kept_in.returncode == 1
        assert "3 reviews of a mesh may not leave" in kept_in.stderr
        assert {text for _, _, text in provider.calls} == heard
    rows = (tmp_path / "made" / "reviews_train.jsonl").read_text().splitlines()
    assert {json.loads(row)["text"] for row in rows} == heard


def _label(folder: Path, said: str) -> subprocess.CompletedProcess[str]:
    words = ("label", "-", "--teachers", "teachers.yaml", "--output", "made", "--task", "sentiment")
    return subprocess.run(
        [sys.executable, "-m", "reviewmesh_models.cli", *words],
        cwd=folder,
        input=said,
        capture_output=True,
        text=True,
        timeout=LABEL_TIMEOUT_S,
    )
