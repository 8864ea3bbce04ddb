"""`teachers.yaml` is refused with the line and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from reviewmesh_models.labelling.teachers import Teachers, TeachersError, read_teachers

SOUND = """\
teachers:
  - name: large
    base_url: https://provider.example/v1
    model: large-1
    key_env: PROVIDER_KEY
    price: {input: 0.4, output: 1.6}
  - name: ours
    package: e5-reviews
budget: {requests: 2000, money: 5}
"""


def read(folder: Path, content: str) -> Teachers:
    file = folder / "teachers.yaml"
    file.write_text(content)
    return read_teachers(file)


def test_a_sound_file(tmp_path: Path) -> None:
    found = read(tmp_path, SOUND)
    assert [one.name for one in found.teachers] == ["large", "ours"]
    assert found.budget is not None and found.budget.money == 5


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("model: large-1", "modle: large-1", "line 4: teachers.0.modle: Extra inputs"),
        ("large-1", "[1]", "line 4: teachers.0.model"),
        ("https://", "ftp://", "line 2: teachers.0: .*http or https"),
        ("    model: large-1\n", "", "line 2: teachers.0: .*the model"),
        ("    key_env", "    key_file: k\n    key_env", "line 2: teachers.0: .*either key_env"),
        ("package: e5", "batch: true\n    package: e5", "line 7: .*takes no batch"),
        ("    package: e5-reviews\n", "", "line 7: .*either base_url or package"),
        ("name: ours", "name: large", "line 1: .*found twice: large"),
        ("budget: {requests: 2000, money: 5}\n", "", "line 1: .*expected a budget"),
        ("{requests: 2000, money: 5}", "{}", "line 9: budget: .*at least one of"),
        ("requests: 2000", "requests: many", "line 9: budget.requests: "),
        ("    price: {input: 0.4, output: 1.6}\n", "", "line 1: .*a price of the teacher large"),
        ("input: 0.4", "input: -1", "line 6: teachers.0.price.input"),
        ("teachers:", "teachers: [", "expected YAML"),
    ],
)
def test_what_is_off_is_named_with_its_line(
    tmp_path: Path, before: str, after: str, expected: str
) -> None:
    assert before in SOUND
    with pytest.raises(TeachersError, match=expected):
        read(tmp_path, SOUND.replace(before, after, 1))


def test_one_teacher_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(TeachersError, match=r"line 1: teachers: .*at least 2"):
        read(tmp_path, "teachers:\n  - name: ours\n    package: e5-reviews\n")


def test_a_key_stands_in_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVIDER_KEY", "s3cret")
    [large, _] = read(tmp_path, SOUND).teachers
    assert "s3cret" not in repr(large) + repr(large.key()) + str(large.key())
    assert large.key().get_secret_value() == "s3cret"
