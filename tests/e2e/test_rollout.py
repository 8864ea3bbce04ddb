"""A rollout through a whole mesh: shadow, canary, and a candidate that turns out to be worse."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reviewmesh.enrich.candidate import COPIES_AT_ONCE
from reviewmesh.judge.answers import judged_answer
from reviewmesh.judge.bounds import read_bounds
from reviewmesh.judge.comparison import FAILURES, RolloutComparison
from tests.broker import TestStack, wait_until
from tests.command_line import reviewmesh
from tests.inference import ScriptedWorker
from tests.mesh import Mesh, Process, assert_exactly_once, review

TASK = "sentiment"
SOON_S = 90
BATCH = 200
BOUNDS = """\
pairs: 100
compared: 0.3
canaries: 50
steps: [0.4]
step_s: 3600
failures: 0.25
# The scripted engine answers at once, so its latency is that of a busy machine.
slower_times: 1000
"""
EFFECT_WITHIN_MS = 10_000


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptedWorker]:
    settings = {"SCRIPTED_MODEL_VERSION": "2"}
    worker = ScriptedWorker(tmp_path_factory.mktemp("candidate"), settings)
    # It is waited for below, with the others.
    worker.process.start()
    yield worker
    worker.stop()


@pytest.fixture(scope="module")
def mesh(
    stack: TestStack, candidate: ScriptedWorker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mesh]:
    folder: Path = tmp_path_factory.mktemp("mesh")
    settings = {
        f"REVIEWMESH_CANDIDATES__{TASK.upper()}": candidate.address,
        "REVIEWMESH_CANDIDATES__PATIENCE_S": "3",
    }
    with Mesh(stack, f"ro{folder.parent.name[-3:]}.", folder, settings) as mesh:
        mesh.start()
        mesh.add("judge").start()
        mesh.wait_ready()
        mesh.wait_for(candidate.process.is_ready, SOON_S, "the candidate serves")
        yield mesh


class Driver:
    """Publishes reviews and runs commands."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.published: list[dict[str, Any]] = []
        self.environment = mesh.processes["intake"].environment

    def publish(self, count: int = BATCH) -> None:
        start = len(self.published)
        fresh = [
            review(f"r-{number}", f"Review {number}, said Anna." + " word" * (number % 4))
            for number in range(start, start + count)
        ]
        self.published += fresh
        self.mesh.publish(fresh)

    def answered(self) -> list[dict[str, Any]]:
        self.mesh.wait_enriched(len(self.published), SOON_S)
        return self.mesh.read(f"reviews.{TASK}")

    def run(self, *words: str) -> Any:
        return reviewmesh(self.environment, self.mesh.folder, *words)

    def status(self) -> dict[str, Any]:
        done = self.run("rollout", "status", "--task", TASK, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def publish_until(self, state: str) -> dict[str, Any]:
        for _ in range(30):
            self.publish()
            self.answered()
            if (found := self.status())["state"] == state:
                return found
        raise AssertionError(f"never {state}: {found}")


@pytest.fixture(scope="module")
def driver(mesh: Mesh) -> Driver:
    return Driver(mesh)


def routes(records: list[dict[str, Any]], rollout: str) -> list[str]:
    lineages = [record["lineage"] for record in records]
    return [lineage["route"] for lineage in lineages if lineage["rollout"] == rollout]


def test_commands_that_are_wrong_are_refused_with_a_reason(driver: Driver) -> None:
    wrong = driver.mesh.folder / "wrong.yaml"
    wrong.write_text("alpha: 2\nsteps: [0.5, 0.1]\nunknown: 1\n")
    refused = driver.run("rollout", "start", "--task", TASK, "--bounds", str(wrong))
    assert refused.returncode == 2
    # In a box as wide as the terminal, so a path may break its lines anywhere.
    told = " ".join(refused.stderr.replace("│", " ").split())
    assert "there is no such bound" in told
    refused = driver.run("rollout", "abort", "--task", TASK)
    assert refused.returncode == 1
    assert f"no rollout of {TASK} goes on" in refused.stderr
    refused = driver.run("rollout", "start", "--task", "ner")
    assert refused.returncode == 1
    assert "REVIEWMESH_CANDIDATES__NER" in refused.stderr


def test_a_hanging_candidate_delays_nothing_in_shadow(
    driver: Driver, candidate: ScriptedWorker
) -> None:
    candidate.script(held=["Review"])
    bounds = driver.mesh.folder / "bounds.yaml"
    bounds.write_text(BOUNDS)
    started = driver.run("rollout", "start", "--task", TASK, "--bounds", str(bounds))
    assert started.returncode == 0, started.stderr
    enricher = driver.mesh.processes[f"enricher-{TASK}"]
    driver.mesh.wait_for(lambda: '"state": "SHADOW"' in enricher.log.read_text(), SOON_S, "known")
    driver.publish(2 * COPIES_AT_ONCE)
    driver.answered()
    assert driver.mesh.read(f"reviews.{TASK}.shadow") == []
    assert enricher.metric("reviewmesh_in_flight_records") == 0
    dropped = 'reviewmesh_shadow_reviews_total{outcome="dropped",task="sentiment"}'
    driver.mesh.wait_for(lambda: enricher.metric(dropped) > 0, SOON_S, "copies are dropped")

    def shown() -> bool:
        found = driver.status()
        return bool(found["answered"] == len(driver.published) and found["compared"] == 0)

    wait_until(shown, SOON_S, "the share that was compared is said")
    said = driver.run("rollout", "status", "--task", TASK).stdout
    assert f"0 of {len(driver.published)} answers were compared in shadow: 0.0%" in said
    stale = driver.run("rollout", "advance", "--task", TASK, "--epoch", "0")
    assert stale.returncode == 1
    assert "is at epoch 1 (shadow), and the command was given for epoch 0" in stale.stderr
    aborted = driver.run("rollout", "abort", "--task", TASK)
    assert aborted.returncode == 0, aborted.stderr
    candidate.script()


def test_a_candidate_that_turns_worse_is_rolled_back_and_its_answers_are_done_again(
    driver: Driver, candidate: ScriptedWorker
) -> None:
    mesh, bounds = driver.mesh, driver.mesh.folder / "bounds.yaml"
    labels = mesh.folder / "labels.jsonl"
    labels.write_text(
        "".join(
            json.dumps({"text": f"text {'x' * number}", "sentiment": mood}) + "\n"
            for number, mood in enumerate(["negative", "neutral", "mixed", "positive"] * 5)
        )
    )
    words = ("rollout", "start", "--task", TASK, "--bounds", str(bounds), "--labels", str(labels))
    started = driver.run(*words)
    assert started.returncode == 0, started.stderr
    rollout = started.stdout.strip()
    found = driver.publish_until("CANARY")
    assert found["rollout"] == rollout
    assert found["compared"] >= 100
    judge: Process = mesh.processes["judge"]
    assert judge.metric('reviewmesh_rollout_kappa{label="mixed",slice="all",task="sentiment"}') == 1
    driver.publish()
    mesh.wait_for(
        lambda: "candidate" in routes(driver.answered(), rollout), SOON_S, "canaries are answered"
    )
    # A judge that starts again goes on with what is written, and canaries are read again.
    driver.publish()
    for process in (judge, mesh.processes[f"enricher-{TASK}"]):
        process.kill()
        process.start()
    mesh.wait_ready()

    candidate.script(failing=True)
    found = driver.publish_until("ROLLED_BACK")
    assert found["reason"].startswith("the candidate fails more often than allowed")
    ended_at = mesh.read("reviews.control")[-1]["stage_at"]
    driver.publish()
    results = driver.answered()
    assert_exactly_once(driver.published, mesh.enriched())
    failed = [r for r in results if r["lineage"]["candidate_error"]]
    assert failed
    assert all(r["lineage"]["route"] == "primary" and r["status"] == "OK" for r in failed)
    of_canary = [r for r in results if r["lineage"]["rollout"] == rollout]
    assert max(r["produced_at"] for r in of_canary) - ended_at < EFFECT_WITHIN_MS
    assert ended_at - crossed_at(results, rollout, bounds, ended_at) < EFFECT_WITHIN_MS
    assert judge.metric("reviewmesh_rollouts_rolled_back_total") == 1

    wanted = {
        r["review_id"]
        for r in mesh.enriched()
        if r["tasks"][TASK]["lineage"]["route"] == "candidate"
    }
    assert wanted
    again = driver.run(*shlex.split(driver.status()["again"])[1:])
    assert again.returncode == 0, again.stderr
    assert again.stderr.startswith(f"{len(wanted)} of ")
    mesh.wait_enriched(len(driver.published) + len(wanted), SOON_S)
    out: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in mesh.enriched():
        out[record["review_id"]].append(record)
    for name in wanted:
        first, again_ = out[name]
        assert again_["revision"] > first["revision"]
        assert again_["tasks"][TASK]["lineage"]["route"] == "primary"


def crossed_at(
    results: list[dict[str, Any]], rollout: str, bounds_file: Path, ended_at: int
) -> int:
    """When the results showed that the candidate is worse; the end where the order of the judge
    was another one."""
    bounds = read_bounds(bounds_file)
    shown = RolloutComparison(rollout, bounds, [])
    first = next(r["produced_at"] for r in results if r["lineage"]["rollout"] == rollout)
    for result in sorted(results, key=lambda r: r["produced_at"]):
        if result["produced_at"] >= first:
            shown.add_answer(judged_answer(TASK, result))
            if shown.shows_above(FAILURES, bounds.failures, bounds.alpha):
                return int(result["produced_at"])
    return ended_at
