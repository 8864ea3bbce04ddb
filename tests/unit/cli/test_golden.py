"""What commands print, kept as files: at 80 and 40 columns, into a pipe, and without colour.

To accept what is printed now: python -m tests.unit.cli.test_golden
"""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from reviewmesh.avro.acls import grants
from reviewmesh.avro.topics import load_topics
from reviewmesh.capacity.file import WorkerCapacity
from reviewmesh.capacity.replay import Moment, Replayed
from reviewmesh.cli import (
    acls,
    budget,
    capacity,
    contexts,
    cost,
    dlq,
    find,
    forget,
    lag,
    processes,
    reprocess,
    summary,
    topics,
)
from reviewmesh.cli.sequence import drawn
from reviewmesh.cli.terminal import PlainConsole
from reviewmesh.judge.rollout import Look
from reviewmesh.kafka.record import Record
from reviewmesh.lag.groups import WatchedGroup
from reviewmesh.lag.heads import Head
from reviewmesh.lag.meter import PartitionLag, Snapshot
from reviewmesh.local.probes import Health
from reviewmesh.local.supervision import ProcessStatus
from reviewmesh.loop.replays import Marks
from reviewmesh.query.budgets import lines_of as budget_lines
from reviewmesh.query.campaigns import Campaign, Status
from reviewmesh.query.cost import Costs, Total
from reviewmesh.query.deadletters import DeadLetter
from reviewmesh.query.forgetting import HeldRecord
from reviewmesh.query.reconciliation import Reconciliation
from reviewmesh.query.redrive import Plan, Planned, Stays
from reviewmesh.query.search import Occurrence
from tests.unit.cli.test_budget import BUDGETS, PERIODS, SPENT
from tests.unit.cli.test_cost import LARGE

GOLDEN = Path(__file__).parent / "golden"
WIDTHS = {"80": 80, "40": 40, "pipe": None}
NOW_MS = 1_796_000_000_000
LONG_ID = "https://reviews.example.org/hotels/7431/0f8b1d0e-5a4d-4c5e-9d0c-2b7f1f3f9a11"


def running() -> RenderableType:
    log = Path("/mesh/logs/x.log")
    found = [
        ProcessStatus("broker", "RUNNING", 4759, 0, 1_885.0, 27_383, log),
        ProcessStatus("worker", "RUNNING", 4_761_123, 2, 61.0, 28_797, log),
        ProcessStatus("enricher-sentiment", "RUNNING", 4765, 0, 360_000.0, 20_277, log),
        ProcessStatus("joiner", "STOPPED", None, 0, 0.0, 31_877, log),
    ]
    health = {
        "broker": Health(True, "ready"),
        "worker": Health(False, "hangs: /healthz gives no answer in 2 s"),
        "enricher-sentiment": Health(True, "ready; waits for a worker of sentiment"),
        "joiner": Health(False, "does not listen"),
    }
    return processes.table_of(found, health)


def snapshot() -> Snapshot:
    def row(group: str, topic: str, partition: int, backlog: int) -> PartitionLag:
        return PartitionLag(
            group=f"eu.reviewmesh-{group}",
            topic=f"eu.reviews.{topic}",
            partition=partition,
            committed=1_234_567 - backlog,
            end=1_234_567,
            lag=backlog,
            backlog=backlog,
            finished=0,
            head=Head(0, NOW_MS - 75_500, NOW_MS - 75_500) if backlog else None,
            commit_seen_at=NOW_MS / 1000 - 1,
        )

    rows = (row("intake", "raw", 0, 0), row("enricher-sentiment", "accepted", 11, 98_765))
    drain = {
        WatchedGroup(rows[0].group, "", ()): 0.0,
        WatchedGroup(rows[1].group, "", ()): math.inf,
    }
    return Snapshot(NOW_MS / 1000, rows, drain)


