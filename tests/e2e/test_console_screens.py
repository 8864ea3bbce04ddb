"""Rollouts, campaigns, budgets, insights, the search and the alerts of the console in a browser."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from playwright.sync_api import Page

from reviewmesh.clock import wall_clock
from reviewmesh.enrich.rollouts import SHADOW
from reviewmesh.judge.rollout import Look, RolloutRecord
from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.leaving.accounts import periods_at
from reviewmesh.query import campaigns
from reviewmesh.query.connection import Connection
from reviewmesh_schemas.names import CONTROL, INSIGHTS, SPEND
from reviewmesh_worker.bundled import BUNDLED_MODEL
from reviewmesh_worker.packages.registry import Registry
from reviewmesh_worker.tasks.definition import load_tasks
from tests.broker import TestStack, wait_until
from tests.e2e.test_console import HOSTILE, NAMED_WITHIN_S, SOON_S, browser, page, violations
from tests.mesh import Mesh, review

__all__ = ["browser", "page"]

REVIEWS = 30
HOUR_MS = 3_600_000
BUDGETS = """\
call: {tokens: 6000, usd: 0.004}
all: {day: {requests: 1200, usd: 20}}
businesses: {acme: {day: {requests: 600}}}
"""
SCREENS = (
    "/",
    "/rollouts",
    "/rollouts?task=topic",
    "/campaigns",
    "/budgets",
    "/budgets?period=soon",
    "/packages",
    "/insights?business=acme",
    "/insights",
    "/reviews",
    "/reviews?text=anna",
    f"/insights?{urlencode({'business': HOSTILE})}",
    f"/reviews?{urlencode({'business': HOSTILE})}",
    f"/reviews?{urlencode({'text': HOSTILE})}",
)


def window(business: str, hours_ago: int, **more: Any) -> dict[str, Any]:
    start = (int(time.time() * 1000) // HOUR_MS - hours_ago) * HOUR_MS
    topic = {"id": HOSTILE, "reviews": 2, "sentiment": {}, "polarity": {}}
    return {
        "business_id": business,
        "window_start": start,
        "window_end": start + HOUR_MS,
        "reviews": 7 + hours_ago,
        "rated_reviews": 1,
        "mean_stars": 4.5,
        "sentiment": {"positive": 3, "negative": 1},
        "topics": [{"id": "food", "reviews": 3, "sentiment": {}, "polarity": {}}, topic],
        "updated_at": start + 5,
    } | more


def write(mesh: Mesh, topic: str, key: str, content: dict[str, Any]) -> None:
    number = partition_of(key.encode(), mesh.partitions)
    mesh.publish_raw(mesh.codec(topic).encode(content), key.encode(), number, topic)


@pytest.fixture(scope="module")
def mesh(breakable_stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder: Path = tmp_path_factory.mktemp("screens")
    budgets = folder / "budgets.yaml"
    budgets.write_text(BUDGETS)
    registry = folder / "models"
    (registry / "packages").mkdir(parents=True)
    Registry(registry).add(BUNDLED_MODEL, load_tasks())
    with Mesh(breakable_stack, "screens.", folder) as mesh:
        mesh.start()
        mesh.add_console(
            folder,
            REVIEWMESH_BUDGETS=str(budgets),
            REVIEWMESH_CONSOLE__MODEL_REGISTRY=str(registry),
        ).start()
        mesh.wait_ready()
        mesh.publish(
            review(f"r-{number}", f"Anna said {number}.", business_id="acme")
            for number in range(REVIEWS)
        )
        mesh.publish([review("hostile", HOSTILE, business_id=HOSTILE, title=HOSTILE)])
        mesh.wait_enriched(REVIEWS + 1)
        for business in ("acme", HOSTILE):
            for hours_ago in (4, 1, 0):
                shown = window(business, hours_ago)
                write(mesh, INSIGHTS, f"{business}@{shown['window_start']}", shown)
        write(mesh, CONTROL, "topic", rollout().content())
        day, _ = periods_at(wall_clock())
        for business, requests in (("", 1_000), ("acme", 600), (HOSTILE, 1)):
            write(mesh, SPEND, f"{day}/{business}", spend(day, business, requests))
        yield mesh


def rollout() -> RolloutRecord:
    now = int(time.time() * 1000)
    return RolloutRecord(
        task="topic",
        rollout="topic-1",
        epoch=2,
        state=SHADOW,
        share=1.0,
        reason=HOSTILE,
        verdict="412 pairs compared, 500 are wanted",
        model="encoder@2",
        started_at=now,
        stage_at=now,
        answered=1_000,
        compared=412,
        slices=("da",),
        looks=(
            Look(now, SHADOW, "disagreement", "all", 97, 0.05, 0.0, 0.3),
            Look(now, SHADOW, "disagreement", "da", 30, 0.0, 0.0, 0.321),
        ),
    )


def spend(day: str, business: str, requests: int) -> dict[str, Any]:
    nothing = {"requests": 0, "tokens": 0, "cost_micros": 0}
    return {
        "task": "topic",
        "partition": 0,
        "period": day,
        "business_id": business,
        "reserved": nothing,
        "settled": nothing | {"requests": requests},
        "orphaned": nothing,
        "changed_at": int(time.time() * 1000),
    }


@pytest.fixture(scope="module")
def url(mesh: Mesh) -> str:
    address = (
        f"http://127.0.0.1:{mesh.processes['console'].environment['REVIEWMESH_CONSOLE__PORT']}"
    )
    for path, words in (
        ("/insights?business=acme", "data-plots"),
        ("/budgets", "acme"),
        ("/rollouts", "topic-1"),
    ):
        wait_until(
            lambda path=path, words=words: words in get(address + path),  # type: ignore[misc]
            SOON_S,
            f"{path} has {words}",
        )
    return address


@pytest.fixture(scope="module")
def connection(mesh: Mesh) -> Connection:
    return mesh.connection()


def get(address: str) -> str:
    return httpx.get(address, timeout=SOON_S).text


@pytest.mark.parametrize("path", SCREENS)
def test_every_screen_is_accessible_in_both_colours_and_runs_nothing(
    page: Page, url: str, path: str
) -> None:
    answer = page.goto(url + path)
    assert answer is not None and answer.status == 200
    assert page.locator("h1").count() == 1
    assert page.locator("main script, main img, #owned").count() == 0
    assert violations(page) == []


@pytest.mark.parametrize(
    "path", ["/", "/rollouts", "/campaigns", "/budgets", "/insights?business=acme"]
)
def test_a_narrow_screen_shows_everything_without_moving_sideways(
    page: Page, url: str, path: str
) -> None:
    page.set_viewport_size({"width": 360, "height": 800})
    page.goto(url + path)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 360


@pytest.mark.parametrize("name", ["rollouts", "campaigns", "budgets"])
def test_what_was_read_is_read_again_and_says_how_old_it_is(
    page: Page, url: str, name: str
) -> None:
    page.goto(f"{url}/{name}")
    first = page.locator(".age [data-age]").get_attribute("data-age")
    page.wait_for_function(
        "before => document.querySelector('.age [data-age]').dataset.age !== before", arg=first
    )


def test_a_rollout_shows_its_evidence_and_what_comes_next(page: Page, url: str) -> None:
    page.goto(f"{url}/rollouts")
    shown = page.locator("article").inner_text()
    assert "412 of 1,000 answers in shadow" in shown
    assert "It waits: 412 pairs compared, 500 are wanted." in shown
    assert page.locator("[aria-current=step]").inner_text().startswith("shadow")
    assert page.get_by_role("region", name="Evidence of topic: disagreement").count() == 1


def test_budgets_show_what_is_spent(page: Page, url: str) -> None:
    page.goto(f"{url}/budgets")
    [acme] = [
        row for row in page.locator("tr").all_inner_texts() if row.startswith("acme\trequests")
    ]
    assert "100 %, spent" in acme


def test_a_campaign_is_counted_as_the_command_counts_it(
    page: Page, url: str, mesh: Mesh, connection: Connection
) -> None:
    chosen = campaigns.choose_reviews(
        connection, "topic", lambda record: record["business_id"] == "acme"
    )
    assert len(chosen) == REVIEWS
    page.goto(f"{url}/campaigns")
    campaign = campaigns.begin(connection, "topic", 'business_id = "acme"', chosen)
    page.goto(f"{url}/campaigns?{urlencode({'campaign': campaign.id})}")
    page.get_by_role("heading", name=f"{campaign.id}: done").wait_for()
    status = campaigns.status(connection, campaign)
    assert (status.sent, status.answered) == (REVIEWS, REVIEWS)
    said = " ".join(page.locator("article").inner_text().split())
    assert f"100 % done: {REVIEWS} of {REVIEWS} reviews." in said
    assert f"published {status.published} dropped {status.dropped}" in said
    assert violations(page) == []


def test_plots_are_drawn_and_a_point_leads_to_its_reviews(page: Page, url: str) -> None:
    page.goto(f"{url}/insights?business=acme")
    page.locator(".plot canvas").first.wait_for()
    assert page.locator(".plot canvas").count() == 4
    titles = page.locator(".plot .u-title").all_inner_texts()
    assert titles == ["Reviews", "Mood, in percent", "Mean stars", "Reviews by topic"]
    over = page.locator(".plot .u-over").first
    box = over.bounding_box()
    assert box is not None
    # The newest window is the last point.
    over.click(position={"x": box["width"] - 2, "y": box["height"] / 2})
    page.wait_for_url("**/reviews?business=acme&since_ms=*")
    assert f"{REVIEWS} found." in page.get_by_role("status").inner_text()


def test_the_table_of_insights_leads_there_by_keyboard(page: Page, url: str) -> None:
    page.goto(f"{url}/insights?business=acme")
    link = page.get_by_role("region", name="Windows").get_by_role("link").first
    link.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/reviews?business=acme&since_ms=*")
    row = page.get_by_role("link", name="r-7", exact=True)
    row.focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/review?id=r-7")
    page.get_by_text("Where its time went").first.wait_for()


def test_a_review_is_found_by_its_text(page: Page, url: str) -> None:
    page.goto(f"{url}/review")
    page.get_by_label("Text in recent reviews").fill("ANNA SAID 7.")
    page.keyboard.press("Enter")
    page.wait_for_url("**/reviews?text=*")
    assert page.get_by_role("link", name="r-7", exact=True).count() == 1
    assert page.locator("td mark").inner_text() == "Anna said 7."


def test_an_alert_is_listed_before_it_fires_and_is_gone_when_it_is_over(
    page: Page, url: str, mesh: Mesh
) -> None:
    lost = mesh.processes["enricher-ner"]
    page.goto(url)
    lost.kill()
    page.get_by_role("rowheader", name="ServiceDown").wait_for()
    assert violations(page) == []
    lost.start()
    page.get_by_role("rowheader", name="ServiceDown").wait_for(state="detached")


def test_without_the_broker_the_last_values_stay_and_it_is_named(url: str, mesh: Mesh) -> None:
    for name, words in (("budgets", "acme"), ("rollouts", "topic-1")):
        assert words in get(f"{url}/{name}")
    mesh.stack.stop("broker")
    try:
        for name, words in (("budgets", "acme"), ("rollouts", "topic-1")):
            wait_until(
                lambda name=name: "last known values" in get(f"{url}/{name}"),  # type: ignore[misc]
                NAMED_WITHIN_S,
                f"{name} are marked",
            )
            assert words in get(f"{url}/{name}")
    finally:
        mesh.stack.start("broker")
    wait_until(
        lambda: "last known values" not in get(f"{url}/budgets"), SOON_S, "they are read again"
    )
