"""Commands for rollouts and campaigns: who may give them, what is asked first, what is refused."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reviewmesh.console import campaign_actions
from reviewmesh.console.acting import ACTIONS, FIELDS_AT_MOST, LARGEST_FORM
from reviewmesh.console.campaign_actions import CampaignCommand, Steering
from reviewmesh.console.campaigns import CampaignShown
from reviewmesh.enrich.campaigns import CANCELLED, PAUSED, RUNNING
from reviewmesh.enrich.rollouts import CANARY, DONE, READY
from reviewmesh.judge.rollout import ABORT, ADVANCE, RolloutRecord
from reviewmesh.query.campaigns import Campaign
from reviewmesh.query.errors import NotCarriedOut
from reviewmesh.query.steering import CANCEL, PAUSE, RESUME
from tests.unit.console.page import kept, text_of
from tests.unit.console.test_campaigns import campaign, status
from tests.unit.console.test_rollouts import HOSTILE, RECORD
from tests.unit.console.test_signin import PROXY, URL, TestConsole, through_proxy

ROLLOUT = {"task": "topic", "epoch": "4"}
CAMPAIGN = {"campaign": "topic-1", "state": RUNNING}
# Path, form, the name in the audit, and the roles that may.
COMMANDS: list[Any] = [
    ("/rollouts/advance", ROLLOUT, "advance rollout", ("owner",)),
    ("/rollouts/abort", ROLLOUT, "abort rollout", ("operator", "owner")),
    ("/campaigns/pause", CAMPAIGN, "pause campaign", ("operator", "owner")),
    ("/campaigns/resume", CAMPAIGN, "resume campaign", ("operator", "owner")),
    ("/campaigns/cancel", CAMPAIGN, "cancel campaign", ("operator", "owner")),
]
PATHS = [(path, form) for path, form, _, _ in COMMANDS]


def shown(state: str = RUNNING, published: int = 10, **more: str) -> CampaignShown:
    one = campaign(state, **more)
    return CampaignShown(one, status(one, published), None)


def console(
    folder: Path,
    *epochs: RolloutRecord,
    campaigns: tuple[CampaignShown, ...] = (),
    actions: bool = True,
) -> TestConsole:
    given = {
        "rollouts": kept({"topic": list(epochs or (RECORD,))}),
        "campaigns": kept(list(campaigns or (shown(),))),
    }
    return TestConsole(folder, given=given, console={"actions": actions}, signin=PROXY)


def get(on: TestConsole, path: str, role: str = "owner", **query: str) -> str:
    answer = on.browser.get(path, params=query, headers=through_proxy(role))
    assert answer.status_code == 200, answer.text
    return answer.text


def post(on: TestConsole, path: str, form: Any, role: str = "owner", origin: str = URL) -> Any:
    return on.browser.post(path, data=form, headers={"Origin": origin, **through_proxy(role)})


# -- who may ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "form", "name", "roles"), COMMANDS)
@pytest.mark.parametrize("role", ["viewer", "operator", "owner"])
def test_each_role_may_do_what_is_its_own(
    tmp_path: Path, path: str, form: dict[str, str], name: str, roles: tuple[str, ...], role: str
) -> None:
    """Who may finds the broker away."""
    on = console(tmp_path)
    answer = post(on, path, form, role)
    if role in roles:
        assert answer.status_code == 503
        assert on.audit == [(name, "failed", "bert", role)]
        told = {key: on.logged.entries[-1][key] for key in form if key != "state"}
        assert told == {key: int(form[key]) if key == "epoch" else form[key] for key in told}
    else:
        assert answer.status_code == 403
        assert f"your role is {role}" in answer.text
        assert on.audit == [(name, "refused", "bert", role)]


@pytest.mark.parametrize(("path", "form"), PATHS)
def test_without_actions_nobody_acts(tmp_path: Path, path: str, form: dict[str, str]) -> None:
    on = console(tmp_path, actions=False)
    answer = post(on, path, form)
    assert answer.status_code == 403
    assert "REVIEWMESH_CONSOLE__ACTIONS" in answer.text
    said = get(on, path, **form)
    assert "<button" not in said.partition("<main")[2]
    words = {"rollouts": "rollout", "campaigns": "reprocess"}[path.split("/")[1]]
    assert f"<code>reviewmesh {words} {path.rpartition('/')[2]} " in said
    for screen in ("/rollouts", "/campaigns"):
        assert 'class="offers"' not in get(on, screen)


@pytest.mark.parametrize(("path", "form"), PATHS)
@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_posts_of_other_sites_are_refused(
    tmp_path: Path, path: str, form: dict[str, str], origin: str
) -> None:
    on = console(tmp_path)
    answer = post(on, path, form, origin=origin)
    assert answer.status_code == 403
    assert "from this page itself" in answer.text
    assert on.audit == []


@pytest.mark.parametrize(
    ("role", "rollouts", "campaigns"),
    [
        ("viewer", [], []),
        ("operator", [ABORT], [PAUSE, CANCEL]),
        ("owner", [ADVANCE, ABORT], [PAUSE, CANCEL]),
    ],
)
def test_screens_offer_what_a_role_may_do(
    tmp_path: Path, role: str, rollouts: list[str], campaigns: list[str]
) -> None:
    on = console(tmp_path)
    for screen, wanted in (("rollouts", rollouts), ("campaigns", campaigns)):
        assert re.findall(rf'href="/{screen}/(\w+)\?', get(on, f"/{screen}", role)) == wanted


def test_actions_of_all_screens_count_towards_the_limit(tmp_path: Path) -> None:
    on = console(tmp_path, campaigns=(shown(published=1_000),))
    answers = {post(on, "/campaigns/pause", CAMPAIGN).status_code for _ in range(ACTIONS)}
    assert answers == {409}
    assert post(on, "/rollouts/abort", ROLLOUT).status_code == 429
    assert on.audit[-1] == ("abort rollout", "refused", "bert", "owner")


# -- what is no command of this page ---------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "form", "words"),
    [
        ("/rollouts/abort", {"epoch": "4"}, "expected task to be one of ner, topic, sentiment"),
        ("/rollouts/abort", ROLLOUT | {"task": HOSTILE}, "expected task to be one of"),
        ("/rollouts/advance", {"task": "topic"}, "expected the epoch"),
        ("/rollouts/advance", ROLLOUT | {"epoch": "-1"}, "expected the epoch"),
        ("/rollouts/advance", ROLLOUT | {"epoch": "٤"}, "expected the epoch"),
        ("/rollouts/advance", ROLLOUT | {"epoch": "9" * 16}, "expected the epoch"),
        ("/campaigns/pause", {"state": RUNNING}, "expected the name of a campaign"),
        ("/campaigns/pause", CAMPAIGN | {"campaign": "x" * 201}, "expected the name"),
        ("/campaigns/cancel", {"campaign": "topic-1"}, "expected the state"),
        ("/campaigns/cancel", CAMPAIGN | {"state": HOSTILE}, "expected the state"),
    ],
)
def test_a_wrong_choice_is_refused_in_words(
    tmp_path: Path, path: str, form: dict[str, str], words: str
) -> None:
    on = console(tmp_path)
    for answer in (
        post(on, path, form),
        on.browser.get(path, params=form, headers=through_proxy("owner")),
    ):
        assert answer.status_code == 400
        assert words in text_of(answer.text)
        assert HOSTILE not in answer.text


@pytest.mark.parametrize(
    "form",
    [{str(number): "x" for number in range(FIELDS_AT_MOST + 1)}, {"task": "x" * LARGEST_FORM}],
)
def test_a_form_that_is_too_large_is_refused(tmp_path: Path, form: dict[str, str]) -> None:
    assert post(console(tmp_path), "/rollouts/abort", form).status_code == 400


@pytest.mark.parametrize("path", ["/rollouts/promote", "/campaigns/begin"])
def test_there_is_no_other_command(tmp_path: Path, path: str) -> None:
    assert post(console(tmp_path), path, ROLLOUT | CAMPAIGN).status_code == 404


def test_an_unknown_campaign_is_not_found(tmp_path: Path) -> None:
    on = console(tmp_path)
    answer = post(on, "/campaigns/pause", CAMPAIGN | {"campaign": HOSTILE})
    assert answer.status_code == 404
    assert HOSTILE not in answer.text
    assert on.audit == [("pause campaign", "failed", "bert", "owner")]


# -- what is asked first ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "record", "words"),
    [
        (ABORT, RECORD, "the task's own workers answer all of them"),
        (ADVANCE, RECORD, "Next, the candidate answers 1 % of the reviews."),
        (
            ADVANCE,
            replace(RECORD, state=CANARY, step=0),
            "Next, the candidate answers 50 % of the reviews.",
        ),
        (ADVANCE, replace(RECORD, state=CANARY, step=1), "Next, it is ready: it may be promoted."),
        (ADVANCE, replace(RECORD, state=READY, step=1), "promote it first"),
        (ADVANCE, replace(RECORD, bounds='{"pairs": 1}'), "The judge would refuse it"),
    ],
)
def test_a_page_says_what_would_happen_to_a_rollout(
    tmp_path: Path, action: str, record: RolloutRecord, words: str
) -> None:
    on = console(tmp_path, record)
    page = get(on, f"/rollouts/{action}", **ROLLOUT)
    assert words in text_of(page)
    assert f"<button>{action.capitalize()} the rollout of topic</button>" in page
    assert '<input type="hidden" name="epoch" value="4">' in page
    assert on.audit == [], "nothing was done"


@pytest.mark.parametrize(
    "record", [replace(RECORD, epoch=5), replace(RECORD, state=DONE), replace(RECORD, epoch=3)]
)
@pytest.mark.parametrize("action", [ADVANCE, ABORT])
def test_what_changed_since_its_page_has_no_button(
    tmp_path: Path, action: str, record: RolloutRecord
) -> None:
    page = get(console(tmp_path, record), f"/rollouts/{action}", **ROLLOUT)
    assert "It is not as the page showed it when you chose this, at epoch 4." in text_of(page)
    assert "<button" not in page


def test_a_task_without_a_rollout_has_no_button(tmp_path: Path) -> None:
    page = get(console(tmp_path), "/rollouts/abort", task="ner", epoch="0")
    assert "It is no rollout." in text_of(page) and "<button" not in page


@pytest.mark.parametrize(
    ("action", "state", "words"),
    [
        (PAUSE, RUNNING, "No further review is taken up"),
        (RESUME, PAUSED, "Requests that were not sent yet are sent"),
        (CANCEL, PAUSED, "It cannot go on again"),
    ],
)
def test_a_page_says_what_would_happen_to_a_campaign(
    tmp_path: Path, action: str, state: str, words: str
) -> None:
    on = console(tmp_path, campaigns=(shown(state),))
    page = get(on, f"/campaigns/{action}", campaign="topic-1", state=state)
    assert words in text_of(page)
    assert "10 of 1,000 reviews are done" in text_of(page)
    assert f"<button>{action.capitalize()} topic-1</button>" in page
    assert f'<input type="hidden" name="state" value="{state}">' in page
    assert on.audit == [], "nothing was done"


@pytest.mark.parametrize(
    "now", [shown(PAUSED), shown(CANCELLED), shown(published=1_000)], ids=lambda item: item.state
)
def test_a_campaign_that_changed_since_has_no_button(tmp_path: Path, now: CampaignShown) -> None:
    page = get(console(tmp_path, campaigns=(now,)), "/campaigns/pause", **CAMPAIGN)
    assert "It is not as the page showed it when you chose this, running." in text_of(page)
    assert "<button" not in page


def test_one_that_is_over_is_left_as_it_is(tmp_path: Path) -> None:
    on = console(tmp_path, campaigns=(shown(published=1_000),))
    answer = post(on, "/campaigns/cancel", CAMPAIGN)
    assert answer.status_code == 409
    assert "Nothing was done: topic-1 is over." in text_of(answer.text)
    assert on.audit == [("cancel campaign", "refused", "bert", "owner")]


@pytest.mark.parametrize("role", ["viewer", "operator"])
def test_who_may_not_is_told_who_may(tmp_path: Path, role: str) -> None:
    page = get(console(tmp_path), "/rollouts/advance", role, **ROLLOUT)
    assert f"An owner may do this; your role is {role}." in text_of(page)
    assert "<button" not in page


def test_names_are_text(tmp_path: Path) -> None:
    on = console(tmp_path, replace(RECORD, rollout=HOSTILE), campaigns=(shown(name=HOSTILE),))
    assert HOSTILE not in get(on, "/campaigns/pause", campaign=HOSTILE, state=RUNNING)
    assert HOSTILE not in get(on, "/rollouts/abort", **ROLLOUT)
    assert HOSTILE not in get(on, "/campaigns")


# -- a campaign whose requests are being sent ------------------------------------------------


class _NoMesh:
    def connection(self) -> None:
        return None


def test_what_is_being_sent_is_not_sent_beside_it_but_may_be_paused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second press while the first one still sends."""
    one = Campaign("topic-1", "topic", "", PAUSED, 9, {}, int(time.time() * 1000))
    begun, go_on, steered = threading.Event(), threading.Event(), []

    def steer(connection: Any, name: str, command: str, seen: str) -> Campaign:
        steered.append(command)
        return replace(one, state=RUNNING if command == RESUME else PAUSED)

    def send_rest(connection: Any, sent: Campaign) -> int:
        begun.set()
        assert go_on.wait(30)
        return 3

    monkeypatch.setattr(campaign_actions, "steer", steer)
    monkeypatch.setattr(campaign_actions, "send_rest", send_rest)
    mesh: Any = _NoMesh()
    steering = Steering(mesh)
    came_of: list[Any] = []
    resume = CampaignCommand(RESUME, "topic-1", PAUSED)
    first = threading.Thread(target=lambda: came_of.append(steering.carry_out(resume)))
    first.start()
    assert begun.wait(30)
    with pytest.raises(NotCarriedOut, match="are being sent"):
        steering.carry_out(resume)
    paused = steering.carry_out(CampaignCommand(PAUSE, "topic-1", RUNNING))
    assert paused == {"state": PAUSED}
    go_on.set()
    first.join(30)
    assert came_of == [{"state": RUNNING, "sent": 3}]
    assert steering.carry_out(resume) == {"state": RUNNING, "sent": 3}
    assert steered == [RESUME, PAUSE, RESUME]
