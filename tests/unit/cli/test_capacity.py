"""`reviewmesh capacity replay`, `query`, `alerts`, `values`: what they print and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from typer.testing import CliRunner

from reviewmesh.cli.app import app
from reviewmesh.cli.errors import CommandFailed
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.kafka.record import Record
from reviewmesh.query import arrivals
from reviewmesh.query.errors import NotFound
from reviewmesh_schemas.names import ACCEPTED

CAPACITY = """\
version: 1
workers:
- {task: topic, device: H200, objective_s: 2, reviews_per_s: 50, p50_s: 0.4, p95_s: 1.5,
   start_s: 60, dollars_per_hour: 2.5}
- {task: ner, device: H200, objective_s: 2, reviews_per_s: 100, p50_s: 0.4, p95_s: 1.5}
- {task: ner, device: 4 cores, objective_s: 2, reviews_per_s: 5, p50_s: 0.4, p95_s: 1.5}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "capacity.yaml").write_text(CAPACITY)
    # Two a second for two hours, and a hundred for ten minutes of them.
    counts = ["6000" if 30 <= minute < 40 else "120" for minute in range(120)]
    (tmp_path / "day.txt").write_text("\n".join(counts))
    return tmp_path


def capacity(folder: Path, *words: str) -> str:
    done = CliRunner().invoke(
        app, ["capacity", *words, "--capacity", str(folder / "capacity.yaml")]
    )
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == (2 if "Usage:" in done.output else 0), done.output
    return " ".join(done.output.replace("│", " ").split())


def test_a_replay_tells_each_task_and_draws_it(folder: Path) -> None:
    told = capacity(
        folder,
        *("replay", str(folder / "day.txt"), "--device", "H200", "--objective-s", "300"),
        *("--plot", str(folder / "day.svg"), "--csv", str(folder / "day.csv")),
    )
    assert "figure topic ner" in told
    assert "reviews 73,200 73,200" in told
    assert "p99 within 300 s yes yes" in told
    # The second has no price: that is not 0.
    assert "US dollars" in told and told.split("US dollars ")[1].split()[1] == "-"
    for task in ("topic", "ner"):
        ElementTree.parse(folder / f"day.{task}.svg")
        assert len((folder / f"day.{task}.csv").read_text().splitlines()) >= 480


def test_a_replay_is_json_when_asked(folder: Path) -> None:
    words = ("--device", "H200", "--json")
    told = capacity(folder, "replay", str(folder / "day.txt"), *words)
    first, second = (json.loads(f"{line}}}") for line in told.rstrip("}").split("} "))
    assert (first["task"], first["reviews"], second["task"]) == ("topic", 73_200, "ner")
    assert first["usd"] > 0 and second["usd"] is None
    assert first["waited_s_p50"] <= first["waited_s_p99"] <= first["waited_s_p100"]


def test_a_missed_objective_is_a_failure(folder: Path) -> None:
    words = ("--task", "ner", "--device", "4 cores", "--objective-s", "10", "--max-replicas", "2")
    with pytest.raises(CommandFailed, match="wait longer than 10 s: ner"):
        capacity(folder, "replay", str(folder / "day.txt"), *words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["replay", "--task", "topic"], "expected a file of arrivals, or --from-topic"),
        (
            ["replay", "day.txt", "--task", "topic", "--from-topic"],
            "expected a file of arrivals, or --from-topic",
        ),
        (["replay", "day.txt", "--task", "topic", "--since", "1d ago"], "go with --from-topic"),
        (["replay", "day.txt"], "expected --device, one of 4 cores, H200"),
        (["replay", "day.txt", "--task", "mood"], "expected one of ner, topic, sentiment"),
        (["replay", "day.txt", "--task", "sentiment"], "has no such entry"),
        (
            ["replay", "day.txt", "--task", "topic", "--min-replicas", "5"],
            "expected min_replicas of 1 or more and at most max_replicas, got 5 and 4",
        ),
        (["replay", "bad.txt", "--device", "H200"], "bad.txt:2: expected a count of reviews"),
        (["query", "--task", "ner"], "expected --device"),
    ],
)
def test_what_is_not_clear_is_refused(
    folder: Path, words: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    Path("bad.txt").write_text("1\n1,000\n")
    assert expected in capacity(folder, *words)


def test_query_and_values_are_of_the_measured_rate(folder: Path) -> None:
    query = capacity(folder, "query", "--task", "topic", "--backlog-s", "30")
    assert "/ 30) / 40)" in query and 'group="reviewmesh-enricher-topic"' in query
    values = CliRunner().invoke(
        app,
        [
            *("capacity", "values", "--group", "large", "--task", "topic"),
            *("--capacity", str(folder / "capacity.yaml")),
        ],
    )
    assert yaml.safe_load(values.output) == {
        "workers": {
            "large": {
                "scaling": {"enabled": True, "reviewsPerSecond": {"topic": 50.0}},
                "startSeconds": 60,
            }
        }
    }


def test_alerts_are_rules_for_each_task_of_the_file(folder: Path) -> None:
    done = CliRunner().invoke(
        app,
        [
            *("capacity", "alerts", "--device", "H200", "--objective-s", "90"),
            *("--max-replicas", "6", "--capacity", str(folder / "capacity.yaml")),
        ],
    )
    [group] = yaml.safe_load(done.output)["groups"]
    found = {(rule["alert"], rule["labels"]["task"]): rule["expr"] for rule in group["rules"]}
    assert found.keys() == {
        (alert, task)
        for alert in ("WorkersExceeded", "WaitObjectiveBurns")
        for task in ("ner", "topic")
    }
    assert found["WorkersExceeded", "topic"].endswith(" > 6")
    assert "> bool 90)[1h:15s]" in found["WaitObjectiveBurns", "ner"]


def counted(
    monkeypatch: pytest.MonkeyPatch,
    times_ms: list[int],
    since_ms: int | None = None,
    until_ms: int | None = None,
) -> tuple[int, list[int]]:
    """The steps of ten seconds of records with these times."""
    place = MeshPartition(ACCEPTED, 0)
    records = [
        Record(ACCEPTED, 0, offset, b"k", b"v", (), at) for offset, at in enumerate(times_ms)
    ]
    monkeypatch.setattr(arrivals, "partitions_of", lambda connection, topic: [place])
    monkeypatch.setattr(arrivals, "offsets", lambda *arguments: {place: len(records)})
    monkeypatch.setattr(arrivals, "read_until", lambda *arguments: iter(records))
    return arrivals.accepted_by_step(None, 10_000, since_ms, until_ms)  # type: ignore[arg-type]


def test_accepted_reviews_are_counted_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [20_000, 29_999, 30_000, 61_000, 12_345, 79_999]
    # The steps without reviews are there, too.
    assert counted(monkeypatch, times) == (10_000, [1, 2, 1, 0, 0, 1, 1])
    assert counted(monkeypatch, times, 20_000, 61_000) == (20_000, [2, 1])


def test_a_step_that_is_not_over_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert counted(monkeypatch, [20_000, 25_000, 31_000]) == (20_000, [2])
    # But not the only one.
    assert counted(monkeypatch, [20_000, 25_000]) == (20_000, [2])
    with pytest.raises(NotFound):
        counted(monkeypatch, [])
