"""Texts of a mesh reach only teachers that they may leave for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from reviewmesh_models.cli.__main__ import app
from tests.scripted_provider import Provider, sound

IN_HOUSE = {"name": "house", "model": "house", "inside": True}
EU = {"name": "eu", "model": "eu", "region": "eu"}
UNKNOWN = {"name": "unknown", "model": "unknown"}


class Labelling:
    def __init__(self, folder: Path, provider: Provider) -> None:
        self._folder = folder
        self._provider = provider

    def run(self, teachers: list[dict[str, Any]], lines: list[dict[str, Any]]) -> Result:
        asked = [{"base_url": self._provider.url, **teacher} for teacher in teachers]
        file = self._folder / "teachers.yaml"
        file.write_text(yaml.safe_dump({"teachers": asked, "budget": {"requests": 1_000}}))
        words = ["label", "-", "--teachers", str(file), "--output", str(self._folder / "made")]
        said = "\n".join(map(json.dumps, lines))
        return CliRunner().invoke(app, [*words, "--task", "sentiment"], input=said)

    def heard(self, model: str) -> set[str]:
        return {text for asked, _, text in self._provider.calls if asked == model}


@pytest.fixture
def provider() -> Any:
    with Provider(lambda model, task, text: sound(task, "positive")) as provider:
        yield provider


@pytest.fixture
def labelling(tmp_path: Path, provider: Provider) -> Labelling:
    return Labelling(tmp_path, provider)


def test_records_of_a_mesh_stay_and_masked_ones_go_where_they_may(labelling: Labelling) -> None:
    lines: list[dict[str, Any]] = [
        {"review_id": "r-1", "text": "as tail prints it"},
        {"text": "for eu", "leaves_for": ["eu"]},
        {"text": "for us", "leaves_for": ["us"]},
        {"text": "a row of one's own"},
    ]
    result = labelling.run([IN_HOUSE, EU, UNKNOWN], lines)
    assert result.exit_code == 1
    assert "teacher eu: 2 reviews of a mesh may not leave for its region eu" in result.output
    assert "teacher unknown: 3 reviews of a mesh may not leave for it" in result.output
    assert labelling.heard("house") == {line["text"] for line in lines}
    assert labelling.heard("eu") == {"for eu", "a row of one's own"}
    assert labelling.heard("unknown") == {"a row of one's own"}


def test_where_all_may_leave_nothing_is_complained_of(labelling: Labelling) -> None:
    result = labelling.run([IN_HOUSE, EU], [{"text": "for eu", "leaves_for": ["eu", "us"]}])
    assert result.exit_code == 0, result.output


def test_a_teacher_that_comes_later_gets_no_more_of_them(labelling: Labelling) -> None:
    stays = {"review_id": "r-1", "text": "stays"}
    other = {**IN_HOUSE, "name": "other", "model": "other"}
    assert labelling.run([IN_HOUSE, other], [stays]).exit_code == 0
    # As a row of one's own it is still the text of a mesh's review.
    assert labelling.run([IN_HOUSE, EU], [{"text": "stays"}]).exit_code == 1
    assert labelling.heard("eu") == set()
    # Another review says the same and may leave.
    assert labelling.run([IN_HOUSE, EU], [{"text": "stays", "leaves_for": ["eu"]}]).exit_code == 0
    assert labelling.heard("eu") == {"stays"}


@pytest.mark.parametrize("regions", ["eu", [1], None])
def test_what_is_no_list_of_regions_is_refused(labelling: Labelling, regions: Any) -> None:
    result = labelling.run([IN_HOUSE, EU], [{"text": "t", "leaves_for": regions}])
    assert result.exit_code == 2
    assert "expected a list of regions in `leaves_for`" in result.output


def test_a_teacher_is_inside_or_in_a_region(labelling: Labelling) -> None:
    result = labelling.run([IN_HOUSE, {**EU, "inside": True}], [{"text": "t"}])
    assert result.exit_code == 2
    assert "expected either region or inside" in result.output
