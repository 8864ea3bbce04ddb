"""Buttons of the console in a browser: a rollout and a campaign of a whole mesh are commanded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
from playwright.sync_api import Browser, Page

from reviewmesh.enrich.campaigns import CANCELLED, PAUSED, RUNNING
from reviewmesh.enrich.rollouts import ABORTED, CANARY, SHADOW
from reviewmesh.query import campaigns
from reviewmesh.query.connection import Connection
from reviewmesh.query.rollouts import rollouts
from tests.broker import TestStack, wait_until
from tests.command_line import reviewmesh
from tests.e2e.test_console import SOON_S, browser, page, violations
from tests.e2e.test_rollout import candidate
from tests.inference import ScriptedWorker
from tests.mesh import Mesh, review

__all__ = ["browser", "candidate", "page"]

TASK = "sentiment"
REVIEWS = 20


@pytest.fixture(scope="module")
def mesh(
    breakable_stack: TestStack, candidate: ScriptedWorker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mesh]:
    folder: Path = tmp_path_factory.mktemp("actions")
    settings = {f"REVIEWMESH_CANDIDATES__{TASK.upper()}": candidate.address}
    with Mesh(breakable_stack, "actions.", folder, settings) as mesh:
        mesh.start()
        mesh.add("judge").start()
        mesh.add_console(folder, REVIEWMESH_CONSOLE__ACTIONS="true").start()
        mesh.wait_ready()
        mesh.wait_for(candidate.process.is_ready, SOON_S, "the candidate serves")
        mesh.publish([review(f"r-{number}", f"Anna said {number}.") for number in range(REVIEWS)])
        mesh.wait_enriched(REVIEWS, SOON_S)
        yield mesh


@pytest.fixture(scope="module")
def url(mesh: Mesh) -> str:
    return f"http://127.0.0.1:{mesh.processes['console'].environment['REVIEWMESH_CONSOLE__PORT']}"


@pytest.fixture(scope="module")
def connection(mesh: Mesh) -> Connection:
    return mesh.connection()


def posted(url: str, path: str, form: dict[str, str]) -> httpx.Response:
    return httpx.post(url + path, data=form, headers={"Origin": url}, timeout=SOON_S)


def audit(mesh: Mesh) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in mesh.processes["console"].log.open()]
    return [(line["action"], line["outcome"]) for line in lines if line["event"] == "audit"]


def press(page: Page, name: str) -> None:
    """With the keyboard."""
    button = page.get_by_role("button", name=name)
    button.focus()
    page.keyboard.press("Enter")


def test_a_rollout_is_advanced_once_and_aborted(
    page: Page, url: str, mesh: Mesh, connection: Connection
) -> None:
    def start() -> int:
        environment = mesh.processes["intake"].environment
        done = reviewmesh(environment, mesh.folder, "rollout", "start", "--task", TASK)
        assert done.returncode == 0, done.stderr
        return rollouts(connection)[TASK].epoch

    before, epoch = len(audit(mesh)), start()
    page.goto(f"{url}/rollouts")
    advance = page.get_by_role("link", name=f"Advance the rollout of {TASK}")
    advance.wait_for()
    # The part that comes later has it as well.
    first = page.locator(".age [data-age]").get_attribute("data-age")
    page.wait_for_function(
        "before => document.querySelector('.age [data-age]').dataset.age !== before", arg=first
    )
    assert violations(page) == []
    advance.focus()
    page.keyboard.press("Enter")
    page.get_by_text("The judge is not waited for. Next, the candidate answers 1 %").wait_for()
    assert violations(page) == []
    assert rollouts(connection)[TASK].state == SHADOW, "nothing was done yet"

    form = {
        field.get_attribute("name") or "": field.input_value()
        for field in page.locator("form input").all()
    }
    assert form == {"task": TASK, "epoch": str(epoch)}
    stale = page.context.new_page()
    stale.goto(page.url)
    with ThreadPoolExecutor(2) as twice:
        answers = list(twice.map(lambda _: posted(url, "/rollouts/advance", form), range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    [refused] = [answer.text for answer in answers if answer.status_code == 409]
    assert f"the command was given for epoch {epoch}: it changed meanwhile" in refused
    # So is the button of a page that was open all the time.
    press(stale, f"Advance the rollout of {TASK}")
    stale.get_by_role("status").get_by_text("Nothing was done: ").wait_for()
    assert violations(stale) == []
    record = rollouts(connection)[TASK]
    assert (record.state, record.epoch, record.share) == (CANARY, epoch + 1, 0.01)

    page.get_by_role("link", name=f"The rollout of {TASK}").click()
    page.get_by_role("link", name=f"Abort the rollout of {TASK}").click()
    press(page, f"Abort the rollout of {TASK}")
    page.get_by_role("status").get_by_text("Done. It is now aborted").wait_for()
    assert violations(page) == []
    assert rollouts(connection)[TASK].state == ABORTED
    assert sorted(audit(mesh)[before:-1]) == [
        ("advance rollout", "done"),
        ("advance rollout", "refused"),
        ("advance rollout", "refused"),
    ]
    assert audit(mesh)[-1] == ("abort rollout", "done")


def test_a_campaign_is_paused_resumed_and_cancelled_without_a_script(
    browser: Browser, url: str, mesh: Mesh, connection: Connection
) -> None:
    mesh.script(held=["Anna"])
    chosen = campaigns.choose_reviews(connection, "topic", lambda record: True)
    begun = campaigns.begin(connection, "topic", "revision > 0", chosen)
    before = len(audit(mesh))

    def state() -> str:
        return campaigns.campaign_named(connection, begun.id).state

    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_default_timeout(SOON_S * 1000)
    for name, state_before, state_after in (
        ("Pause", RUNNING, PAUSED),
        ("Resume", PAUSED, RUNNING),
        ("Cancel", RUNNING, CANCELLED),
    ):
        # What is read every 1.5 s may be older than the last command.
        wait_until(
            lambda name=name: f">{name} {begun.id}<" in httpx.get(f"{url}/campaigns").text,  # type: ignore[misc]
            SOON_S,
            f"{name} is offered",
        )
        page.goto(f"{url}/campaigns")
        page.get_by_role("link", name=f"{name} {begun.id}").click()
        assert state() == state_before, "nothing was done yet"
        page.get_by_role("button", name=f"{name} {begun.id}").click()
        page.get_by_role("status").get_by_text("Done.").wait_for()
        said = page.get_by_role("status").inner_text()
        missing = "; 0 requests were sent that were missing" if name == "Resume" else ""
        assert said == f"Done. It is now {state_after.lower()}{missing}."
        assert state() == state_after
        form = {"campaign": begun.id, "state": state_before}
        again = posted(url, f"/campaigns/{name.lower()}", form)
        assert again.status_code == 409
        assert "Nothing was done" in again.text
        assert state() == state_after
    context.close()
    mesh.script()
    assert audit(mesh)[before:] == [
        (f"{action} campaign", outcome)
        for action in ("pause", "resume", "cancel")
        for outcome in ("done", "refused")
    ]


def test_pages_that_ask_are_accessible(
    page: Page, url: str, mesh: Mesh, connection: Connection
) -> None:
    """Those of a campaign, which the test above opens without a script."""
    [begun] = campaigns.campaigns(connection)
    for action in ("pause", "resume", "cancel"):
        query = urlencode({"campaign": begun.id, "state": CANCELLED})
        answer = page.goto(f"{url}/campaigns/{action}?{query}")
        assert answer is not None and answer.status == 200
        assert violations(page) == []
