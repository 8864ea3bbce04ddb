"""The screen of packages: what a registry of models holds, its scores, and who let it serve.

The console knows no models: it reads the files that `reviewmesh-models` writes, and judges nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel, ValidationError
from starlette.routing import Route

from reviewmesh.console.kept import KeptReading
from reviewmesh.console.moving import MovingScreen, Templates
from reviewmesh_kit.settings import variable

LARGEST_FILE = 8 * 1024 * 1024
PACKAGES_SHOWN = 50
CHANGES_SHOWN = 100
ALIASES = ("serving", "candidate", "previous")


class UnreadableFile(ValueError):
    """A file of the registry is not as expected; the message names it and says how."""


class _TaskMade(BaseModel):
    version: str


class _Manifest(BaseModel):
    kind: str
    tasks: dict[str, _TaskMade]
    languages: list[str] | None = None
    license: str
    created_at: str


class _Score(BaseModel):
    value: float
    low: float
    high: float
    rows: int


class _Report(BaseModel):
    made_at: str
    scores: dict[str, _Score]


class _Entry(BaseModel):
    package: str
    gate: str | None


class _Aliases(BaseModel):
    serving: _Entry | None = None
    candidate: _Entry | None = None
    previous: _Entry | None = None


class _Change(BaseModel):
    at: str
    action: str
    package: str
    gate: str | None
    tasks: dict[str, str | None]
    not_passed: list[str] = []
    forced_because: str = ""

    @property
    def verdict(self) -> str:
        if self.gate == "forced":
            return f"forced, because {self.forced_because}: {'; '.join(self.not_passed)}"
        return "passed its gate" if self.gate == "passed" else "not judged"


class PackageShown(BaseModel):
    """A package; without a manifest or a report where `problem` says why."""

    id: str
    standing: tuple[str, ...]
    """Such as `serving ner (passed its gate)`."""
    verdict: str
    manifest: _Manifest | None = None
    report: _Report | None = None
    problem: str = ""


class ModelRegistry(BaseModel):
    folder: str
    packages: tuple[PackageShown, ...]
    """Newest first."""
    changes: tuple[_Change, ...]
    """Newest first."""
    problems: tuple[str, ...]
    number: int
    """Of all packages."""


def kept_registry(
    folder: Path | None, log: structlog.stdlib.BoundLogger
) -> KeptReading[ModelRegistry | None]:
    return KeptReading(lambda: None if folder is None else read_registry(folder), log)


def routes_of(kept: KeptReading[ModelRegistry | None], templates: Templates) -> list[Route]:
    return MovingScreen("packages", templates, lambda query: shown(kept)).routes()


def shown(kept: KeptReading[ModelRegistry | None]) -> dict[str, Any]:
    reading = kept.reading()
    return {
        "reading": reading,
        "registry": reading.value,
        "variable": variable("console", "model_registry"),
    }


def read_registry(folder: Path) -> ModelRegistry:
    """What can be read of it; what cannot is named."""
    problems: list[str] = []
    try:
        names = [path.name for path in (folder / "packages").iterdir() if path.is_dir()]
    except OSError as error:
        names = []
        problems.append(
            f"expected a registry of packages at {folder}, {error.strerror}; "
            "`reviewmesh-models add` makes one"
        )
    standing: dict[str, list[str]] = {}
    for file in sorted((folder / "aliases").glob("*.json")):
        try:
            _stand(standing, file.stem, _read(file, _Aliases))
        except UnreadableFile as error:
            problems.append(str(error))
    changes: list[_Change] = []
    try:
        changes = _history(folder / "history.jsonl")
    except UnreadableFile as error:
        problems.append(str(error))
    verdicts = {one.package: one.verdict for one in changes if one.action == "promote"}
    found = [
        _package(
            folder / "packages" / name,
            tuple(standing.get(name, ())),
            verdicts.get(name, "not promoted yet"),
        )
        for name in sorted(names)
        if not name.startswith(".")
    ]
    found.sort(key=lambda one: one.manifest.created_at if one.manifest else "", reverse=True)
    return ModelRegistry(
        folder=str(folder),
        packages=tuple(found[:PACKAGES_SHOWN]),
        changes=tuple(reversed(changes[-CHANGES_SHOWN:])),
        problems=tuple(problems),
        number=len(found),
    )


def _stand(standing: dict[str, list[str]], task: str, aliases: _Aliases) -> None:
    for alias in ALIASES:
        entry: _Entry | None = getattr(aliases, alias)
        if entry is not None:
            gate = {"passed": " (passed its gate)", "forced": " (forced)"}.get(entry.gate or "", "")
            standing.setdefault(entry.package, []).append(f"{alias} {task}{gate}")


def _package(folder: Path, standing: tuple[str, ...], verdict: str) -> PackageShown:
    package = PackageShown(id=folder.name, standing=standing, verdict=verdict)
    report = folder / "evaluation.json"
    try:
        package.manifest = _read(folder / "manifest.json", _Manifest)
        package.report = _read(report, _Report) if report.exists() else None
    except UnreadableFile as error:
        package.problem = str(error)
    return package


def _history(file: Path) -> list[_Change]:
    """Oldest first. Raises UnreadableFile."""
    if not file.exists():
        return []
    lines = _text(file).split("\n")
    return [_parsed(file, line, _Change) for line in lines if line.strip()]


M = TypeVar("M", bound=BaseModel)


def _read(file: Path, model: type[M]) -> M:
    """Raises UnreadableFile."""
    return _parsed(file, _text(file), model)


def _parsed(file: Path, text: str, model: type[M]) -> M:
    """Raises UnreadableFile."""
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        [first, *_] = error.errors()
        where = ".".join(map(str, first["loc"])) or "its JSON"
        raise UnreadableFile(
            f"{file}: expected what `reviewmesh-models` writes; {where}: {first['msg']}"
        ) from error


def _text(file: Path) -> str:
    """Raises UnreadableFile."""
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise UnreadableFile(f"{file}: expected at most {LARGEST_FILE:,} bytes")
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise UnreadableFile(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"{file}: expected UTF-8") from error
