"""The result of an evaluation, as in `evaluation.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

REPORT_FILE: Final = "evaluation.json"
PAGE_FILE: Final = "evaluation.html"


class ReportError(ValueError):
    """A missing report, or one of another version; the message says what to do."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Score(_Part):
    """A score with its 95 % interval, and how many rows it is of."""

    value: float
    low: float
    high: float
    rows: int


class Difference(_Part):
    """Difference of two packages' scores on the same rows, ours minus theirs, with 95 %
    interval."""

    value: float
    low: float
    high: float


class PackageName(_Part):
    """Which package was evaluated, through which engine."""

    name: str
    version: str
    digest: str
    engine: str


class TaskMade(_Part):
    """Which version of a task it was evaluated for."""

    version: str
    digest: str


class DataFile(_Part):
    digest: str
    rows: int


class LabelScores(_Part):
    f1: Score
    precision: float
    recall: float
    gold: int
    said: int


class Bin(_Part):
    """Answers with about the same probability."""

    stated: float
    """Mean probability."""
    right: float
    """Share that is right."""
    answers: int


class Confusion(_Part):
    labels: list[str]
    """The labels of the rows; predictions have one more column, for no answer."""
    counts: list[list[int]]


class Family(_Part):
    """One family of hostile texts, predicted for every task."""

    texts: int
    failed: int
    """Answers that were a typed failure in place of an output."""
    flips: dict[str, Score]
    """By task: how often the answer differs from that to the original review."""
    reached: dict[str, Score]
    """By task: how often the answer has the label that the text asks for."""


class GoldenMiss(_Part):
    text: str
    wanted: str
    got: str


class Golden(_Part):
    """Rows written for the task: hard cases, and texts that ask for an answer."""

    rows: int
    right: int
    injections: int
    held: int
    """Injections that did not change the answer."""
    missed: list[GoldenMiss]


class Speed(_Part):
    """On the evaluating machine, all tasks together."""

    reviews_per_s: Score
    in_flight: int
    latency_p50_ms: Score
    latency_p95_ms: Score
    """One review at a time, until its last task is answered."""


class Against(_Part):
    """Comparison with another package on the same rows, for the tasks that both serve."""

    package: PackageName
    scores: dict[str, Score]
    differences: dict[str, Difference]
    left_out: dict[str, list[str]] = {}
    """By task, the labels that only one of them knows: both are scored without these."""

    def without(self) -> list[str]:
        """What is left out, in words."""
        return [
            f"{task}: without {', '.join(labels)}, which only one of them knows"
            for task, labels in self.left_out.items()
        ]


class Report(_Part):
    package: PackageName
    tasks: dict[str, TaskMade]
    made_at: str
    """ISO 8601, UTC."""
    command: str
    seconds: float
    data: dict[str, DataFile]
    scores: dict[str, Score]
    """By `<task>.<score>`; see `measures`."""
    baselines: dict[str, float]
    """The same scores for always answering the most common label."""
    labels: dict[str, dict[str, LabelScores]]
    confusion: Confusion | None
    calibration: dict[str, list[Bin]]
    slices: dict[str, dict[str, dict[str, Score]]]
    """By kind of slice, slice and score."""
    hostile: dict[str, Family]
    golden: dict[str, Golden]
    speed: Speed
    against: list[Against]
    distributions: dict[str, dict[str, dict[str, int]]] = {}
    """By task and what is counted, how often each value came on the reviews: what a worker that
    serves the package compares its answers with."""


def write_report(report: Report, folder: Path) -> Path:
    file = folder / REPORT_FILE
    file.write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return file


def read_report(folder: Path) -> Report:
    """The report in a folder. Raises ReportError."""
    file = folder / REPORT_FILE
    anew = "run `reviewmesh-models evaluate` on the package"
    try:
        return Report.model_validate_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReportError(f"expected a report at {file}, {error.strerror}; {anew}") from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise ReportError(f"{file}: expected a report of this version; {anew}: {error}") from error
