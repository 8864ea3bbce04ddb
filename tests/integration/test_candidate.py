"""The candidate of a rollout: real servers with the scripted engine, and the real client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reviewmesh.enrich import candidate as module
from reviewmesh.enrich.candidate import COPIES_AT_ONCE, NOT_SERVING
from reviewmesh.enrich.items import Answer
from reviewmesh.enrich.rollouts import CANARY, SHADOW
from reviewmesh.enrich.routes import CANDIDATE, PRIMARY
from tests.inference import ScriptedWorker, soon
from tests.mesh import free_port
from tests.rolled import NAME, PATIENCE_S, Rolled


@pytest.fixture(scope="module")
def workers(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[ScriptedWorker, ScriptedWorker]]:
    pair = (
        ScriptedWorker(tmp_path_factory.mktemp("primary")),
        ScriptedWorker(tmp_path_factory.mktemp("candidate"), {"SCRIPTED_MODEL_VERSION": "2"}),
    )
    for worker in pair:
        worker.process.start()
    for worker in pair:
        soon(worker.process.is_ready, "the workers serve", 60)
    yield pair
    for worker in pair:
        worker.stop()


@pytest.fixture
def candidate(workers: tuple[ScriptedWorker, ScriptedWorker]) -> ScriptedWorker:
    for worker in workers:
        worker.script()
    return workers[1]


@pytest.fixture
def drive(
    workers: tuple[ScriptedWorker, ScriptedWorker],
) -> Iterator[Callable[[str], Rolled]]:
    made: list[Rolled] = []

    def make(candidate: str = workers[1].address, primary: str = workers[0].address) -> Rolled:
        made.append(Rolled(primary, candidate))
        return made[-1]

    yield make
    for driver in made:
        driver.client.close()


Drive = Callable[..., Rolled]


def texts(count: int) -> list[str]:
    return [f"Text {number}" for number in range(count)]


def version(answer: Answer) -> str:
    assert answer.lineage is not None
    return answer.lineage.model_version


def test_without_a_rollout_the_candidate_is_asked_nothing(
    candidate: ScriptedWorker, drive: Drive, tmp_path: Path
) -> None:
    candidate.script(heard=str(tmp_path / "heard"))
    driver = drive()
    driver.submit(texts(20))
    assert {(answer.route, answer.rollout) for answer in driver.wait()} == {(PRIMARY, None)}
    assert not (tmp_path / "heard").exists()


def test_canaries_and_nobody_else_are_answered_by_the_candidate(
    candidate: ScriptedWorker, drive: Drive
) -> None:
    driver = drive()
    soon(driver.is_known, "the candidate serves")
    driver.rollouts.begin(CANARY, share=0.3)
    driver.submit(texts(200))
    found = driver.wait()
    routes = [answer.route for answer in found]
    assert 30 < routes.count(CANDIDATE) < 90
    for answer in found:
        is_canary = answer.route == CANDIDATE
        assert answer.rollout == (NAME if is_canary else None)
        assert version(answer) == ("2" if is_canary else "1")


def test_a_candidate_that_fails_costs_no_review_its_answer(
    candidate: ScriptedWorker, drive: Drive
) -> None:
    candidate.script(failing=True)
    driver = drive()
    soon(driver.is_known, "the candidate serves")
    driver.rollouts.begin(CANARY)
    driver.submit(["One"])
    [answer] = driver.wait()
    assert (answer.route, answer.rollout, version(answer)) == (PRIMARY, NAME, "1")
    assert "UNAVAILABLE: as scripted" in (answer.candidate_error or "")
    assert answer.error is None
    assert answer.attempts == 2


def test_an_answer_of_the_candidate_that_no_result_can_be_made_of_costs_no_review_its_own(
    candidate: ScriptedWorker, drive: Drive
) -> None:
    driver = drive()
    soon(driver.is_known, "the candidate serves")
    driver.rollouts.begin(CANARY)
    driver.sent.refused = "expected an answer of at most 10 bytes, got 11"
    driver.submit(["One"])
    [answer] = driver.wait()
    assert (answer.route, answer.rollout, version(answer)) == (PRIMARY, NAME, "1")
    assert answer.candidate_error == driver.sent.refused


def test_a_candidate_that_hangs_delays_a_canary_for_as_long_as_is_allowed(
    candidate: ScriptedWorker, drive: Drive
) -> None:
    candidate.script(held=["Text"])
    driver = drive()
    soon(driver.is_known, "the candidate serves")
    driver.rollouts.begin(CANARY)
    began = time.monotonic()
    driver.submit(texts(300))
    answers = driver.wait()
    assert time.monotonic() - began > PATIENCE_S
    assert {answer.route for answer in answers} == {PRIMARY}
    assert all(answer.candidate_error for answer in answers)
    assert not driver.candidate.has_jobs()


def test_a_candidate_that_is_not_there_fails_once_it_would_have_been_found(
    candidate: ScriptedWorker, drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = drive(candidate=f"127.0.0.1:{free_port()}")
    driver.rollouts.begin(CANARY)
    driver.submit(["One"])
    soon(lambda: driver.finished() == 1, "it is answered")
    monkeypatch.setattr(module, "STARTUP_S", 0.0)
    driver.submit(["Two"])
    errors = [answer.candidate_error for answer in driver.wait()]
    assert errors == [None, NOT_SERVING]


def test_what_the_candidate_has_is_taken_back_when_the_rollout_ends(
    candidate: ScriptedWorker, drive: Drive
) -> None:
    candidate.script(held=["Text"])
    driver = drive()
    soon(driver.is_known, "the candidate serves")
    driver.rollouts.begin(CANARY)
    driver.submit(texts(5))
    soon(lambda: "the candidate has had it" in driver.client.waits_for(0, 0), "it has them")
    driver.rollouts.rollout = None
    answers = driver.wait(within_s=5)
    assert {(a.route, a.rollout, a.candidate_error) for a in answers} == {(PRIMARY, None, None)}


def test_in_shadow_both_answer_and_only_the_own_workers_are_heard(
    candidate: ScriptedWorker, drive: Drive
) -> None:
    driver = drive()
    soon(driver.is_known, "the candidate serves")
    driver.rollouts.begin(SHADOW)
    driver.submit(texts(20))
    assert {(answer.route, answer.rollout) for answer in driver.wait()} == {(PRIMARY, None)}
    soon(lambda: len(driver.sent.answers) == 20, "the copies are answered")
    found = {(a.route, a.rollout, version(a)) for a in driver.sent.answers.values()}
    assert found == {(CANDIDATE, NAME, "2")}


def test_a_candidate_that_hangs_in_shadow_delays_nothing_and_is_given_a_few_copies_only(
    candidate: ScriptedWorker, drive: Drive
) -> None:
    candidate.script(held=["Text"])
    driver = drive()
    soon(driver.is_known, "the candidate serves")
    driver.rollouts.begin(SHADOW)
    driver.submit(texts(500))
    driver.wait()
    assert len(driver.candidate._copies) == COPIES_AT_ONCE
    assert driver.sent.answers == {}
    candidate.script()
    soon(lambda: len(driver.sent.answers) == COPIES_AT_ONCE, "those that it had are answered")


def test_withdrawn_reviews_do_not_come_back(candidate: ScriptedWorker, drive: Drive) -> None:
    candidate.script(held=["Text"])
    driver = drive()
    soon(driver.is_known, "the candidate serves")
    driver.rollouts.begin(CANARY)
    driver.submit(texts(3), token="gone")
    soon(lambda: "the candidate has had it" in driver.client.waits_for(0, 0), "it has them")
    driver.client.cancel(lambda token: token == "gone")
    driver.rollouts.rollout = None
    driver.submit(["Here"], token="here")
    soon(lambda: driver.finished() == 1, "what came later is answered")
    assert list(driver.answers) == [3]
