"""Which alerts would fire, judged from pictures of the mesh."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from reviewmesh.console.alerts import Alerts
from reviewmesh.console.processes import Processes, ProcessState, Sample
from reviewmesh.console.watch import Picture, Watch
from reviewmesh.lag.heads import Head
from reviewmesh.lag.meter import PartitionLag
from reviewmesh.query.lag import GroupLag
from reviewmesh.settings import Settings
from tests.unit.console.page import LOG, page, text_of

NOW = 1_800_000_000.0
HOSTILE = "<script>window.owned=1</script>"


def alerts() -> Alerts:
    return Alerts(Watch(Settings(), Processes({}), LOG), LOG)


def process(*samples: Sample, name: str = "intake", answers: bool = True) -> ProcessState:
    return ProcessState(name, "host:1", answers, "", NOW, answers=answers, samples=samples)


def told(of: Alerts) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for alert in of.shown:
        found.setdefault(alert.rule.name, []).append(alert.told)
    return found


def behind(seconds: float, commit_age_s: float = 0.0) -> PartitionLag:
    head = Head(5, int((NOW - seconds) * 1000), int((NOW - seconds) * 1000))
    return PartitionLag(
        *("reviewmesh-intake", "reviews.raw", 0, 5, 9, 4, 4, 5), head, NOW - commit_age_s
    )


def test_it_fires_once_it_was_true_for_long_enough_and_is_gone_when_it_is_over() -> None:
    found, silent = alerts(), Picture(processes=(process(answers=False),))
    found.look(silent, NOW)
    [first] = found.shown
    assert (first.told, first.fires_at) == ("intake at host:1 does not answer", NOW + 60)
    found.look(silent, NOW + 61)
    assert [alert.since for alert in found.shown] == [NOW]
    found.look(Picture(processes=(process(),)), NOW + 62)
    assert told(found) == {}
    found.look(silent, NOW + 63)
    assert [alert.since for alert in found.shown] == [NOW + 63]


def test_lag_commits_and_time_to_drain() -> None:
    found = alerts()
    rows = (behind(301, commit_age_s=301), replace(behind(10), topic="reviews.accepted"))
    slow = GroupLag("reviewmesh-intake", "reviews.raw", 4, 4, 301.0, 1.0, 1801.0)
    found.look(Picture(partitions=rows, groups=(slow,), measured_at=NOW), NOW)
    assert told(found) == {
        "LagSecondsHigh": ["reviewmesh-intake is 301 s behind"],
        "GroupStuck": [
            "reviewmesh-intake commits nothing on 1 partitions of reviews.raw though records wait"
        ],
        "DrainTooSlow": ["reviewmesh-intake needs 1,801 s for what waits now"],
    }


def test_a_tracer_that_is_behind_gets_nobody_up() -> None:
    found = alerts()
    tracer = "prod.reviewmesh-tracer"
    rows = (replace(behind(301, commit_age_s=301), group=tracer),)
    slow = GroupLag(tracer, "reviews.enriched", 4, 4, 301.0, 1.0, 1801.0)
    found.look(Picture(partitions=rows, groups=(slow,), measured_at=NOW), NOW)
    assert told(found) == {
        "TracesLate": [f"{tracer} is 301 s behind: traces come late, reviews do not"]
    }


@pytest.mark.parametrize(
    ("sample", "name", "words"),
    [
        (
            Sample("reviewmesh_workers_serving", {"task": "ner"}, 0.0),
            "WorkersMissing",
            "no inference worker serves ner",
        ),
        (
            Sample("reviewmesh_reviews_held_back", {"task": "ner", "reason": "policy"}, 3.0),
            "ReviewsHeldBack",
            "3 reviews wait for ner, and the fallback is not taken for them (policy)",
        ),
        (
            Sample("reviewmesh_stalled_partitions", {"service": "joiner"}, 2.0),
            "StandsStill",
            "joiner has records on 2 partitions and finishes none, for no reason outside",
        ),
        (
            Sample("reviewmesh_open_transaction_seconds", {"topic": "t", "partition": "0"}, 61.0),
            "TransactionLeftOpen",
            "a producer left a transaction open on t for 61 s: what comes after it is not read",
        ),
        (
            Sample("reviewmesh_lag_measurement_age_seconds", {}, 61.0),
            "LagNotMeasured",
            "the lag service has measured nothing whole for 61 s",
        ),
    ],
)
def test_what_processes_say_of_themselves(sample: Sample, name: str, words: str) -> None:
    found = alerts()
    found.look(Picture(processes=(process(sample),)), NOW)
    assert told(found) == {name: [words]}
    # What a process said before it fell silent counts no longer.
    found.look(Picture(processes=(process(sample, answers=False),)), NOW)
    assert name not in told(found)


def test_a_task_with_one_worker_that_serves_somewhere_is_served() -> None:
    metric = "reviewmesh_workers_serving"
    states = [process(Sample(metric, {"task": "ner"}, value), name=str(value)) for value in (0, 1)]
    found = alerts()
    found.look(Picture(processes=tuple(states)), NOW)
    assert told(found) == {}


def test_budgets_are_summed_over_processes() -> None:
    labels = {"task": "topic", "business": "all", "period": "day", "unit": "usd"}
    states = [
        process(
            Sample("reviewmesh_budget_used", labels, used),
            Sample("reviewmesh_budget_limit", labels, 10.0),
            name=str(used),
        )
        for used in (7.0, 9.5)
    ]
    found = alerts()
    found.look(Picture(processes=tuple(states)), NOW)
    assert told(found) == {
        "BudgetNearlySpent": ["82% of this day's budget of usd is used: topic all"]
    }


def dead(value: float) -> Picture:
    labels = {"stage": "intake", "cause": "EMPTY"}
    return Picture(processes=(process(Sample("reviewmesh_dead_letters_total", labels, value)),))


def test_what_rises_is_counted_within_its_time_and_over_a_restart() -> None:
    found = alerts()
    found.look(dead(1_000), NOW)
    assert told(found) == {}, "what was there before the console says nothing"
    found.look(dead(1_006), NOW + 10)
    found.look(dead(5), NOW + 20)
    assert told(found) == {
        "DeadLettersRising": ["11 dead letters of intake within 10 minutes, cause EMPTY"]
    }
    found.look(dead(5), NOW + 20 + 601)
    assert told(found) == {}


def test_the_overview_lists_them_pages_first(tmp_path: Path) -> None:
    client = page(tmp_path)
    assert "Nothing was measured yet." in text_of(client.get("/").text)
    found = alerts()
    held = Sample("reviewmesh_reviews_held_back", {"task": HOSTILE, "reason": "policy"}, 3.0)
    states = (process(held), process(name="joiner", answers=False))
    found.look(Picture(processes=states), NOW)
    answer = page(tmp_path / "with", alerts=found).get("/")
    said = text_of(answer.text)
    assert said.index("ServiceDown joiner at host:1 does not answer") < said.index(
        "ReviewsHeldBack"
    )
    assert "docs/lag.md#servicedown" in said
    assert HOSTILE not in answer.text
