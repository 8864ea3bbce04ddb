"""`python -m bench.gpu` with the tiny model: on a GPU only the model is another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from reviewmesh_worker.tasks.definition import load_tasks

ROOT = Path(__file__).parents[2]
RUN_S = 800


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench.gpu", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=RUN_S,
    )


def test_both_answer_the_same_prompts_with_answers_of_the_same_length(tmp_path: Path) -> None:
    done = run(tmp_path, "--tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "build/reports/bench_gpu.json").read_text())
    assert (report["model"], report["device"]) == ("tiny", "cpu")
    assert report["settings"]["load_format"] == "dummy"
    lengths = {"sentiment": 1, "topic": len(load_tasks()["topic"].labels), "ner": 512}
    assert report["tasks"].keys() == lengths.keys()
    for task, length in lengths.items():
        figures = report["tasks"][task]
        per_review = figures["generated_tokens_per_review"]
        assert per_review == {"offline": length, "worker": length}, task
        assert figures["prompt_tokens_per_review"] > figures["prompt_tokens_of_the_task"]
        for side in ("offline", "worker"):
            rate = figures["generated_tokens_per_s"][side]
            assert rate > 0
            assert figures["prompt_tokens_per_s"][side] > 0
        assert figures["ratio"] >= report["ratio"] > 0
    ner = report["tasks"]["ner"]
    assert ner["answers_cut"] == len(ner["turns"]) * ner["reviews_per_turn"]


def test_without_a_gpu_the_large_model_is_refused(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 2
    assert "expected a GPU" in done.stderr and "--tiny" in done.stderr
