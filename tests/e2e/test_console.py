"""The console in a real browser, over a mesh with traffic, dead letters and hostile records."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from reviewmesh_schemas.names import TASKS
from tests.broker import TestStack, wait_until
from tests.mesh import Mesh, free_port, review

SOON_S = 60
NAMED_WITHIN_S = 30
SCREENS = ("/", "/review", "/live", "/dead-letters", "/groups", "/workers", "/insights")
HOSTILE = '<script>window.owned=1</script><img src=x onerror="window.owned=1">\u202egnp\x00'
HOSTILE_ID = f'"><b id="owned">{HOSTILE}'
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}


@pytest.fixture(scope="module")
def mesh(breakable_stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    folder = tmp_path_factory.mktemp("console")
    with Mesh(breakable_stack, "console.", folder) as mesh:
        mesh.start()
        mesh.add_console(folder, REVIEWMESH_CONSOLE__ACTIONS="true").start()
        mesh.wait_ready()
        mesh.publish([review(f"r-{number}", f"Anna said {number}.") for number in range(30)])
        mesh.publish([review(HOSTILE_ID, HOSTILE, business_id=HOSTILE, title=HOSTILE)])
        mesh.publish([review("edited", "Anna was here.")])
        mesh.publish([review("edited", "Bert was here.")])
        mesh.publish([review("blank", "  ")])
        mesh.publish_raw(HOSTILE.encode(), key=HOSTILE.encode())
        mesh.wait_enriched(33)
        yield mesh


@pytest.fixture(scope="module")
def url(mesh: Mesh) -> str:
    return f"http://127.0.0.1:{mesh.processes['console'].environment['REVIEWMESH_CONSOLE__PORT']}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        # Without its sandbox, which containers and root do not have.
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture(params=["light", "dark"])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """Fails on an error of a script and on a request that the policy refused."""
    context = browser.new_context(color_scheme=request.param)
    opened = context.new_page()
    opened.set_default_timeout(SOON_S * 1000)
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    yield opened
    assert opened.evaluate("window.owned") is None
    context.close()
    assert errors == []


def indexed(url: str, review_id: str, words: str) -> None:
    """Wait until the index has it."""
    path = f"{url}/review?{urlencode({'id': review_id})}"
    try:
        wait_until(
            lambda: words in httpx.get(path, timeout=SOON_S).text, SOON_S, f"{words} is indexed"
        )
    except AssertionError:
        print(httpx.get(path, timeout=SOON_S).text, overview(url), sep="\n")
        raise


def letter_of(url: str, cause: str) -> str:
    """The path of a dead letter, once it is indexed."""
    found: list[str] = []

    def listed() -> bool:
        text = httpx.get(f"{url}/dead-letters", params={"cause": cause}, timeout=SOON_S).text
        found[:] = [part.partition('"')[0] for part in text.split('href="/dead-letters/')[1:]]
        return bool(found)

    wait_until(listed, SOON_S, f"a letter of {cause} is listed")
    return f"/dead-letters/{found[0]}"


def violations(page: Page) -> list[str]:
    found = Axe().run(page, options=WCAG).response["violations"]
    return [f"{item['id']}: {item['nodes'][0]['html'][:200]}" for item in found]


@pytest.mark.parametrize("path", SCREENS)
def test_every_screen_is_accessible_in_both_colours(page: Page, url: str, path: str) -> None:
    answer = page.goto(url + path)
    assert answer is not None and answer.status == 200
    assert page.locator("h1").count() == 1
    assert violations(page) == []


def test_the_overview_moves_and_says_how_old_it_is(page: Page, url: str, mesh: Mesh) -> None:
    page.goto(url)
    page.get_by_text("Lag measured").wait_for()
    first = page.locator(".age [data-age]").get_attribute("data-age")
    page.wait_for_function(
        "before => document.querySelector('.age [data-age]').dataset.age !== before", arg=first
    )
    for name in ("intake", "enricher-ner", "joiner", "worker"):
        assert page.get_by_role("rowheader", name=name, exact=True).count() == 1


def test_a_review_tells_its_story(page: Page, url: str, mesh: Mesh) -> None:
    indexed(url, "edited", "Earlier revisions")
    page.goto(f"{url}/review?id=edited")
    assert page.locator("article > h2").count() == 2
    assert page.locator("article .text").first.inner_text().startswith("Bert")
    assert page.locator("article mark").first.inner_text().startswith("Bert")
    assert "text changed" in page.locator("article").first.inner_text()
    assert page.locator(".bars li").count() >= 10
    topics = page.get_by_role("region", name="Records").locator("tbody th").all_inner_texts()
    assert topics.count("reviews.raw") == topics.count("reviews.enriched") == 2
    assert violations(page) == []


def test_a_hostile_review_is_text(page: Page, url: str, mesh: Mesh) -> None:
    indexed(url, HOSTILE_ID, "<h2>Revision")
    page.goto(f"{url}/review?{urlencode({'id': HOSTILE_ID})}")
    assert "<script>window.owned=1</script>" in page.locator("article .text").inner_text()
    assert page.locator("#owned, main script, main img").count() == 0
    assert violations(page) == []


@pytest.mark.parametrize(("cause", "shown"), [("EMPTY", '"review_id": "blank"'), ("", "3c73")])
def test_dead_letters_are_listed_and_shown_as_far_as_they_can_be(
    page: Page, url: str, mesh: Mesh, cause: str, shown: str
) -> None:
    cause = cause or next(
        letter["cause"] for letter in mesh.dead_letters() if letter["cause"] != "EMPTY"
    )
    path = letter_of(url, cause)
    page.goto(f"{url}/dead-letters")
    page.get_by_role("link", name=f"intake {cause}").click()
    page.get_by_role("link", name=path.removeprefix("/dead-letters/"), exact=True).click()
    assert shown in page.locator("pre").inner_text()
    assert page.locator("main script, main img").count() == 0
    assert violations(page) == []


def test_letters_are_sent_again_once_also_on_a_double_click(
    page: Page, url: str, mesh: Mesh
) -> None:
    """A task fails for some reviews; what failed is sent again, twice, and comes out once more."""
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    tag = f"failing-{dark}"
    mesh.script(poison=[tag])
    mesh.publish([review(f"{tag}-{number}", f"Anna {tag}.") for number in range(5)])
    mesh.wait_for(lambda: len(letters_of(mesh, tag)) >= 5 * len(TASKS), 60, "all tasks failed")
    mesh.script()
    for stage, cause in {(letter["stage"], letter["cause"]) for letter in letters_of(mesh, tag)}:
        wanted = {"stage": stage, "cause": cause}
        page.goto(f"{url}/dead-letters/redrive?{urlencode(wanted)}")
        assert violations(page) == []
        form = {
            field.get_attribute("name") or "": field.input_value()
            for field in page.locator("form input").all()
        }
        for _ in range(2):
            answer = httpx.post(
                f"{url}/dead-letters/redrive", data=form, headers={"Origin": url}, timeout=SOON_S
            )
            assert answer.status_code == 200
        mesh.wait_for(lambda wanted=wanted: all_marked(url, wanted), 60, "all took effect")  # type: ignore[misc]
    # A letter is an accepted review, which all tasks answer: each took effect once.
    mine = [record for record in mesh.enriched() if record["review_id"].startswith(tag)]
    complete = Counter(record["review_id"] for record in mine if record["complete"])
    assert complete == {f"{tag}-{number}": len(TASKS) for number in range(5)}


def letters_of(mesh: Mesh, tag: str) -> list[dict[str, Any]]:
    return [letter for letter in mesh.dead_letters() if tag in (letter["review_id"] or "")]


def all_marked(url: str, wanted: dict[str, str]) -> bool:
    path = f"{url}/dead-letters/redrive?{urlencode(wanted)}"
    return "There is nothing to send" in httpx.get(path, timeout=SOON_S).text


def test_a_tail_shows_what_passes_its_filter_once_and_can_pause(
    page: Page, url: str, mesh: Mesh
) -> None:
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    tag = f"tail-{dark}"
    wanted = urlencode({"topic": "reviews.enriched", "containing": tag})
    with page.expect_response(lambda answer: "/tail?" in answer.url):
        page.goto(f"{url}/live?{wanted}")
    # The first records only show that it follows.
    started: list[int] = []

    def follows() -> bool:
        started.append(mesh.publish([review(f"{tag}-probe-{len(started)}", "Anna.")]))
        return page.locator("#tail tr").count() > 0

    wait_until(follows, SOON_S, "the tail follows")
    mesh.publish([review(f"{tag}-{number}", f"Anna {HOSTILE}") for number in range(20)])
    mesh.publish([review(f"other-{number}", "Anna.") for number in range(20)])
    page.get_by_role("link", name=f"{tag}-19", exact=True).wait_for()
    for number in range(20):
        page.get_by_role("link", name=f"{tag}-{number}", exact=True).wait_for()
    shown = page.locator("#tail a").all_inner_texts()
    assert len(set(shown)) == len(shown)
    assert not [name for name in shown if name.startswith("other")]
    page.get_by_role("button", name="Pause").click()
    assert page.get_by_role("button", name="Go on").get_attribute("aria-pressed") == "true"
    assert violations(page) == []


def test_a_wrong_condition_is_said(page: Page, url: str) -> None:
    page.goto(f"{url}/live?{urlencode({'where': 'mood = 5'})}")
    page.locator("#tail-state", has_text="field").wait_for()
    assert page.get_by_role("button", name="Go on").count() == 1, "it is not asked again"


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"Host": "evil.example"}, 421),
        ("POST", {"Origin": "http://evil.example"}, 403),
        ("POST", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", {}, 403),
    ],
)
def test_other_sites_are_refused(
    url: str, method: str, headers: dict[str, str], status: int
) -> None:
    assert httpx.request(method, url, headers=headers).status_code == status


def test_every_answer_forbids_other_sources(url: str) -> None:
    for path in (*SCREENS, "/static/console.js", "/nothing"):
        assert "default-src 'none'" in httpx.get(url + path).headers["content-security-policy"]


def test_a_first_screen_is_small(page: Page, url: str) -> None:
    page.goto(url)
    size = page.evaluate(
        "[...performance.getEntriesByType('navigation'), "
        "...performance.getEntriesByType('resource')]"
        ".reduce((sum, entry) => sum + entry.encodedBodySize, 0)"
    )
    assert 1_000 < size < 100_000


PROXY_SECRET = "the secret of a proxy"


@pytest.fixture(scope="module")
def signed(mesh: Mesh, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A second console, on every address, behind a proxy that signs people in; its own address."""
    shared = mesh.processes["console"].environment
    console = mesh.add("console", slot="signed")
    own = f"http://127.0.0.1:{free_port()}"
    console.environment |= {
        "REVIEWMESH_CONSOLE__HOST": "0.0.0.0",
        "REVIEWMESH_CONSOLE__PORT": own.rpartition(":")[2],
        "REVIEWMESH_CONSOLE__URL": own,
        "REVIEWMESH_CONSOLE__FOLDER": str(tmp_path_factory.mktemp("signed") / "index"),
        "REVIEWMESH_CONSOLE__ACTIONS": "true",
        "REVIEWMESH_CONSOLE__PROCESSES": shared["REVIEWMESH_CONSOLE__PROCESSES"],
        "REVIEWMESH_SIGNIN__PROXY_SECRET": PROXY_SECRET,
        "REVIEWMESH_SIGNIN__VIEWERS": "reads",
        "REVIEWMESH_SIGNIN__OPERATORS": "acts",
    }
    console.start()
    wait_until(console.is_ready, SOON_S, "the console behind the proxy is ready")
    yield own
    console.terminate()
    del mesh.processes["console/signed"]


