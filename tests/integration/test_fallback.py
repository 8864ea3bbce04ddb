"""The fallback: real servers with the scripted engine, the real client, and what left the mesh."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from reviewmesh import metrics
from reviewmesh.enrich import fallback
from reviewmesh.enrich.departures import Charge, Release, Reserve
from reviewmesh.enrich.fallback import FallbackPlan
from reviewmesh.enrich.items import Answer
from reviewmesh.enrich.pool import PoolConfig
from reviewmesh.enrich.routes import FALLBACK, PRIMARY, FallbackLimits
from reviewmesh.enrich.spending import Spending
from reviewmesh.leaving.budgets import parse_budgets
from reviewmesh.leaving.policy import Policy, parse_policy
from reviewmesh_protos.inference.v1 import inference_pb2
from tests.inference import TASK, Driver, ScriptedWorker, WorkerProcess, soon
from tests.mesh import free_port
from tests.scripted_openai import ScriptedOpenAI, status

REGION = "eu"
ALL = parse_policy("all:\n  regions: [eu]\n  mask: [patterns]\n")
NAMES = parse_policy("all:\n  regions: [eu]\n  mask: [patterns, names]\n")
ACME_STAYS = parse_policy(
    "all:\n  regions: [eu]\n  mask: [patterns]\nbusinesses:\n  acme: nothing\n"
)
AFTER_S = 0.5
UNLIMITED = "all: unlimited\n"
NO_BUDGET = ""
SOON = FallbackLimits(AFTER_S, 600)
NEVER = FallbackLimits(600, 600)


class Outside:
    """A fallback worker that writes down what it was told."""

    def __init__(self, folder: Path) -> None:
        self.worker = ScriptedWorker(folder)
        self._heard = folder / "heard"
        self.does()
        self.worker.start()

    def does(self, **script: object) -> None:
        self.worker.script(heard=str(self._heard), **script)

    def heard(self) -> list[str]:
        if not self._heard.exists():
            return []
        return [json.loads(line) for line in self._heard.read_text().splitlines()]

    def forget(self) -> None:
        self.does()
        self._heard.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    outside = Outside(tmp_path_factory.mktemp("outside"))
    yield outside
    outside.worker.stop()


@pytest.fixture
def outside(shared: Outside) -> Outside:
    shared.forget()
    return shared


@pytest.fixture
def primary(tmp_path: Path) -> Iterator[ScriptedWorker]:
    """Not started; with little room."""
    worker = ScriptedWorker(tmp_path / "primary", max_in_flight=8)
    yield worker
    worker.stop()


Drive = Callable[..., Driver]


@pytest.fixture
def drive() -> Iterator[Drive]:
    made: list[Driver] = []

    def make(
        primary: str,
        outside: str,
        policy: Policy = ALL,
        limits: FallbackLimits = SOON,
        names: str = "",
        budgets: str = UNLIMITED,
        **options: float,
    ) -> Driver:
        def pool(address: str, route: str) -> PoolConfig:
            serving = metrics.FALLBACK_WORKERS_SERVING.labels(TASK, REGION)
            return PoolConfig(TASK, (address,), "", serving, metrics.CALLS.labels(TASK, route))

        spending = Spending(parse_budgets(budgets or UNLIMITED, partitions=2), time.time)
        for partition in range(2):
            spending.open(partition, {})
        plan = FallbackPlan(
            {REGION: pool(outside, FALLBACK)},
            pool(names, "names") if names else None,
            policy,
            limits,
            spending if budgets else None,
        )
        made.append(Driver([primary], fallback=plan, **options))
        return made[-1]

    yield make
    for driver in made:
        driver.client.close()


def in_front_of(provider: ScriptedOpenAI, folder: Path) -> WorkerProcess:
    """A worker that asks the provider; not started."""
    settings = {
        "REVIEWMESH_WORKER__ENGINE": "openai",
        "REVIEWMESH_OPENAI__MODEL": "m-1",
        "REVIEWMESH_OPENAI__BASE_URL": provider.base_url,
        "REVIEWMESH_OPENAI__API_KEY": "sk-secret",
    }
    return WorkerProcess(folder / "provider", settings)


def nobody() -> str:
    return f"127.0.0.1:{free_port()}"


def held_back(reason: str) -> float:
    labels = {"task": TASK, "reason": reason}
    return REGISTRY.get_sample_value("reviewmesh_reviews_held_back", labels) or 0.0


def entities(answer: Answer) -> list[tuple[int, int, str]]:
    assert isinstance(answer.output, inference_pb2.NerOutput)
    return [(entity.start, entity.end, entity.text) for entity in answer.output.entities]


def test_without_a_primary_worker_the_fallback_answers_about_the_unmasked_text(
    outside: Outside, drive: Drive
) -> None:
    driver = drive(nobody(), outside.worker.address)
    driver.submit(["👍 Mail anna@b.dk or ask Bo", "Card 4111 1111 1111 1111 was Refused"])
    first, second = driver.wait()
    assert outside.heard() == ["👍 Mail [EMAIL] or ask Bo", "Card [CARD] was Refused"]
    assert first.route == second.route == FALLBACK
    # The scripted engine takes every word with a capital for a name, a placeholder too.
    assert entities(first) == [(2, 6, "Mail"), (24, 26, "Bo")]
    assert entities(second) == [(0, 4, "Card"), (29, 36, "Refused")]


def test_what_may_not_leave_waits_and_says_so(
    outside: Outside, primary: ScriptedWorker, drive: Drive
) -> None:
    driver = drive(primary.address, outside.worker.address, ACME_STAYS)
    driver.submit(["Secret of Acme"], business_id="acme")
    driver.submit(["Known to All"], business_id="globex")
    soon(lambda: driver.finished() == 1, "the other business is answered")
    soon(lambda: held_back("forbidden") == 1, "the one held back is counted")
    waits = driver.client.waiting_for()
    assert "no worker for task ner reachable" in waits
    assert "1 reviews are held back: the policy lets nothing of their business leave" in waits
    primary.start()
    secret, known = driver.wait()
    assert (secret.route, known.route) == (PRIMARY, FALLBACK)
    assert outside.heard() == ["Known to All"]
    soon(lambda: held_back("forbidden") == 0, "nothing is held back")
    assert driver.client.waiting_for() == ""


def test_nothing_leaves_while_a_primary_worker_serves(
    outside: Outside, primary: ScriptedWorker, drive: Drive
) -> None:
    primary.start()
    driver = drive(primary.address, outside.worker.address)
    driver.submit([f"Text {number}" for number in range(50)])
    assert {answer.route for answer in driver.wait()} == {PRIMARY}
    assert outside.heard() == []


def test_a_primary_that_passes_health_checks_and_fails_its_calls_is_missing(
    outside: Outside, primary: ScriptedWorker, drive: Drive
) -> None:
    primary.script(failing=True, failing_after_s=1)
    primary.start()
    limits = FallbackLimits(3, 600)
    driver = drive(primary.address, outside.worker.address, limits=limits, batch_items=1)
    driver.submit([f"Text {number}" for number in range(60)])
    answers = driver.wait(60)
    # Those that were sent to it as trials use up their attempts there, as without a fallback.
    routes = [answer.route for answer in answers if answer.output is not None]
    assert routes == [FALLBACK] * len(routes)
    assert len(routes) > 30

    primary.script()

    def primary_answers() -> bool:
        driver.submit(["Later"])
        return driver.wait()[-1].route == PRIMARY

    soon(primary_answers, "a trial shows that its calls are answered again")
    before = driver.submitted
    driver.submit([f"Last {number}" for number in range(40)])
    assert {answer.route for answer in driver.wait()[before:]} == {PRIMARY}


def test_what_waits_for_room_for_too_long_spills_over(
    outside: Outside, primary: ScriptedWorker, drive: Drive
) -> None:
    primary.script(held=["Text"])
    primary.start()
    driver = drive(
        primary.address, outside.worker.address, limits=FallbackLimits(600, 60), batch_items=8
    )
    driver.submit([f"Text {number}" for number in range(40)])
    soon(lambda: primary.in_flight() == 8, "the primary worker is full")
    late = time.time() - 61
    driver.submit(["Late one"], accepted_s=late, partition=1)
    soon(lambda: driver.finished() == 1, "the late one is answered")
    assert outside.heard() == ["Late one"]
    primary.script()
    assert [answer.route for answer in driver.wait()] == [PRIMARY] * 40 + [FALLBACK]


def test_what_the_fallback_has_not_begun_goes_back_to_a_primary_that_is_there_again(
    outside: Outside, primary: ScriptedWorker, drive: Drive
) -> None:
    outside.does(held=["Text"])
    driver = drive(primary.address, outside.worker.address, batch_items=1)
    driver.submit([f"Text {number}" for number in range(600)])
    soon(lambda: bool(outside.heard()), "some have left")
    primary.start()
    soon(lambda: driver.finished() >= 344, "those that had not left are answered")
    outside.does()
    routes = [answer.route for answer in driver.wait()]
    assert 0 < routes.count(FALLBACK) <= 256
    assert len(outside.heard()) == routes.count(FALLBACK)


def test_a_fallback_that_fails_costs_no_review_its_answer(
    outside: Outside, primary: ScriptedWorker, drive: Drive
) -> None:
    outside.does(failing=True)
    driver = drive(primary.address, outside.worker.address, max_attempts=2)
    driver.submit(["One", "Two"])
    soon(lambda: held_back("failed") == 2, "both came back")
    assert driver.finished() == 0
    tried = len(outside.heard())
    primary.start()
    assert [answer.route for answer in driver.wait()] == [PRIMARY, PRIMARY]
    assert len(outside.heard()) == tried


def test_where_all_fallback_workers_are_out_nothing_is_sent(drive: Drive) -> None:
    driver = drive(nobody(), nobody())
    driver.submit(["One"])
    soon(lambda: held_back("no_worker") == 1, "it is held back")
    assert "no fallback worker serves in a region" in driver.client.waiting_for()
    assert driver.client.starved()
    assert driver.finished() == 0


def test_names_are_masked_by_a_worker_of_the_mesh(
    outside: Outside, primary: ScriptedWorker, tmp_path: Path, drive: Drive
) -> None:
    finder = ScriptedWorker(tmp_path / "finder")
    finder.script(label="person")
    driver = drive(nobody(), outside.worker.address, NAMES, names=finder.address)
    driver.submit(["the host was Anna Bo, ask anna or Bo at a@b.dk"])
    soon(lambda: held_back("no_names") == 1, "without a finder of names nothing leaves")
    assert outside.heard() == []
    try:
        finder.start()
        [answer] = driver.wait()
    finally:
        finder.stop()
    assert outside.heard() == ["the host was [NAME] [NAME], ask anna or [NAME] at [EMAIL]"]
    assert answer.route == FALLBACK


def test_names_that_nobody_could_find_do_not_leave(
    outside: Outside, tmp_path: Path, drive: Drive
) -> None:
    finder = ScriptedWorker(tmp_path / "finder")
    finder.script(poison=["Anna"])
    try:
        finder.start()
        driver = drive(nobody(), outside.worker.address, NAMES, names=finder.address)
        driver.submit(["Anna was here"])
        soon(lambda: held_back("failed") == 1, "it came back")
    finally:
        finder.stop()
    assert outside.heard() == []
    assert driver.finished() == 0


def test_withdrawn_reviews_do_not_come_back(
    outside: Outside, primary: ScriptedWorker, drive: Drive
) -> None:
    outside.does(held=["Gone"])
    driver = drive(primary.address, outside.worker.address)
    driver.submit(["Gone 1", "Gone 2"], token="gone")
    soon(lambda: bool(outside.heard()), "they have left")
    driver.client.cancel(lambda token: token == "gone")
    soon(lambda: not driver.client.waiting_for().startswith("the fallback"), "they are let go of")
    primary.start()
    driver.submit(["Here"], token="here")
    soon(lambda: driver.finished() == 1, "what came later is answered")
    assert list(driver.answers) == [2]


def test_a_provider_sees_masked_text_of_those_that_may_leave_and_its_outage_costs_no_review(
    primary: ScriptedWorker, tmp_path: Path, drive: Drive
) -> None:
    with ScriptedOpenAI() as provider:
        worker = in_front_of(provider, tmp_path)
        try:
            worker.start()
            driver = drive(primary.address, worker.address, ACME_STAYS)
            driver.submit(["Acme, write to anna@b.dk"], business_id="acme")
            driver.submit(["Anna in Berlin, write to anna@b.dk"], business_id="globex")
            soon(lambda: driver.finished() == 1, "the other business is answered")
            provider.always = status(401, "no such key")
            driver.submit(["Later, write to anna@b.dk"], business_id="globex")
            soon(lambda: held_back("no_worker") == 1, "the worker is out, and the review came back")
            primary.start()
            routes = [answer.route for answer in driver.wait()]
        finally:
            worker.stop()
    assert routes == [PRIMARY, FALLBACK, PRIMARY]
    sent = json.dumps(provider.requests)
    assert "Anna in Berlin, write to [EMAIL]" in sent
    assert "Acme" not in sent and "anna@b.dk" not in sent


@pytest.mark.parametrize(
    ("budgets", "reason"),
    [(NO_BUDGET, "no_budget"), ("all:\n  day: {requests: 0}\n", "spent")],
)
def test_without_money_nothing_leaves(
    outside: Outside, primary: ScriptedWorker, drive: Drive, budgets: str, reason: str
) -> None:
    driver = drive(primary.address, outside.worker.address, budgets=budgets)
    driver.submit(["One", "Two"])
    soon(lambda: held_back(reason) == 2, "both are held back")
    assert "2 reviews are held back: " in driver.client.waiting_for()
    assert outside.heard() == []
    primary.start()
    assert [answer.route for answer in driver.wait()] == [PRIMARY, PRIMARY]


def test_a_call_that_broke_is_not_made_again_without_a_new_reservation(
    outside: Outside, drive: Drive
) -> None:
    outside.does(held=["One"])
    driver = drive(nobody(), outside.worker.address)
    driver.submit(["One"])
    soon(lambda: outside.heard() == ["One"], "it has left")
    outside.worker.process.kill()
    soon(lambda: any(isinstance(step, Charge) for step in driver.steps), "the call broke")
    [failed] = [step for step in driver.steps if isinstance(step, Charge)]
    assert failed.usage is None
    outside.does()
    outside.worker.start()
    # It rests for half a minute, since nobody was answered.
    [answer] = driver.wait(60)
    assert answer.route == FALLBACK
    assert len(outside.heard()) == sum(isinstance(step, Reserve) for step in driver.steps)


def test_what_is_withdrawn_before_it_is_reserved_holds_up_nothing(
    outside: Outside,
    primary: ScriptedWorker,
    drive: Drive,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fallback, "CHECK_EVERY_S", 0.01)
    driver = drive(primary.address, outside.worker.address)
    driver.lets_leave = False
    driver.submit(["Gone 1", "Gone 2"], token="gone")
    soon(lambda: len(driver.steps) == 2, "both ask for a reservation")
    driver.client.cancel(lambda token: token == "gone")
    # The choice changes for what asked.
    primary.start()
    driver.submit(["Here"], token="here")
    soon(lambda: driver.finished() == 1, "the primary answers what came later")
    primary.process.kill()
    driver.lets_leave = True
    driver.submit(["There"], token="there")
    soon(lambda: driver.finished() == 2, "the fallback goes on")
    assert outside.heard() == ["There"]
    assert driver.client.waiting_for().count("the fallback has") == 0
    assert "checking which reviews need the fallback failed" not in capsys.readouterr().out


def test_what_went_back_before_it_was_reserved_gives_the_reservation_back(
    outside: Outside, primary: ScriptedWorker, drive: Drive
) -> None:
    driver = drive(primary.address, outside.worker.address)
    driver.lets_leave = False
    driver.submit(["One"])
    soon(lambda: len(driver.steps) == 1, "it asks for a reservation")
    primary.start()
    [answer] = driver.wait()
    assert answer.route == PRIMARY
    [asked] = driver.steps
    driver.client.reservation_committed(asked.departure)
    soon(lambda: driver.steps[1:] == [Release(asked.departure)], "it is given back")
    assert outside.heard() == []


def test_what_might_take_more_than_a_call_may_is_not_sent(
    primary: ScriptedWorker, tmp_path: Path, drive: Drive
) -> None:
    budgets = "call: {tokens: 100}\nall:\n  day: {tokens: 100000}\n"
    with ScriptedOpenAI() as provider:
        worker = in_front_of(provider, tmp_path)
        try:
            worker.start()
            driver = drive(primary.address, worker.address, budgets=budgets)
            driver.submit(["One"])
            soon(lambda: held_back("over_bound") == 1, "it came back")
            waits = driver.client.waiting_for()
            primary.start()
            [answer] = driver.wait()
        finally:
            worker.stop()
    assert provider.requests == []
    assert answer.route == PRIMARY
    assert "they might take more than the budget allows for one call" in waits
    assert [type(step) for step in driver.steps] == [Reserve, Release]
