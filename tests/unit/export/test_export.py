"""Exports of a topic in memory to a folder: what readers see after each run."""

from __future__ import annotations

from pathlib import Path

import pytest

from reviewmesh.export.errors import AnotherExport, ExportEnds
from reviewmesh.export.run import ExportRun, Outcome
from reviewmesh.export.store import Store
from tests.export_reading import VIEWS, by_manifest, manifest, there
from tests.unit.export.reviews import Topic

FORMATS = ("parquet", "jsonl")


def run(folder: Path, topic: Topic, format_name: str | None = None) -> Outcome:
    return ExportRun(Store(str(folder)), topic, format_name)()


def seen(folder: Path, view: str = "full") -> dict[str, int]:
    rows = by_manifest(folder, view)
    found = {row["review_id"]: row["revision"] for row in rows}
    assert len(found) == len(rows), "a review is there twice"
    return found


def assert_holds(folder: Path, topic: Topic) -> None:
    for view in VIEWS:
        assert seen(folder, view) == topic.latest()
        assert sorted(row["revision"] for row in there(folder, view)) == sorted(
            topic.latest().values()
        )


@pytest.mark.parametrize("format_name", FORMATS)
def test_each_review_once_in_its_latest_revision(tmp_path: Path, format_name: str) -> None:
    topic = Topic()
    for number in range(20):
        topic.publish(number, day=number % 3)
    run(tmp_path, topic, format_name)
    assert_holds(tmp_path, topic)
    for number in range(5):
        topic.publish(number, day=4)
    topic.publish(1, day=5)
    topic.publish(30)
    outcome = run(tmp_path, topic)
    assert (outcome.read, outcome.superseded) == (7, 5)
    assert_holds(tmp_path, topic)
    days = {file["day"] for file in manifest(tmp_path)["files"]}
    assert {path.name for path in (tmp_path / "full").iterdir()} >= {f"day={day}" for day in days}


@pytest.mark.parametrize("format_name", FORMATS)
def test_an_erased_review_leaves_no_trace(tmp_path: Path, format_name: str) -> None:
    topic = Topic()
    topic.publish(1, text="the secret of one")
    topic.publish(2)
    run(tmp_path, topic, format_name)
    topic.publish(1, erased=True)
    run(tmp_path, topic)
    assert_holds(tmp_path, topic)
    assert set(seen(tmp_path)) == {"r-2"}
    assert not any("secret" in str(row) for view in VIEWS for row in there(tmp_path, view))
    topic.publish(1)
    run(tmp_path, topic)
    assert_holds(tmp_path, topic)


def test_a_run_without_news_changes_nothing_for_readers(tmp_path: Path) -> None:
    topic = Topic()
    run(tmp_path, topic)
    assert manifest(tmp_path)["files"] == []
    topic.publish(1)
    run(tmp_path, topic)
    before = (tmp_path / "manifest.json").read_bytes()
    outcome = run(tmp_path, topic)
    assert (tmp_path / "manifest.json").read_bytes() == before
    assert outcome.read == 0
    assert outcome.published is not None and len(outcome.published.parts) == 1


def test_small_parts_of_a_day_are_put_together(tmp_path: Path) -> None:
    topic = Topic()
    for number in range(30):
        topic.publish(number)
        run(tmp_path, topic)
    assert_holds(tmp_path, topic)
    assert len(manifest(tmp_path)["files"]) <= 8


def test_what_retention_deleted_before_is_said(tmp_path: Path) -> None:
    topic = Topic(partitions=1)
    for number in range(10):
        topic.publish(number)
    topic.first = [3]
    assert run(tmp_path, topic).is_whole, "what an export never saw is no gap"
    for number in range(10, 20):
        topic.publish(number)
    topic.first = [12]
    outcome = run(tmp_path, topic)
    assert outcome.gaps == {0: (10, 12)}
    assert not outcome.is_whole
    assert run(tmp_path, topic).is_whole


def test_a_topic_that_was_created_again_is_exported_from_its_beginning(tmp_path: Path) -> None:
    old, new = Topic(topic_id=7), Topic(topic_id=8)
    for number in range(4):
        old.publish(number)
    run(tmp_path, old)
    new.publish(1)
    outcome = run(tmp_path, new)
    assert outcome.topic_is_new
    assert seen(tmp_path) == old.latest() | new.latest()


def test_a_topic_that_lost_records_ends_the_export(tmp_path: Path) -> None:
    topic = Topic(partitions=1)
    topic.publish(1)
    topic.publish(2)
    run(tmp_path, topic)
    topic.logs[0].pop()
    with pytest.raises(ExportEnds, match="exported up to offset 2, and the topic ends at 1"):
        run(tmp_path, topic)


def test_another_format_or_another_mesh_is_refused(tmp_path: Path) -> None:
    topic = Topic()
    run(tmp_path, topic, "jsonl")
    with pytest.raises(ExportEnds, match="holds jsonl, and --format says parquet"):
        run(tmp_path, topic, "parquet")
    topic.topic = "other.reviews.enriched"
    with pytest.raises(ExportEnds, match=r"holds reviews of reviews\.enriched"):
        run(tmp_path, topic)


def test_of_two_runs_the_later_one_goes_on(tmp_path: Path) -> None:
    topic = Topic()
    topic.publish(1)
    earlier = ExportRun(Store(str(tmp_path)), topic)
    run(tmp_path, topic)
    topic.publish(2)
    with pytest.raises(AnotherExport, match="Run one at a time"):
        earlier()
    run(tmp_path, topic)
    assert_holds(tmp_path, topic)


def test_files_of_others_stay(tmp_path: Path) -> None:
    strange = [tmp_path / "full" / "notes.txt", tmp_path / "flat" / "day=1" / "part-1.parquet"]
    for path in strange:
        path.parent.mkdir(parents=True)
        path.write_text("mine")
    topic = Topic()
    topic.publish(1)
    run(tmp_path, topic)
    assert all(path.read_text() == "mine" for path in strange)