def as_role(role: str) -> dict[str, str]:
    return {
        "X-Proxy-Secret": PROXY_SECRET,
        "X-Forwarded-User": f"who {role}",
        "X-Forwarded-Groups": role,
    }


def test_texts_are_hidden_from_viewers_on_every_screen(mesh: Mesh, signed: str) -> None:
    blank = next(letter for letter in mesh.dead_letters() if letter["cause"] == "EMPTY")
    query = {"id": "edited", "everywhere": "yes"}
    with httpx.Client(base_url=signed, timeout=SOON_S) as reads:
        wait_until(
            lambda: (
                "<h2>Revision" in reads.get("/review", params=query, headers=as_role("acts")).text
            ),
            SOON_S,
            "the review is indexed",
        )
        [place] = [
            part.partition('"')[0]
            for part in reads.get(
                "/dead-letters", params={"cause": "EMPTY"}, headers=as_role("acts")
            ).text.split('href="/dead-letters/')[1:]
            if part[0].isdigit()
        ]
        letter = f"/dead-letters/{place}"
        for path, params, hidden in (
            ("/review", query, "was here"),
            ("/review", {"id": "blank", "everywhere": "yes"}, blank["message"]),
            (letter, {}, "&#34;review_id&#34;: &#34;blank&#34;"),
            (letter, {}, blank["message"]),
            ("/dead-letters/redrive", {"place": place}, blank["message"]),
        ):
            shown = reads.get(path, params=params, headers=as_role("acts"))
            assert hidden in shown.text, (path, params)
            kept = reads.get(path, params=params, headers=as_role("reads"))
            assert kept.status_code == 200
            assert hidden not in kept.text, (path, params)


