"""`policy.yaml`: whose reviews may leave the mesh, for which regions, and what is masked first.

Nothing leaves without it. A file that is wrong is refused as a whole, each problem with its line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from reviewmesh.leaving.yamlfile import Document, read_file

Part = Literal["patterns", "names"]
NOTHING = "nothing"
EXPECTED_RULE = f"expected {NOTHING}, or regions and mask"


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
    """Raises FileProblem."""
    return read_file(path, parse_policy)


def parse_policy(text: str) -> Policy:
    """Raises FileProblem; each of its lines begins with the line of the file."""
    document = Document(text, expected="`all` or `businesses`")
    file = document.as_form(_File, union="_Rule", expected_union=EXPECTED_RULE)
    lines = {name: document.line("businesses", name) for name in file.businesses}
    return Policy(
        _rule(file.all, document.line("all")),
        {name: _rule(rule, lines[name]) for name, rule in file.businesses.items()},
    )


def _rule(rule: _Rule | str, line: int) -> Rule | None:
    if isinstance(rule, str):
        return None
    return Rule(tuple(rule.regions), "names" in rule.mask, line)
