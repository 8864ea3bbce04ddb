"""A task's folder, read and checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from reviewmesh_kit.yamltext import load_yaml
from reviewmesh_worker.tasks import BUNDLED_TASKS, NER, SENTIMENT, TASKS, TOPIC

AnswerKind = Literal["label", "polarity_per_label", "spans"]

NO_POLARITY: Final = "none"
"""The answer for a label that the text does not mention."""
POLARITIES: Final = ("positive", "negative", "neutral")
OUTSIDE: Final = "O"

_TASK_FILE: Final = "task.yaml"
_PROMPT_FILE: Final = "prompt.txt"
_GOLDEN_FILE: Final = "golden.jsonl"
_LABELS_MARK: Final = "{labels}"
_REVIEW_MARK: Final = "{review}"
_KIND_OF: Final[Mapping[str, AnswerKind]] = {
    NER: "spans",
    TOPIC: "polarity_per_label",
    SENTIMENT: "label",
}
_MAX_LABELS: Final = 64
_Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,79}$")]


class TaskError(ValueError):
    """An invalid task folder; the message says what was expected and what to do."""


class Label(BaseModel):
    """A label, and its description in the prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: _Identifier
    means: str = Field(min_length=1)


class _TaskFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    version: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$")]
    answer: AnswerKind
    labels: list[Label] = Field(min_length=2, max_length=_MAX_LABELS)


@dataclass(frozen=True, slots=True)
class Task:
    name: str
    version: str
    answer: AnswerKind
    labels: tuple[Label, ...]
    template: str
    """The prompt, with `{labels}` and, at its end, `{review}`."""
    golden: tuple[Mapping[str, Any], ...]
    """Rows in the form of the labelled data, with `instead_of` where a text asks for a label."""
    digest: str
    """Digest of everything that determines answers; when it changes, the version has to change."""

    @property
    def label_ids(self) -> tuple[str, ...]:
        return tuple(label.id for label in self.labels)


def load_tasks(folder: Path = BUNDLED_TASKS) -> dict[str, Task]:
    """Every task in a folder of tasks, by name. Raises TaskError."""
    found = {name: load_task(folder / name) for name in TASKS if (folder / name).is_dir()}
    if not found:
        raise TaskError(f"expected folders named {', '.join(TASKS)} in {folder}, found none")
    return found


def load_task(folder: Path) -> Task:
    """The task that a folder defines; its name is the folder's. Raises TaskError."""
    name = folder.name
    written = _read(folder / _TASK_FILE)
    template = _read(folder / _PROMPT_FILE)
    content = _parse(folder / _TASK_FILE, written)
    kind = _KIND_OF.get(name)
    if content.answer != kind:
        raise TaskError(
            f"{folder / _TASK_FILE}: expected the answer of {name} to be {kind}, "
            f"found {content.answer}"
        )
    ids = [label.id for label in content.labels]
    if len(set(ids)) != len(ids):
        twice = sorted({one for one in ids if ids.count(one) > 1})
        raise TaskError(f"{folder / _TASK_FILE}: expected each label once, found twice: {twice}")
    _check_template(folder / _PROMPT_FILE, template)
    return Task(
        name=name,
        version=content.version,
        answer=content.answer,
        labels=tuple(content.labels),
        template=template.rstrip("\n"),
        golden=_golden(folder / _GOLDEN_FILE),
        digest=_digest(content, template),
    )


def write_task(task: Task, folder: Path) -> None:
    """A folder that `load_task` reads as the same task, with the same digest."""
    content = {
        "version": task.version,
        "answer": task.answer,
        "labels": [label.model_dump() for label in task.labels],
    }
    golden = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in task.golden)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (
        (_TASK_FILE, yaml.safe_dump(content, sort_keys=False, allow_unicode=True)),
        (_PROMPT_FILE, task.template + "\n"),
        (_GOLDEN_FILE, golden),
    ):
        (folder / name).write_text(text, encoding="utf-8")


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(
            f"expected a file of the task at {file}, {error}; see the tasks that come with the "
            f"project in {BUNDLED_TASKS}"
        ) from error


def _parse(file: Path, written: str) -> _TaskFile:
    try:
        return _TaskFile.model_validate(load_yaml(written))
    except yaml.YAMLError as error:
        raise TaskError(f"{file}: expected YAML, {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()
        )
        raise TaskError(f"{file}: {problems}") from error


def _check_template(file: Path, template: str) -> None:
    for mark in (_LABELS_MARK, _REVIEW_MARK):
        if template.count(mark) != 1:
            raise TaskError(f"{file}: expected {mark} once, found {template.count(mark)} times")
    if not template.rstrip("\n").endswith(_REVIEW_MARK):
        # The text before the review is the same for all reviews, so that its KV cache is shared.
        raise TaskError(f"{file}: expected {_REVIEW_MARK} at the very end")


def _golden(file: Path) -> tuple[Mapping[str, Any], ...]:
    lines = _read(file).split("\n")
    try:
        return tuple(json.loads(line) for line in lines if line.strip())
    except ValueError as error:
        raise TaskError(f"{file}: expected JSON lines, {error}") from error


def _digest(content: _TaskFile, template: str) -> str:
    decisive = {"task": content.model_dump(mode="json"), "prompt": template.rstrip("\n")}
    canonical = json.dumps(decisive, sort_keys=True, ensure_ascii=False)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