def occurrences() -> list[Occurrence]:
    def record(topic: str, offset: int) -> Record:
        return Record(topic, 3, offset, b"k", b"v", timestamp_ms=NOW_MS)

    refused = "intake INVALID of reviews.raw 3/123456: expected stars from 1 to 5 or none, got 9"
    return [
        Occurrence(record("reviews.raw", 123_456), "dead letter 3/17"),
        Occurrence(record("reviews.dead-letter", 17), refused),
        Occurrence(record("reviews.enriched", 4_294_967_295), "revision 2, ner TIMEOUT: slow"),
    ]


def held() -> list[HeldRecord]:
    raw, letter, enriched = occurrences()
    return [
        HeldRecord(raw, NOW_MS + 604_800_000, ""),
        HeldRecord(letter, None, "as long as the joiner waits for it"),
        HeldRecord(enriched, NOW_MS + 604_800_000, ""),
    ]


def listed_topics() -> RenderableType:
    contracts = load_topics().topics[:4]
    found = [
        topics.FoundTopic(contracts[0], "reviews.raw", 6, "", 3, 3),
        topics.FoundTopic(contracts[1], "reviews.accepted", 6, "", 3, 2),
        topics.FoundTopic(contracts[2], "reviews.ner", 2, "few", 3, 3),
        topics.FoundTopic(contracts[3], "reviews.topic", 0, "away", 0, 0),
    ]
    return topics.table_of(found)


def campaigns() -> RenderableType:
    campaign = Campaign(
        id="sentiment-20261130-1a2b3c4d",
        task="sentiment",
        where="model_version < 3",
        state="RUNNING",
        requests=1_000_000,
        enriched_since={},
        created_ms=NOW_MS,
    )
    return reprocess.table_of([Status(campaign, 1_000_000, 52_000, 51_000, 12)])


def replayed() -> RenderableType:
    """Of two tasks, one of which does not catch up."""
    caught = Replayed([Moment(0.0, 90.0, 12_345.0, 60.0, 16, 12)])
    caught.waited.update({0.5: 1_000_000.0, 61.0: 9_000.0})
    late = Replayed(caught.moments, unanswered=70_000.0, changes=[(0.0, 1), (9.0, -1)])
    late.waited.update({0.5: 930_000.0})
    found = [
        (
            WorkerCapacity(
                task=task,
                device="cpu",
                objective_s=1.0,
                reviews_per_s=20.0,
                p50_s=0.1,
                p95_s=0.4,
                dollars_per_hour=0.52,
            ),
            result,
        )
        for task, result in (("sentiment", caught), ("topic", late))
    ]
    return capacity.table_of(found, 1_000_000, 30.0)


def named_contexts() -> RenderableType:
    several = "b1.kafka.example.org:9093,b2.kafka.example.org:9093"
    others = {"REVIEWMESH_KAFKA__SASL_PASSWORD_FILE": "/run/secrets/kafka"}
    everything: dict[str, dict[str, str]] = {
        "local": {},
        "production-eu": {contexts.BOOTSTRAP: several, **others},
    }
    shown: RenderableType = contexts.table_of(everything, "production-eu")
    return shown


class Demo:
    """What is known of two reviews of which one is enriched."""

    published: ClassVar = {(0, 1), (0, 2)}
    duplicates: ClassVar[set[tuple[int, int]]] = set()
    dead_letters: ClassVar[list[dict[str, Any]]] = [{}]

    @staticmethod
    def ours() -> list[dict[str, Any]]:
        names = ("origin_at", "accepted_at", "ner_at", "topic_at", "sentiment_at", "enriched_at")
        return [{"timings": {name: at for at, name in enumerate(names, start=1_000)}}]


class Sequence:
    """As `rollout status` draws it below a metric."""

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        looks = [
            Look(NOW_MS + at * 60_000, "canary", "labels", "all", 10**at, middle, low, high)
            for at, (low, middle, high) in enumerate([(-0.4, 0.1, 0.7), (-0.1, 0.02, 0.2)], 3)
        ]
        for line in drawn(looks, 0.05, min(options.max_width, 200)):
            yield Text(line)


