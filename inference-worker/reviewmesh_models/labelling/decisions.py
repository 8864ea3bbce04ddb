"""What people decided, as one file of JSON lines for each judge.

A line is added per decision and made durable before the next one is asked for; taking one back adds
a line too. A line that a kill cut short is left out.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from reviewmesh_models.labelling.units import Span

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
_FILE: Final = "decisions-{}.jsonl"


class DecisionsError(ValueError):
    """A judge's name or file that cannot be used; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class DecidedUnit:
    """What is decided: of which task and review, and what of it."""

    task: str
    digest: str
    """Of the task's definition: another one asks another question."""
    key: str
    what: str | Span | None


@dataclass(frozen=True, slots=True)
class Decision:
    unit: DecidedUnit
    label: str
    seconds: float
    """How long it took, from when it was shown."""


class Journal:
    """The decisions of one judge."""

    def __init__(self, folder: Path, judge: str) -> None:
        """Raises DecisionsError."""
        if not _NAME.fullmatch(judge):
            raise DecisionsError(
                f"expected a judge's name of small letters, digits, '_', '.' and '-', got {judge!r}"
            )
        self._file = folder / _FILE.format(judge)
        self.decisions: list[Decision] = []
        whole = 0
        if self._file.exists():
            content = self._file.read_bytes()
            whole = content.rfind(b"\n") + 1
            self.decisions = _replayed(self._file, content[:whole])
        self._out = self._file.open("ab")
        self._out.truncate(whole)

    def add(self, decision: Decision) -> None:
        self._write(asdict(decision))
        self.decisions.append(decision)

    def take_back(self) -> Decision | None:
        """The last one, or None."""
        if not self.decisions:
            return None
        self._write({"taken_back": True})
        return self.decisions.pop()

    def close(self) -> None:
        self._out.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        self._out.write(json.dumps(line).encode() + b"\n")
        self._out.flush()
        os.fsync(self._out.fileno())


def read_judges(folder: Path) -> dict[str, list[Decision]]:
    """The decisions of every judge of a folder, by name."""
    before, after = _FILE.split("{}")
    found = {}
    for file in sorted(folder.glob(_FILE.format("*"))):
        content = file.read_bytes()
        judge = file.name.removeprefix(before).removesuffix(after)
        found[judge] = _replayed(file, content[: content.rfind(b"\n") + 1])
    return found


def agreed(judges: Mapping[str, Sequence[Decision]]) -> dict[DecidedUnit, str | None]:
    """The label of each decided unit; None where two judges differ."""
    found: dict[DecidedUnit, str | None] = {}
    for decisions in judges.values():
        for decision in decisions:
            label = found.get(decision.unit, decision.label)
            found[decision.unit] = label if label == decision.label else None
    return found


def _replayed(file: Path, content: bytes) -> list[Decision]:
    decisions: list[Decision] = []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            said = json.loads(line)
            if "taken_back" in said:
                decisions.pop()
                continue
            unit = said["unit"]
            if isinstance(unit["what"], list):
                unit["what"] = tuple(unit["what"])
            decisions.append(Decision(DecidedUnit(**unit), said["label"], said["seconds"]))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DecisionsError(
                f"{file}, line {number}: expected a decision, found {line[:80]!r}"
            ) from error
    return decisions
