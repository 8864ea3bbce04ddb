"""Labelled rows of a rollout, and what is said of those that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reviewmesh.query import labelled_rows
from reviewmesh.query.labelled_rows import RowsProblem, read_labelled


def written(folder: Path, *rows: Any) -> Path:
    file = folder / "gold.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("task", "row", "right"),
    [
        ("sentiment", {"text": "a\u2028b", "sentiment": "mixed"}, ["mixed"]),
        ("topic", {"text": "x", "topics": [{"topic": "b"}, {"topic": "a"}]}, ["a", "b"]),
        ("topic", {"text": "x", "topics": []}, []),
        (
            "ner",
            {"text": "Bo", "entities": [{"start": 0, "end": 2, "label": "person", "text": "Bo"}]},
            ["0:2:person"],
        ),
    ],
)
def test_rows_of_the_form_that_models_are_trained_on(
    tmp_path: Path, task: str, row: dict[str, Any], right: list[str]
) -> None:
    found = read_labelled(written(tmp_path, row, "", row | {"language": "da"}), task)
    assert found == [
        {"text": row["text"], "language": language, "right": right} for language in (None, "da")
    ]


@pytest.mark.parametrize(
    "row",
    [
        "{",
        "[1]",
        '{"text": "x"}',
        '{"text": "", "sentiment": "mixed"}',
        '{"text": 1, "sentiment": "mixed"}',
        '{"text": "x", "sentiment": 3}',
        '{"text": "x", "sentiment": "mixed", "language": 3}',
    ],
)
def test_a_row_that_is_wrong_is_named_by_its_line(tmp_path: Path, row: str) -> None:
    good = {"text": "x", "sentiment": "mixed"}
    with pytest.raises(RowsProblem, match=r'gold.jsonl, line 2: expected \{"text", "sentiment"\}'):
        read_labelled(written(tmp_path, good, row), "sentiment")


def test_a_file_without_rows_or_with_too_many_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RowsProblem, match="found none"):
        read_labelled(written(tmp_path, ""), "sentiment")
    monkeypatch.setattr(labelled_rows, "MOST_ROWS", 2)
    rows = [{"text": "x", "sentiment": "mixed"}] * 3
    with pytest.raises(RowsProblem, match=r"expected at most 2 rows .* got 3 .*; take a sample"):
        read_labelled(written(tmp_path, *rows), "sentiment")