def test_a_tail_hides_texts_from_viewers(mesh: Mesh, signed: str) -> None:
    with httpx.stream("GET", f"{signed}/tail", headers=as_role("reads"), timeout=SOON_S) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: open"
        for number in range(20):
            mesh.publish([review(f"hidden-{number}", "Anna kept quiet.")])
            for line in lines:
                if line.startswith("data: ["):
                    [first, *_] = json.loads(line.removeprefix("data: "))
                    assert first["review_id"].startswith("hidden-")
                    assert first["text"] == "hidden from viewers"
                    return


def test_who_acted_is_in_the_log(mesh: Mesh, signed: str) -> None:
    form, path = {"stage": "intake", "cause": "EMPTY"}, f"{signed}/dead-letters/redrive"
    for role, status in (("reads", 403), ("acts", 200), ("nothing", 403)):
        headers = as_role(role) | {"Origin": signed}
        assert httpx.post(path, data=form, headers=headers, timeout=SOON_S).status_code == status
    lines = [json.loads(line) for line in mesh.processes["console/signed"].log.open()]
    audit = [line for line in lines if line["event"] == "audit"]
    assert [(line["who"], line["role"], line["outcome"]) for line in audit] == [
        ("who reads", "viewer", "refused"),
        ("who acts", "operator", "done"),
    ]
    assert audit[-1]["cause"] == "EMPTY"