def letters() -> list[DeadLetter]:
    def letter(offset: int, age_s: int, stage: str, cause: str, message: str) -> DeadLetter:
        content: dict[str, Any] = {
            "topic": "reviews.raw" if stage == "intake" else "reviews.accepted",
            "partition": 3,
            "review_id": LONG_ID if offset else "r-1",
            "stage": stage,
            "cause": cause,
            "message": message,
            "key": b"k",
            "value": b"v",
            "headers": [],
        }
        return DeadLetter(3, offset, NOW_MS - age_s * 1000, content)

    return [
        letter(0, 5, "intake", "EMPTY", "expected a text with something to read, got none"),
        letter(1_234_567, 400_000, "enrich.sentiment", "FAILED", "the worker says: no memory"),
    ]


def planned() -> RenderableType:
    first, second = letters()
    return dlq.plan_table(
        Plan((Planned(first, Stays.HOPELESS, "expected a text"), Planned(second)))
    )


SHOWN: dict[str, Callable[[], RenderableType]] = {
    "ps": running,
    "lag": lambda: lag.partitions_table(snapshot(), "eu.", NOW_MS / 1000),
    "lag-watch": lambda: lag.live_table(snapshot(), "eu.", NOW_MS / 1000),
    "demo": lambda: summary.closing_table(cast(Reconciliation, Demo())),
    "context-list": named_contexts,
    "capacity-replay": replayed,
    "rollout-status": Sequence,
    "find": lambda: find.table_of(occurrences()),
    "forget": lambda: forget.table_of(held()),
    "topics-list": listed_topics,
    "topics-acls": lambda: acls.table_of(grants("")[:12]),
    "budget": lambda: budget.table_of(list(budget_lines(PERIODS, BUDGETS, SPENT))),
    "cost": lambda: cost.table_of(
        Costs(
            ("task", "model", "route"),
            {("sentiment", "gpt-4.1-mini-2025-04-14", "fallback"): Total(99_999, 5, LARGE)},
        )
    ),
    "reprocess-status": campaigns,
    "dlq-list": lambda: dlq.table_of(letters(), Marks(), NOW_MS),
    "dlq-replay": planned,
}


def printed(name: str, width: int | None) -> str:
    console = PlainConsole()
    if width is not None:
        console.width = width
    console.file = io.StringIO()
    console.print(SHOWN[name]())
    return console.file.getvalue()


def lines_of(shown: str) -> str:
    """Without the blanks that fill the last column."""
    return "".join(f"{line.rstrip()}\n" for line in shown.splitlines())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SHOWN)
def test_tables_are_whole_and_as_kept(name: str, width: str) -> None:
    shown = lines_of(printed(name, WIDTHS[width]))
    assert shown == (GOLDEN / f"{name}.{width}.txt").read_text()
    assert max(map(len, shown.splitlines())) <= (WIDTHS[width] or 10_000)
    # Every cell of the pipe is on the narrowest terminal as well, wherever it is wrapped.
    rest = Counter("".join(printed(name, None).splitlines()[1:]).replace(" ", ""))
    assert not rest - Counter("".join(shown.split()))


# A drawing has no colour.
@pytest.mark.parametrize("name", sorted(SHOWN.keys() - {"rollout-status"}))
def test_a_terminal_has_colour_and_with_no_color_it_has_none(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b" not in printed(name, None)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[" in printed(name, 80)
    monkeypatch.setenv("NO_COLOR", "1")
    for codes in re.findall(r"\x1b\[([0-9;]*)m", printed(name, 80)):
        # Bold, dim and their end are no colours.
        assert set(codes.split(";")) <= {"", "0", "1", "2", "3"}, codes


def accept() -> None:
    for name in SHOWN:
        for width, columns in WIDTHS.items():
            (GOLDEN / f"{name}.{width}.txt").write_text(lines_of(printed(name, columns)))


if __name__ == "__main__":
    accept()
