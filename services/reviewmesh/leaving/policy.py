"""`policy.yaml`: whose reviews may leave the mesh, for which regions, and what is masked first.

Nothing leaves without it. A file that is wrong is refused as a whole, each problem with its line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

Part = Literal["patterns", "names"]
NOTHING = "nothing"
EXPECTED_RULE = f"expected {NOTHING}, or regions and mask"
UNION = ("_Rule", "literal['nothing']")
HINTS = {
    "dict_type": "expected an entry for each business",
    "extra_forbidden": "there is no such setting",
    "missing": "expected it, got nothing",
    "string_type": "expected text: put it in quotes",
    "too_short": "expected at least one",
}


class PolicyProblem(ValueError):
    """The file cannot be used; says where and why."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Under which conditions reviews leave."""

    regions: tuple[str, ...]
    """Where to; an earlier one is preferred."""
    masks_names: bool
    """Whether names are masked beside the patterns."""
    line: int
    """Of the file, from 1."""


@dataclass(frozen=True, slots=True)
class Policy:
    """None means that nothing leaves."""

    for_all: Rule | None = None
    by_business: Mapping[str, Rule | None] = field(default_factory=dict)

    def rule_of(self, business_id: str | None) -> Rule | None:
        """The rule of the business, or the one for all if it has none."""
        if business_id is not None and business_id in self.by_business:
            return self.by_business[business_id]
        return self.for_all

    def rules(self) -> list[Rule]:
        rules = [self.for_all, *self.by_business.values()]
        return [rule for rule in rules if rule is not None]


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    regions: list[str] = Field(min_length=1)
    mask: list[Part]

    @field_validator("mask")
    @classmethod
    def _patterns_are_always_masked(cls, parts: list[Part]) -> list[Part]:
        if "patterns" not in parts:
            raise ValueError("expected [patterns] or [patterns, names]: patterns are always masked")
        return parts


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    all: _Rule | Literal["nothing"] = "nothing"
    businesses: dict[str, _Rule | Literal["nothing"]] = {}


def read_policy(path: Path) -> Policy:
    """Raises PolicyProblem."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyProblem(f"{path}: {error}") from error
    try:
        return parse_policy(text)
    except PolicyProblem as error:
        lines = [f"{path}:{line}" for line in str(error).splitlines()]
        raise PolicyProblem("\n".join(lines)) from error


def parse_policy(text: str) -> Policy:
    """Raises PolicyProblem; each of its lines begins with the line of the file."""
    node, content = _load(text)
    if not isinstance(node, yaml.MappingNode):
        raise PolicyProblem("1: expected `all` or `businesses`")
    if repeated := [f"{line}: {name} is given twice" for name, line in _repeated(node)]:
        raise PolicyProblem("\n".join(repeated))
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        raise PolicyProblem(_told(error, node)) from error
    lines = {name: _line(node, ["businesses", name]) for name in file.businesses}
    return Policy(
        _rule(file.all, _line(node, ["all"])),
        {name: _rule(rule, lines[name]) for name, rule in file.businesses.items()},
    )


def _load(text: str) -> tuple[yaml.Node | None, Any]:
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        return node, None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        raise PolicyProblem(f"{line}: {error.problem}") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise PolicyProblem(f"1: {' '.join(str(error).split())}") from error


def _rule(rule: _Rule | str, line: int) -> Rule | None:
    if isinstance(rule, str):
        return None
    return Rule(tuple(rule.regions), "names" in rule.mask, line)


def _told(error: ValidationError, root: yaml.Node) -> str:
    """One line per invalid place, in the order of the file."""
    told: dict[tuple[int, str], str] = {}
    for problem in error.errors(include_input=False, include_url=False):
        # Pydantic names the members of a union, and keys, as if they were part of the path.
        path = [part for part in problem["loc"] if part not in UNION and part != "[key]"]
        at, value = _find(root, path)
        name = ".".join(map(str, path)) or "the file"
        if problem["loc"][-1] == UNION[1] and isinstance(value, yaml.MappingNode):
            continue
        if problem["loc"][-1] in UNION:
            reason = EXPECTED_RULE
        elif problem["type"] in HINTS:
            reason = HINTS[problem["type"]]
        else:
            reason = problem["msg"].removeprefix("Value error, ")
        told.setdefault((int(at.start_mark.line) + 1, name), reason)
    return "\n".join(f"{line}: {name}: {reason}" for (line, name), reason in sorted(told.items()))


def _line(root: yaml.Node, path: Sequence[int | str]) -> int:
    return int(_find(root, path)[0].start_mark.line) + 1


def _find(root: yaml.Node, path: Sequence[int | str]) -> tuple[yaml.Node, yaml.Node]:
    """The deepest node on the path that the file has, and its value."""
    at, value = root, root
    for part in path:
        if isinstance(value, yaml.MappingNode):
            entry = next((e for e in value.value if e[0].value == str(part)), None)
            if entry is None:
                break
            at, value = entry
        elif isinstance(value, yaml.SequenceNode) and isinstance(part, int):
            at = value = value.value[part]
        else:
            break
    return at, value


def _repeated(node: yaml.Node) -> Iterator[tuple[str, int]]:
    """Of two entries with the same name, YAML silently takes the last."""
    if isinstance(node, yaml.SequenceNode):
        for inner in node.value:
            yield from _repeated(inner)
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if key.value in seen:
                yield str(key.value), int(key.start_mark.line) + 1
            seen.add(key.value)
            yield from _repeated(value)
