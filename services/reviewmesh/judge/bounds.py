"""The bounds of a rollout, by which the judge decides. Each has a default; a file may change
them."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from reviewmesh_kit.yamltext import load_yaml

LONGEST_HOURS = 160
"""Shorter than the retention of the answers, which a restarted judge reads again."""

LARGEST_STEP = 0.95


class BoundsProblem(ValueError):
    """A bound is invalid; the message names it, what was expected and what was given."""


class Bounds(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    alpha: float = Field(default=0.025, gt=0, le=0.2)
    """Probability of rolling back a candidate that is within the bounds, over the whole rollout."""
    shadow_share: float = Field(default=1.0, gt=0, le=1)
    """Share of the reviews that the candidate answers as well, before the canary."""
    pairs: int = Field(default=500, ge=50)
    """Answers to compare in shadow before the canary."""
    compared: float = Field(default=0.5, ge=0, le=1)
    """Share of the copied reviews that must have been compared."""
    disagreement: float = Field(default=0.2, gt=0, lt=1)
    """Share of the reviews whose answers may differ."""
    worse: float = Field(default=0.0, ge=0, lt=1)
    """By how much less often the candidate may be right about labelled texts."""
    steps: tuple[float, ...] = Field(default=(0.01, 0.05, 0.25, 0.5), min_length=1, max_length=20)
    """Shares of the reviews that the candidate answers, one after the other."""
    canaries: int = Field(default=200, ge=50)
    """Canaries to see at each step."""
    step_s: float = Field(default=600, ge=0)
    """Seconds that a step takes at least."""
    failures: float = Field(default=0.02, gt=0, lt=1)
    """By how much the candidate's share of failures may exceed that of the task's own workers."""
    slower_times: float = Field(default=1.5, gt=0)
    """How many times as long half of the candidate's answers may take."""
    dearer_times: float = Field(default=1.5, gt=0)
    """How many times as much half of the candidate's answers may cost."""
    hours: float = Field(default=72, gt=0, le=LONGEST_HOURS)
    """Hours after which a rollout that is not ready is rolled back."""

    @model_validator(mode="after")
    def _steps_rise(self) -> Self:
        if list(self.steps) != sorted(set(self.steps)) or self.steps[0] <= 0:
            raise ValueError("steps: expected shares that rise, from above 0")
        if self.steps[-1] > 1:
            raise ValueError("steps: expected shares of 1 at most")
        if self.steps[-1] > LARGEST_STEP:
            raise ValueError(
                f"steps: expected shares of {LARGEST_STEP:g} at most: a candidate is judged by the "
                "answers of the task's own workers to the other reviews"
            )
        return self


def read_bounds(file: Path) -> Bounds:
    """Raises BoundsProblem, and OSError."""
    try:
        content = load_yaml(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BoundsProblem(f"{file}: expected YAML: {error}") from error
    if content is None:
        return Bounds()
    if not isinstance(content, dict):
        raise BoundsProblem(f"{file}: expected names of bounds with their values")
    try:
        return Bounds.model_validate(content)
    except ValidationError as error:
        raise BoundsProblem(f"{file}: {_problems(error)}") from error


def parse_bounds(text: str) -> Bounds:
    """The bounds in a command's JSON. Raises BoundsProblem."""
    try:
        return Bounds.model_validate_json(text)
    except ValidationError as error:
        raise BoundsProblem(_problems(error)) from error


def _problems(error: ValidationError) -> str:
    known = ", ".join(Bounds.model_fields)
    told = []
    for problem in error.errors():
        name = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            told.append(f"{name}: there is no such bound; there are {known}")
        else:
            told.append(f"{name}: {problem['msg']}" if name else str(problem["msg"]))
    return "; ".join(told)