def test_a_button_of_the_page_is_taken_for_its_own(page: Page, url: str, mesh: Mesh) -> None:
    """Browsers send an Origin with it, which the policy on referrers may take away."""
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    tag = f"pressed-{dark}"
    mesh.script(poison=[tag])
    mesh.publish([review(tag, f"Anna {tag}.")])
    mesh.wait_for(lambda: len(letters_of(mesh, tag)) == len(TASKS), 60, "all tasks failed")
    mesh.script()
    letter = letters_of(mesh, tag)[0]
    wanted = urlencode({"stage": letter["stage"], "cause": letter["cause"]})
    page.goto(f"{url}/dead-letters/redrive?{wanted}")
    page.get_by_role("button", name="again").click()
    page.get_by_role("status").get_by_text("sent.").wait_for()


def overview(url: str) -> str:
    return httpx.get(url, timeout=SOON_S).text


def test_what_is_away_is_named_until_it_is_back(url: str, mesh: Mesh) -> None:
    joiner = mesh.processes["joiner"]
    joiner.kill()
    wait_until(lambda: "joiner: does not answer" in overview(url), NAMED_WITHIN_S, "it is named")
    joiner.start()
    wait_until(lambda: "Not well" not in overview(url), SOON_S, "all is well again")


@pytest.mark.parametrize("name", ["registry", "broker"])
def test_without_broker_or_registry_the_last_values_stay(url: str, mesh: Mesh, name: str) -> None:
    mesh.stack.stop(name)
    wait_until(lambda: f"<li>{name}: " in overview(url), NAMED_WITHIN_S, f"{name} is named")
    answer = httpx.get(f"{url}/groups", timeout=SOON_S)
    assert answer.status_code == 200
    assert "reviewmesh-joiner" in answer.text
    mesh.stack.start(name)
    wait_until(lambda: f"<li>{name}: " not in overview(url), SOON_S, f"{name} is back")


def test_an_index_that_is_lost_is_made_again(mesh: Mesh, url: str, tmp_path: Path) -> None:
    console = mesh.processes["console"]
    assert console.terminate() == 0
    index = Path(console.environment["REVIEWMESH_CONSOLE__FOLDER"])
    shutil.move(index, tmp_path / "lost")
    console.start()
    mesh.wait_ready()
    indexed(url, "r-7", "<h2>Revision")


def test_a_kill_loses_nothing_of_the_index(mesh: Mesh, url: str) -> None:
    console = mesh.processes["console"]
    before = len(mesh.enriched())
    mesh.publish([review(f"killed-{number}", "Anna.") for number in range(200)])
    mesh.wait_for(lambda: len(mesh.enriched()) > before, SOON_S, "some are out")
    console.kill()
    mesh.wait_enriched(before + 200)
    console.start()
    mesh.wait_ready()
    for number in (0, 99, 199):
        indexed(url, f"killed-{number}", "<h2>Revision")


def test_it_listens_on_loopback_only(mesh: Mesh) -> None:
    console = mesh.processes["console"]
    elsewhere = mesh.add("console", slot="elsewhere")
    elsewhere.environment |= console.environment | {"REVIEWMESH_CONSOLE__HOST": "0.0.0.0"}
    elsewhere.start()
    assert elsewhere.wait() == 2
    assert "expected a loopback address" in elsewhere.log.read_text()
    del mesh.processes["console/elsewhere"]


def test_lines_of_a_tail_are_json(mesh: Mesh, url: str) -> None:
    """Nothing of a record can end an event, or begin another."""
    wanted = urlencode({"topic": "reviews.enriched", "containing": "lines-"})
    with httpx.stream("GET", f"{url}/tail?{wanted}", timeout=SOON_S) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "event: open"
        for number in range(20):
            mesh.publish([review(f"lines-{number}", "Anna.\n\nevent: lines\ndata: []\n\n")])
            if number == 0:
                continue
            for line in lines:
                if line.startswith("data: ["):
                    [first, *_] = json.loads(line.removeprefix("data: "))
                    assert first["review_id"].startswith("lines-")
                    return
