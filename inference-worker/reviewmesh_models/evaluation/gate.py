"""Whether a package may serve: its report against the rules of a file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reviewmesh_kit.yamltext import load_yaml
from reviewmesh_models.evaluation.few_rows import said_of_few
from reviewmesh_models.evaluation.report import Against, Golden, Report, Score, TaskMade

ScoreName = Annotated[str, Field(pattern=r"^[a-z0-9_-]+\.[a-z0-9_]+$")]


GOLDEN_RIGHT: Final = "golden_right"
GOLDEN_HELD: Final = "golden_held"


class GateError(ValueError):
    """An invalid gate file; the message says what is wrong."""


class Gate(BaseModel):
    """Rules by the name of their score; see gate.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    floors: dict[ScoreName, float] = {}
    ceilings: dict[ScoreName, float] = {}
    margins: dict[ScoreName, Annotated[float, Field(ge=0)]] = {}


@dataclass(frozen=True, slots=True)
class GateRule:
    """One rule, and the package's score."""

    name: str
    wanted: str
    got: str
    passed: bool

    @property
    def verdict(self) -> str:
        return "passed" if self.passed else "NOT PASSED"


@dataclass(frozen=True, slots=True)
class GateResult:
    rules: tuple[GateRule, ...]

    @property
    def passed(self) -> bool:
        return all(rule.passed for rule in self.rules)

    @property
    def failures(self) -> list[str]:
        return [
            f"{rule.name}: expected {rule.wanted}, got {rule.got}"
            for rule in self.rules
            if not rule.passed
        ]


def read_gate(file: Path | None = None) -> Gate:
    """The rules of a file, or those that come with the project. Raises GateError."""
    source: Traversable | Path = file or resources.files(__package__) / "gate.yaml"
    try:
        return Gate.model_validate(load_yaml(source.read_text(encoding="utf-8")) or {})
    except OSError as error:
        raise GateError(f"expected a gate at {source}, {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise GateError(f"{source}: expected YAML, {error}") from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()
        )
        raise GateError(f"{source}: {problems}") from error


def check_gate(
    report: Report,
    digest: str,
    tasks: Mapping[str, TaskMade],
    gate: Gate,
    serving: str | None,
) -> GateResult:
    """Whether the package of a digest may serve the tasks, as they are defined now.

    `serving` is the digest of the package that serves them, None where none does. A report of
    another package, of other definitions of the tasks, or beside another package in service does
    not count, whatever its scores.
    """
    found = report.package.digest
    own = GateRule("report of this package", digest, found, found == digest)
    rules = [own, *_of_these_tasks(report, tasks)]
    rules += [
        _limit(report, name, limit, highest=False)
        for name, limit in _of_tasks(gate.floors, tasks).items()
    ]
    rules += [
        _limit(report, name, limit, highest=True)
        for name, limit in _of_tasks(gate.ceilings, tasks).items()
    ]
    if serving is not None and serving != digest:
        against = next((one for one in report.against if one.package.digest == serving), None)
        rules += [
            _margin(against, serving, name, margin)
            for name, margin in _of_tasks(gate.margins, tasks).items()
        ]
    return GateResult(tuple(rules))


def _of_tasks(limits: Mapping[str, float], tasks: Collection[str]) -> dict[str, float]:
    return {name: limit for name, limit in limits.items() if name.split(".")[0] in tasks}


def _of_these_tasks(report: Report, tasks: Mapping[str, TaskMade]) -> list[GateRule]:
    return [
        GateRule(
            f"report of the task {name}",
            _version(task),
            _version(report.tasks[name]) if name in report.tasks else "none",
            report.tasks.get(name) == task,
        )
        for name, task in tasks.items()
    ]


def _version(task: TaskMade) -> str:
    return f"version {task.version}, {task.digest}"


def golden_rules(report: Report, gate: Gate) -> dict[str, GateRule]:
    """By name of their score, the rules about golden rows of the tasks that were evaluated."""
    return {
        name: _limit(report, name, limit, highest=False)
        for name, limit in _of_tasks(gate.floors, report.golden).items()
        if name.split(".")[1] in (GOLDEN_RIGHT, GOLDEN_HELD)
    }


def _limit(report: Report, name: str, limit: float, *, highest: bool) -> GateRule:
    wanted = f"at {'most' if highest else 'least'} {limit:g}"
    task, _, kind = name.partition(".")
    if kind in (GOLDEN_RIGHT, GOLDEN_HELD) and task in report.golden:
        value, got = _golden_share(report.golden[task], kind)
    else:
        value, got = _score(report.scores.get(name))
    if value is None:
        return GateRule(name, wanted, got, False)
    return GateRule(name, wanted, got, value <= limit if highest else value >= limit)


def _score(score: Score | None) -> tuple[float | None, str]:
    """Its value, None without one, and what is told of it."""
    if score is None:
        return None, "no such score"
    few = said_of_few(score)
    return score.value, f"{score.value:.4f}, {few}" if few else f"{score.value:.4f}"


def _golden_share(golden: Golden, kind: str) -> tuple[float | None, str]:
    """As `_score`. Golden rows are chosen one by one and no sample: they have no interval."""
    right = kind == GOLDEN_RIGHT
    good, rows = (golden.right, golden.rows) if right else (golden.held, golden.injections)
    if not rows:
        what = "golden rows" if right else "golden rows with an injection"
        return None, f"no {what}: write some"
    return good / rows, f"{good} of {rows}, {good / rows:.4f}"


def _margin(against: Against | None, serving: str, name: str, margin: float) -> GateRule:
    label = f"{name} against what serves"
    wanted = f"surely not more than {margin:g} lower"
    if against is None:
        return GateRule(
            label, wanted, f"no comparison with {serving[:19]}…: evaluate against it", False
        )
    difference = against.differences.get(name)
    if difference is None:
        return GateRule(label, wanted, "no such score of both", False)
    got = f"{difference.value:+.4f}, 95 % from {difference.low:+.4f} to {difference.high:+.4f}"
    return GateRule(label, wanted, got, difference.low >= -margin)
