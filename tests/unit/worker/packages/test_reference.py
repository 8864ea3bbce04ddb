"""What a worker takes from a package's evaluation report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from reviewmesh_worker.bundled import BUNDLED_MODEL
from reviewmesh_worker.packages.manifest import EVALUATION_FILE, Package
from reviewmesh_worker.packages.provider import provider_package
from reviewmesh_worker.packages.reference import ReferenceError, read_reference
from tests.packages import DEFINED, small_package

COUNTS = {"sentiment": {"label": {"positive": 3}}}


@pytest.fixture
def package(tmp_path: Path) -> Package:
    return small_package(tmp_path / "package")


def reported(package: Package, content: Any) -> Package:
    (package.folder / EVALUATION_FILE).write_text(json.dumps(content))
    return package


def test_the_bundled_package_tells_what_it_says_of_a_thousand_reviews() -> None:
    reference = read_reference(Package.open(BUNDLED_MODEL))
    assert reference.keys() == DEFINED.keys()
    for task, counts in reference.items():
        assert set(counts) == {"label", "score", "language"}
        assert set(counts["label"]) <= {*DEFINED[task].label_ids, "none"}
        assert sum(counts["language"].values()) == 1_000
    assert sum(reference["sentiment"]["label"].values()) == 1_000


def test_without_a_report_there_is_none(package: Package) -> None:
    assert read_reference(package) == {}


def test_a_model_of_a_provider_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / EVALUATION_FILE).write_text("of another package")
    monkeypatch.chdir(tmp_path)
    assert read_reference(provider_package("m-1", DEFINED, {})) == {}


def test_a_report_from_before_holds_none_and_others_are_read(package: Package) -> None:
    about = {"digest": package.digest, "name": "x"}
    assert read_reference(reported(package, {"package": about, "scores": {}})) == {}
    content = {"package": about, "distributions": COUNTS}
    assert read_reference(reported(package, content)) == COUNTS


@pytest.mark.parametrize(
    "distributions",
    [
        {"sentiment": {"label": {"positive": -1}}},
        {"sentiment": {"label": {"positive": "many"}}},
        {"sentiment": ["positive"]},
        {"sentiment": {"label": {str(number): 1 for number in range(201)}}},
    ],
)
def test_what_is_no_count_is_refused(package: Package, distributions: Any) -> None:
    content = {"package": {"digest": package.digest}, "distributions": distributions}
    with pytest.raises(ReferenceError, match=EVALUATION_FILE):
        read_reference(reported(package, content))


def test_a_report_of_another_package_and_what_is_no_report_are_refused(package: Package) -> None:
    content = {"package": {"digest": "sha256:other"}, "distributions": COUNTS}
    with pytest.raises(ReferenceError, match="reviewmesh-models evaluate"):
        read_reference(reported(package, content))
    (package.folder / EVALUATION_FILE).write_text("[" * 100_000)
    with pytest.raises(ReferenceError):
        read_reference(package)
