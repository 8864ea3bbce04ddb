"""A package is refused when it is not, byte for byte, what its manifest says."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reviewmesh_worker.bundled import BUNDLED_MODEL
from reviewmesh_worker.packages.manifest import (
    CARD_FILE,
    EVALUATION_FILE,
    EVALUATION_PAGE,
    LARGEST_CONFIGURATION,
    MANIFEST_FILE,
    NOT_HASHED,
    TASKS_FOLDER,
    Base,
    DataSource,
    Package,
    PackageError,
)
from tests.packages import DEFINED, FILES, another_version, carrying, small_package

PATHS = st.sampled_from(sorted(FILES))


def edit(package: Package, **fields: Any) -> Path:
    file = package.folder / MANIFEST_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return package.folder


def refusal(package: Package) -> str:
    with pytest.raises(PackageError) as caught:
        package.verify(DEFINED)
    return str(caught.value)


def refusal_to_open(folder: Path) -> str:
    with pytest.raises(PackageError) as caught:
        Package.open(folder)
    return str(caught.value)


def test_the_bundled_model_is_a_package_that_verifies() -> None:
    package = Package.open(BUNDLED_MODEL)
    package.verify(DEFINED)
    assert package.manifest.tasks.keys() == DEFINED.keys()
    assert package.manifest.files.keys() | NOT_HASHED >= {
        file.name for file in BUNDLED_MODEL.iterdir()
    }


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    base = Base(name="base", source="where", licence="MIT")
    data = DataSource(name="rows.jsonl", sha256="0" * 64, rows=3, licence="CC BY 4.0")
    package = small_package(tmp_path, base=base, data=[data], scores={"accuracy": 0.9})
    package.verify(DEFINED)
    about = package.manifest
    assert (about.base, about.data, about.scores) == (base, [data], {"accuracy": 0.9})
    assert about.training == {"seed": 7}
    assert about.files.keys() == FILES.keys()
    assert package.id == "small@1"


def test_a_digest_is_of_what_decides_an_answer(tmp_path: Path) -> None:
    first = small_package(tmp_path / "first")
    scored = small_package(tmp_path / "scored", scores={"accuracy": 0.9})
    assert first.digest == scored.digest
    others = [
        small_package(tmp_path / "version", version="2"),
        small_package(tmp_path / "training", training={"seed": 8}),
        small_package(tmp_path / "files", files=FILES | {"weights.safetensors": b"others"}),
        small_package(tmp_path / "tasks", tasks={"ner": DEFINED["ner"]}),
        small_package(tmp_path / "kind", kind="causal"),
        small_package(tmp_path / "languages", languages=["de", "en"]),
    ]
    assert len({package.digest for package in [first, *others]}) == 1 + len(others)


def test_a_package_that_names_no_languages_keeps_its_digest(tmp_path: Path) -> None:
    package = small_package(tmp_path)
    content = json.loads((tmp_path / MANIFEST_FILE).read_text())
    del content["languages"]
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(content))
    assert Package.open(tmp_path).digest == package.digest


def test_what_an_evaluation_writes_is_no_part_of_a_package(tmp_path: Path) -> None:
    package = small_package(tmp_path)
    for name in (EVALUATION_FILE, EVALUATION_PAGE, CARD_FILE):
        (tmp_path / name).write_text("found")
    package.verify(DEFINED)
    assert Package.open(tmp_path).digest == package.digest


@settings(deadline=None, derandomize=True)
@given(path=PATHS, data=st.data())
def test_a_file_of_other_bytes_is_named(path: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        package = small_package(Path(folder))
        content = bytearray(FILES[path])
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        (package.folder / path).write_bytes(bytes(content))
        message = refusal(package)
        assert path in message and "copy the package anew" in message


@settings(deadline=None, derandomize=True)
@given(path=PATHS, data=st.data())
def test_a_file_cut_short_is_named(path: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        package = small_package(Path(folder))
        kept = data.draw(st.integers(0, len(FILES[path]) - 1))
        (package.folder / path).write_bytes(FILES[path][:kept])
        message = refusal(package)
        assert path in message and "cut short" in message


def test_a_missing_and_an_extra_file_are_named(tmp_path: Path) -> None:
    package = small_package(tmp_path)
    (tmp_path / "tokenizer/vocab.txt").rename(tmp_path / "tokenizer/other.txt")
    assert "names tokenizer/vocab.txt, which the folder has not" in refusal(package)
    (tmp_path / "tokenizer/vocab.txt").write_bytes(FILES["tokenizer/vocab.txt"])
    assert "does not name tokenizer/other.txt" in refusal(package)


def test_a_link_to_a_folder_is_refused(tmp_path: Path) -> None:
    package = small_package(tmp_path / "package")
    (tmp_path / "elsewhere").mkdir()
    (package.folder / "more").symlink_to(tmp_path / "elsewhere")
    assert "a link to a folder" in refusal(package)


def test_a_package_for_another_version_of_a_task_is_refused(tmp_path: Path) -> None:
    other = dataclasses.replace(DEFINED["topic"], version="2")
    package = small_package(tmp_path, tasks=DEFINED | {"topic": other})
    message = refusal(package)
    assert "made for version 2 of the task topic" in message and "is of version 1" in message
    package.verify({"ner": DEFINED["ner"]})
    assert package.fitting(DEFINED).keys() == {"ner", "sentiment"}


def test_a_package_serves_the_version_that_it_carries(tmp_path: Path) -> None:
    second = another_version(tmp_path, "topic", more="staff-support.chat")
    made_for = DEFINED | {"topic": second}
    carrying(tmp_path / "package", made_for)
    package = small_package(tmp_path / "package", tasks=made_for)
    assert f"{TASKS_FOLDER}/topic/task.yaml" in package.manifest.files
    package.verify(DEFINED)
    assert package.fitting(DEFINED) == made_for
    newer = dataclasses.replace(second, golden=({"text": "written since", "topics": []},))
    assert package.fitting({"topic": newer}) == {"topic": newer}
    # Whatever version is asked for, in a package of before as well.
    third = another_version(tmp_path, "topic", "3")
    assert package.fitting({"topic": third}) == {"topic": second}
    before = small_package(tmp_path / "before")
    before.verify({"topic": third})
    assert before.fitting({"topic": third}) == {"topic": DEFINED["topic"]}


def test_a_definition_that_was_edited_in_a_package_is_no_definition(tmp_path: Path) -> None:
    second = another_version(tmp_path, "topic")
    folder = tmp_path / "package"
    carrying(folder, {"topic": second})
    package = small_package(folder, tasks={"topic": second})
    file = folder / TASKS_FOLDER / "topic/task.yaml"
    written = file.read_text()
    file.write_text(written.replace("in other words", "something else"))
    assert "made for version 2 of the task topic" in refusal(package)
    file.write_text("version: [")
    assert "task.yaml: expected YAML" in refusal(Package.open(folder))
    file.write_text(written + "#" * LARGEST_CONFIGURATION)
    assert "task.yaml: expected at most" in refusal(Package.open(folder))
    file.unlink()
    file.symlink_to(tmp_path / "topic/task.yaml")
    assert "links" in refusal(Package.open(folder))


def test_a_task_that_changed_under_the_same_version_is_refused(tmp_path: Path) -> None:
    other = dataclasses.replace(DEFINED["ner"], digest="sha256:" + "0" * 64)
    message = refusal(small_package(tmp_path, tasks=DEFINED | {"ner": other}))
    assert "task ner" in message and "raise its version" in message


def test_a_package_for_none_of_the_tasks_is_refused(tmp_path: Path) -> None:
    package = small_package(tmp_path, tasks={"ner": DEFINED["ner"]})
    package.verify(DEFINED)
    with pytest.raises(PackageError, match="serves ner, expected one for topic"):
        package.verify({"topic": DEFINED["topic"]})


def test_a_folder_that_is_no_package_is_named(tmp_path: Path) -> None:
    assert "expected the manifest of a package at" in refusal_to_open(tmp_path)
    (tmp_path / MANIFEST_FILE).write_text("{")
    assert "expected JSON" in refusal_to_open(tmp_path)
    (tmp_path / MANIFEST_FILE).write_text("[]")
    assert "expected the format 1, found None" in refusal_to_open(tmp_path)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"format": 2}, "expected the format 1, found 2"),
        ({"kind": "diffusion"}, "kind: "),
        ({"name": "../../elsewhere"}, "name: "),
        ({"version": "1@2"}, "version: "),
        ({"tasks": {}}, "tasks: "),
        ({"files": {"../outside": "0" * 64}}, "inside the package, found '../outside'"),
        ({"files": {"/etc/passwd": "0" * 64}}, "inside the package, found '/etc/passwd'"),
        ({"files": {"weights.safetensors": "sha256:0"}}, "files.weights.safetensors: "),
        ({"surprise": 1}, "surprise: "),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(
    tmp_path: Path, fields: dict[str, Any], expected: str
) -> None:
    message = refusal_to_open(edit(small_package(tmp_path), **fields))
    assert expected in message and str(tmp_path / MANIFEST_FILE) in message


def test_a_package_that_cannot_be_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="name: "):
        small_package(tmp_path, name="No Such Name")
    assert not (tmp_path / MANIFEST_FILE).exists()


@pytest.mark.parametrize("target", ["/etc/hostname", "tokenizer/vocab.txt", "nowhere"])
def test_a_link_to_a_file_is_refused(tmp_path: Path, target: str) -> None:
    package = small_package(tmp_path)
    (tmp_path / "linked.txt").symlink_to(target)
    assert "linked.txt: a package may hold files only" in refusal(package)


def test_a_pipe_is_refused_and_not_read(tmp_path: Path) -> None:
    package = small_package(tmp_path)
    os.mkfifo(tmp_path / "pipe.json")
    assert "pipe.json: a package may hold files only" in refusal(package)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "weights.pt", "model.pkl", "modeling.py", "lib.so", "array.npy"]
)
def test_what_runs_code_when_it_is_loaded_is_refused(tmp_path: Path, name: str) -> None:
    package = small_package(tmp_path, files={name: b"anything"})
    message = refusal(package)
    assert name in message and "safetensors" in message


@pytest.mark.parametrize(
    "config",
    [
        '{"auto_map": {"AutoModel": "modeling.Model"}}',
        '{"text_config": {"auto_map": {"AutoModel": "modeling.Model"}}}',
        '[{"a": [{"custom_pipelines": {}}]}]',
        '{"auto_map": {"AutoModel": "modeling.Model"}, "auto_map": null}',
        '{"auto\\u005fmap": {"AutoModel": "modeling.Model"}}',
    ],
)
def test_a_configuration_that_names_code_is_refused(tmp_path: Path, config: str) -> None:
    package = small_package(tmp_path, files={"config.json": config.encode()})
    assert "config.json: names code" in refusal(package)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", " " * 2_000_000])
def test_a_configuration_that_cannot_be_searched_is_refused(tmp_path: Path, text: str) -> None:
    package = small_package(tmp_path, files={"config.json": text.encode()})
    assert "config.json: expected JSON" in refusal(package)


def test_a_pipe_instead_of_a_manifest_is_refused_and_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / MANIFEST_FILE)
    assert "expected a file, no link" in refusal_to_open(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, " " * 5_000_000])
def test_a_manifest_that_is_deep_or_huge_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST_FILE).write_text(text)
    with pytest.raises(PackageError, match="expected"):
        Package.open(tmp_path)
