"""A model package: its manifest, and the check of its files against it.

The manifest has the digest of every other file, except those that an evaluation adds: its report
and the model card are not part of the package's digest. The folder `tasks` has the definitions that
the model was made for; packages from before they were carried name them only.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from reviewmesh_worker.tasks.definition import Task, TaskError, load_tasks

FORMAT: Final = 1
MANIFEST_FILE: Final = "manifest.json"
EVALUATION_FILE: Final = "evaluation.json"
EVALUATION_PAGE: Final = "evaluation.html"
CARD_FILE: Final = "MODEL_CARD.md"
TASKS_FOLDER: Final = "tasks"
NOT_HASHED: Final = frozenset({MANIFEST_FILE, EVALUATION_FILE, EVALUATION_PAGE, CARD_FILE})

ModelKind = Literal["encoder", "causal"]

# Formats that contain data only: no pickles, no code.
HARMLESS: Final = frozenset(
    {".json", ".jinja", ".jsonl", ".md", ".model", ".onnx", ".png", ".safetensors", ".txt", ".yaml"}
)
LARGEST_MANIFEST: Final = 4 * 1024 * 1024
LARGEST_CONFIGURATION: Final = 1024 * 1024
# Vocabularies contain no configuration, and may be of any size.
VOCABULARIES: Final = frozenset({"tokenizer.json", "vocab.json"})
# Keys with which a configuration of transformers would load code from the package.
CODE_KEYS: Final = frozenset({"auto_map", "custom_pipelines"})

_COPY_ANEW: Final = "copy the package anew from where it was made, or make it anew"


class PackageError(ValueError):
    """A folder is not a usable package; the message says what is wrong and what to do."""


def _inside(path: str) -> str:
    parts = PurePosixPath(path)
    if not path or parts.is_absolute() or ".." in parts.parts or str(parts) != path:
        raise ValueError(f"expected the path of a file inside the package, found {path!r}")
    return path


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_.-]{0,79}$")]
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""As `sha256sum` prints it."""
_FilePath = Annotated[str, AfterValidator(_inside)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskVersion(_Part):
    """The definition of a task that a model was made for."""

    version: Version
    digest: Digest


class Base(_Part):
    """The base model that was fine-tuned."""

    name: str
    source: str
    licence: str


class DataSource(_Part):
    """A file of labelled rows that a model was made with."""

    name: str
    sha256: Sha256
    rows: int
    licence: str


class Manifest(_Part):
    format: Literal[1] = FORMAT
    name: Name
    version: Version
    kind: ModelKind
    """The kind of weights; together with the machine it decides which engine serves them."""
    tasks: dict[Name, TaskVersion] = Field(min_length=1)
    base: Base | None
    """None if the model was trained from random weights."""
    license: str
    data: list[DataSource]
    languages: list[Language] | None = None
    """Languages that the model was made for, as BCP 47 primary subtags; None if unknown."""
    training: dict[str, Any]
    """The settings as trained."""
    scores: dict[str, Any] | None = None
    files: dict[_FilePath, Sha256] = Field(min_length=1)
    created_at: datetime


@dataclass(frozen=True)
class Package:
    """A folder whose manifest was read; `verify` checks everything else."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> Package:
        """Read a folder's manifest. Raises PackageError."""
        return cls(folder, _read(folder / MANIFEST_FILE))

    @property
    def kind(self) -> str:
        return self.manifest.kind

    @property
    def id(self) -> str:
        return f"{self.manifest.name}@{self.manifest.version}"

    @cached_property
    def digest(self) -> str:
        """The digest of all that affects answers: the manifest without its scores and date."""
        left_out = {"scores", "created_at"}
        if self.manifest.languages is None:
            # Packages made before manifests had them keep their digests.
            left_out.add("languages")
        decisive = self.manifest.model_dump(mode="json", exclude=left_out)
        canonical = json.dumps(decisive, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"

    @cached_property
    def carried(self) -> dict[str, Task]:
        """The definitions of tasks in its folder. Raises PackageError."""
        folder = self.folder / TASKS_FOLDER
        # A provider's model has no folder.
        if not self.manifest.files or not folder.is_dir():
            return {}
        # They are read before the files are verified: no links, and nothing large.
        for path in _files_in(self.folder):
            file = self.folder / path
            if folder in file.parents and file.stat().st_size > LARGEST_CONFIGURATION:
                raise PackageError(
                    f"{file}: expected at most {LARGEST_CONFIGURATION:,} bytes, found "
                    f"{file.stat().st_size:,}; {_COPY_ANEW}"
                )
        try:
            return load_tasks(folder)
        except TaskError as error:
            raise PackageError(f"{error}; {_COPY_ANEW}") from error

    def verify(self, tasks: Mapping[str, Task]) -> None:
        """Check every file, and that `fitting` has all of `tasks` that it was made for.

        Raises PackageError.
        """
        self.verify_tasks(tasks)
        self.verify_files()

    def fitting(self, tasks: Mapping[str, Task]) -> dict[str, Task]:
        """Those of the tasks that it was made for, each in the version that it was made for.

        A definition is one of `tasks`, or else its own, or one that comes with the project: exactly
        what the manifest names, wherever it is. Golden rows decide no answer, so those of `tasks`
        may be newer than its own. Raises PackageError.
        """
        found: dict[str, Task] = {}
        for name in tasks:
            for definitions in (tasks, self.carried, _bundled_tasks()):
                task = definitions.get(name)
                if task is not None and self.manifest.tasks.get(name) == version_of(task):
                    found[name] = task
                    break
        return found

    def verify_tasks(self, tasks: Mapping[str, Task]) -> None:
        """As `verify`, without reading the files."""
        made_for = self.manifest.tasks
        shared = [task for name, task in tasks.items() if name in made_for]
        if not shared:
            raise PackageError(
                f"{self.id} serves {_listed(made_for)}, expected one for {_listed(tasks)}; "
                "name another package"
            )
        fitting = self.fitting(tasks)
        for task in shared:
            if task.name not in fitting:
                raise PackageError(_other_definition(self.id, task, made_for[task.name]))

    def verify_files(self) -> None:
        """Check that the files have the digests of the manifest. Raises PackageError."""
        there = set(_files_in(self.folder))
        named = self.manifest.files
        if missing := named.keys() - there:
            raise PackageError(
                f"{self.folder}: the manifest names {_listed(missing)}, which the folder has not; "
                f"{_COPY_ANEW}"
            )
        if extra := there - named.keys():
            raise PackageError(
                f"{self.folder}: the manifest does not name {_listed(extra)}; take what does not "
                "belong there out of the folder, or make the package anew"
            )
        for path, expected in named.items():
            _check_harmless(self.folder / path)
            found = _sha256(self.folder / path)
            if found != expected:
                raise PackageError(
                    f"{self.folder / path}: expected the SHA-256 {expected}, found {found}: the "
                    f"file was cut short or changed; {_COPY_ANEW}"
                )


def write_manifest(
    folder: Path,
    *,
    name: str,
    version: str,
    kind: ModelKind,
    tasks: Mapping[str, Task],
    base: Base | None,
    license: str,
    data: Iterable[DataSource],
    training: Mapping[str, Any],
    languages: Iterable[str] | None = None,
    scores: Mapping[str, Any] | None = None,
) -> Manifest:
    """Make a package of the files in the folder. Raises PackageError."""
    try:
        manifest = Manifest(
            name=name,
            version=version,
            kind=kind,
            tasks={task.name: version_of(task) for task in tasks.values()},
            base=base,
            license=license,
            data=list(data),
            languages=None if languages is None else list(languages),
            training=dict(training),
            scores=None if scores is None else dict(scores),
            files={path: _sha256(folder / path) for path in sorted(_files_in(folder))},
            created_at=datetime.now(UTC).replace(microsecond=0),
        )
    except ValidationError as error:
        raise PackageError(f"{folder}: {_problems(error)}") from error
    content = manifest.model_dump(mode="json")
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")
    return manifest


def _read(file: Path) -> Manifest:
    try:
        found = file.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise PackageError(f"{file}: expected a file, no link and no device; {_COPY_ANEW}")
        if found.st_size > LARGEST_MANIFEST:
            raise ValueError(f"at most {LARGEST_MANIFEST:,} bytes, not {found.st_size:,}")
        content = json.loads(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise PackageError(f"{file}: expected JSON that is not nested so deep; {_COPY_ANEW}") from (
            error
        )
    except OSError as error:
        raise PackageError(
            f"expected the manifest of a package at {file}, {error.strerror}; name the folder of a "
            "package"
        ) from error
    except ValueError as error:
        raise PackageError(f"{file}: expected JSON, {error}; {_COPY_ANEW}") from error
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        raise PackageError(
            f"{file}: expected the format {FORMAT}, found {version!r}; use the reviewmesh that "
            "made the package, or make it anew with this one"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise PackageError(f"{file}: {_problems(error)}; {_COPY_ANEW}") from error


def version_of(task: Task) -> TaskVersion:
    return TaskVersion(version=task.version, digest=task.digest)


@cache
def _bundled_tasks() -> Mapping[str, Task]:
    return load_tasks()


def _other_definition(package: str, task: Task, made_for: TaskVersion) -> str:
    if task.version != made_for.version:
        return (
            f"{package} was made for version {made_for.version} of the task {task.name}, which it "
            f"does not carry, and the task here is of version {task.version}; name a package for "
            "that version, or the folder with the task's definition of the package's version"
        )
    return (
        f"{package} was made for version {made_for.version} of the task {task.name} with the "
        f"digest {made_for.digest}, and the task here has the same version and the digest "
        f"{task.digest}: its definition was edited; raise its version and make a package for "
        "it, or undo the edit"
    )


def _files_in(folder: Path) -> Iterator[str]:
    """The paths of a package's files, relative and with forward slashes."""
    for parent, folders, files in os.walk(folder):
        for name in folders:
            if (Path(parent) / name).is_symlink():
                raise PackageError(
                    f"{Path(parent) / name}: a package may not hold a link to a folder; copy what "
                    "it leads to"
                )
        for name in files:
            file = Path(parent) / name
            if not stat.S_ISREG(file.lstat().st_mode):
                raise PackageError(
                    f"{file}: a package may hold files only, no links and no devices; copy what "
                    "it leads to"
                )
            path = file.relative_to(folder).as_posix()
            if path not in NOT_HASHED:
                yield path


def _check_harmless(file: Path) -> None:
    """Raises PackageError for a file that could run code when it is loaded."""
    if file.suffix not in HARMLESS:
        raise PackageError(
            f"{file}: a package may hold {_listed(HARMLESS)}; found {file.name!r}: give weights as "
            "safetensors (or ONNX), and leave code out"
        )
    if file.suffix == ".json" and file.name not in VOCABULARIES:
        _check_configuration(file)


def _check_configuration(file: Path) -> None:
    """Raises PackageError where it names code to load, however deep, or cannot be searched."""
    keys: set[str] = set()
    size = file.stat().st_size
    if size > LARGEST_CONFIGURATION:
        raise PackageError(
            f"{file}: expected JSON of at most {LARGEST_CONFIGURATION:,} bytes, found {size:,}; "
            f"larger may be {_listed(VOCABULARIES)} only"
        )
    try:
        # The hook sees every object, and duplicate keys.
        json.loads(file.read_bytes(), object_pairs_hook=lambda pairs: keys.update(dict(pairs)))
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{file}: expected JSON, {error}; {_COPY_ANEW}") from error
    if named := CODE_KEYS & keys:
        raise PackageError(
            f"{file}: names code that is to be loaded ({_listed(named)}); take it out, and "
            "use a model of an architecture that the engine knows"
        )


def _sha256(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise PackageError(f"{file}: cannot be read, {error.strerror}") from error


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()
    )
