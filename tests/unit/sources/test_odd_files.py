"""Files as people have them, tried out without a mesh: each has one clear outcome."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.odd_files import FILES, OddFile
from tests.publishing import Publish, publish_here

# Of any file: what it is, what was taken for what, what was refused, how many.
LINES = 5


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Publish:
    return publish_here(monkeypatch, capsys)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_is_taken_or_refused_with_one_clear_reason(
    file: OddFile, publish: Publish, tmp_path: Path
) -> None:
    path = tmp_path / "reviews.txt"
    path.write_bytes(file.content)

    said = publish(str(path), "--dry-run", *file.options)

    assert said.code == file.code, said.err
    assert re.search(file.says, said.err.replace("\n", " ")), said.err
    lines = said.err.splitlines()
    if file.whole:
        assert len(lines) == 1 and lines[0].startswith(f"error: {path}: ")
        assert not said.out
    else:
        assert f"{file.published} would be published, {file.refused} refused" in said.err
        # Never one a row.
        assert len(lines) <= LINES
    assert "Traceback" not in said.err


def test_there_are_enough_of_them() -> None:
    assert len(FILES) >= 40
    assert len({file.name for file in FILES}) == len(FILES)


def test_a_thousand_bad_rows_are_a_few_lines_and_a_file_of_reasons(
    publish: Publish, tmp_path: Path
) -> None:
    table, rejects = tmp_path / "reviews.csv", tmp_path / "rejects.jsonl"
    rows = [f"{number},,{number % 5 + 1}" for number in range(700)]
    rows += [f"{number},fine,{number}" for number in range(700, 1000)]
    table.write_text("review_id,text,stars\n" + "\n".join(rows) + "\n1000,fine,5\n")

    said = publish(str(table), "--dry-run", "--rejects", str(rejects))

    assert said.code == 1
    assert "1 would be published, 1,000 refused" in said.err
    assert "refused 700: text: expected the review's text" in said.err
    assert len(said.err.splitlines()) < 12
    refused = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert len(refused) == 1000
    assert refused[0]["refused"]["where"] == "line 2"
    assert refused[0]["refused"]["reason"].startswith("text: expected")
    assert publish(str(table), "--dry-run", "--rejects", str(rejects)).code == 2


def test_refused_rows_can_be_mended_and_published(publish: Publish, tmp_path: Path) -> None:
    table, rejects = tmp_path / "reviews.csv", tmp_path / "rejects.jsonl"
    table.write_text("no,body,stars\n1,fine,4\n2,bad,11\n")
    options = ("--map", "no=review_id", "--map", "body=text")
    assert publish(str(table), "--dry-run", "--rejects", str(rejects), *options).code == 1
    rejects.write_text(rejects.read_text().replace('"11"', '"1"'))
    said = publish(str(rejects), "--dry-run", *options)
    assert said.code == 0, said.err
    assert json.loads(said.out)["review_id"] == "2"
