"""A folder of packages, and for each task which of them serves, may serve next, served before.

    packages/<name>@<version>/   the packages
    aliases/<task>.json          serving, candidate, previous
    history.jsonl                every promotion and rollback
    gate.yaml                    what a package must reach to serve

Aliases are replaced whole, so readers need no lock: a worker that polls a registry, mounted read
only, sees the state before a change or after it. Who changes it holds a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from reviewmesh_worker.packages.files import (
    LockTimeout,
    append_line,
    copied,
    locked,
    replace_file,
    sync_folder,
)
from reviewmesh_worker.packages.manifest import Digest, Package, PackageError
from reviewmesh_worker.packages.versions import Known, check_versions
from reviewmesh_worker.tasks.definition import Task

LOCK_TIMEOUT_S: Final = 30.0

GateOutcome = Literal["passed", "forced"]
PackageCheck = Callable[[Package, Package | None, Collection[str]], Sequence[str]]
"""(candidate, serving package, tasks) → why the candidate may not serve them; empty when it may."""


class RegistryError(ValueError):
    """An operation of the registry failed; the message says why and what to do."""


class NotPassed(RegistryError):
    """A package may not serve: it did not pass its gate."""


class AliasEntry(BaseModel):
    """A package under an alias, as it was when the alias was set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: str
    digest: Digest
    gate: GateOutcome | None
    """How it was promoted; None for a candidate that was not."""
    at: AwareDatetime


class Aliases(BaseModel):
    """The content of `aliases/<task>.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    serving: AliasEntry | None = None
    candidate: AliasEntry | None = None
    previous: AliasEntry | None = None


class Change(BaseModel):
    """A line of `history.jsonl`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: AwareDatetime
    action: Literal["promote", "rollback"]
    package: str
    digest: Digest
    gate: GateOutcome | None
    tasks: dict[str, str | None]
    """By task, the previous package."""
    not_passed: list[str] = []
    """What of its gate a package did not pass that was promoted nevertheless,"""
    forced_because: str = ""
    """and the reason given."""


@dataclass(frozen=True, slots=True)
class Served:
    """The package that an alias names, with the digest that the alias has."""

    package: Package
    entry: AliasEntry


class Registry:
    """Raises RegistryError and PackageError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def gate_file(self) -> Path:
        return self.folder / "gate.yaml"

    # -- reading -----------------------------------------------------------------------------

    def ids(self) -> list[str]:
        """The id of every package, readable or not."""
        packages = self.folder / "packages"
        if not packages.is_dir():
            raise RegistryError(
                f"expected a registry of packages at {self.folder}, found no folder {packages}; "
                "`reviewmesh-models add` makes one"
            )
        found = (path.name for path in packages.iterdir() if path.is_dir())
        return sorted(name for name in found if not name.startswith("."))

    def package(self, id: str) -> Package:
        """By `name@version`."""
        if id not in self.ids():
            raise RegistryError(
                f"{self.folder} has no package {id!r}; it has: {', '.join(self.ids()) or 'none'}"
            )
        package = Package.open(self._folder_of(id))
        if package.id != id:
            raise PackageError(
                f"{package.folder}: the manifest says {package.id}; copy the package anew"
            )
        return package

    def versions(self) -> list[Known]:
        """The versions of tasks that each readable package was made for."""
        known: list[Known] = []
        for id in self.ids():
            with suppress(PackageError):
                known.append((id, self.package(id).manifest.tasks))
        return known

    def tasks(self) -> list[str]:
        """The tasks that have aliases."""
        return sorted(file.stem for file in (self.folder / "aliases").glob("*.json"))

    def aliases(self, task: str) -> Aliases:
        file = self._alias_file(task)
        try:
            return Aliases.model_validate_json(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Aliases()
        except OSError as error:
            raise RegistryError(f"{file}: cannot be read, {error.strerror}") from error
        except ValueError as error:
            raise RegistryError(
                f"{file}: expected aliases as this registry writes them; take the file away and "
                f"promote a package anew: {_told(error)}"
            ) from error

    def raw_aliases(self, task: str) -> bytes | None:
        """The raw content of the alias file, to detect changes cheaply. Raises OSError."""
        try:
            return self._alias_file(task).read_bytes()
        except FileNotFoundError:
            return None

    def resolve(self, task: str) -> Served:
        """The package that serves a task. Its files are not verified."""
        entry = self.aliases(task).serving
        if entry is None:
            raise RegistryError(
                f"no package of {self.folder} serves the task {task}; promote one that does: "
                "reviewmesh-models promote"
            )
        if entry.gate is None:
            raise RegistryError(
                f"{self._alias_file(task)}: {entry.package} stands as serving without having "
                "passed a gate; promote it: reviewmesh-models promote"
            )
        return self._served(task, entry)

    def resolve_candidate(self, task: str) -> Served:
        """What may serve a task next; without a candidate, what serves: a candidate that was
        promoted goes on. The files of the package are not looked at."""
        entry = self.aliases(task).candidate
        return self.resolve(task) if entry is None else self._served(task, entry)

    def resolve_previous(self, task: str) -> Served | None:
        """The package that served a task before, if any. Its files are not verified."""
        entry = self.aliases(task).previous
        return None if entry is None else self._served(task, entry)

    def history(self) -> list[Change]:
        """All changes, oldest first."""
        file = self.folder / "history.jsonl"
        lines = file.read_text(encoding="utf-8").split("\n") if file.is_file() else []
        try:
            return [Change.model_validate_json(line) for line in lines if line.strip()]
        except ValidationError as error:
            raise RegistryError(
                f"{file}: expected a change on each line; mend the line: {_told(error)}"
            ) from error

    # -- changing ----------------------------------------------------------------------------

    def add(self, source: Path, tasks: Mapping[str, Task]) -> Package:
        """Copy a package in; it becomes the candidate of the tasks that it serves.

        `tasks` are definitions for what it does not carry. A version of a task that other packages
        have, and with another definition, is refused.
        """
        package = Package.open(source)
        with copied(source, self.folder / "packages") as copy:
            # Verify the copy, because the copy is what will be served.
            Package(copy, package.manifest).verify(tasks)
            with self._lock():
                target = self._folder_of(package.id)
                if target.exists():
                    raise RegistryError(
                        f"{self.folder} has a package {package.id} already; make the package "
                        "under another version"
                    )
                check_versions(package.manifest.tasks, self.versions())
                copy.rename(target)
                sync_folder(target.parent)
                self._put_candidate(package, package.manifest.tasks)
        return self.package(package.id)

    def promote(
        self,
        id: str,
        tasks: Mapping[str, Task],
        check: PackageCheck,
        only: Collection[str] = (),
        forced_because: str = "",
    ) -> list[str]:
        """Let a package serve its tasks, or `only` some; returns those that it did not serve
        before.

        It must pass `check`, unless a reason to force it is given, which is recorded in the
        history.
        """
        with self._lock():
            package = self.package(id)
            package.verify(tasks)
            before = {task: self.aliases(task) for task in self._wanted(package, only)}
            now = {task: was for task, was in before.items() if not _is(was.serving, package)}
            if not now:
                raise RegistryError(f"{id} serves {', '.join(before)} already")
            failures = self._failures(package, now, check)
            if failures and not forced_because:
                raise NotPassed(f"{id} may not serve: {'; '.join(failures)}")
            gate: GateOutcome = "forced" if failures else "passed"
            entry = AliasEntry(package=id, digest=package.digest, gate=gate, at=_now())
            self._record(
                "promote", now, entry=entry, forced_because=forced_because, failures=failures
            )
            for task, was in now.items():
                candidate = None if _is(was.candidate, package) else was.candidate
                aliases = Aliases(serving=entry, candidate=candidate, previous=was.serving)
                self._write(task, aliases)
        return sorted(now)

    def gate_failures(self, package: Package, check: PackageCheck) -> list[str]:
        """What of its gate the package does not pass, for all of its tasks."""
        stand = {task: self.aliases(task) for task in package.manifest.tasks}
        return self._failures(package, stand, check)

    def nominate(self, id: str, tasks: Mapping[str, Task], only: Collection[str] = ()) -> list[str]:
        """Make a package of the registry the candidate of its tasks, or of `only` some.

        Tasks that it serves are left out; returns the others. Raises RegistryError without any.
        """
        with self._lock():
            package = self.package(id)
            package.verify(tasks)
            aliases = {task: self.aliases(task) for task in self._wanted(package, only)}
            others = [task for task, was in aliases.items() if not _is(was.serving, package)]
            if not others:
                raise RegistryError(f"{id} serves {', '.join(aliases)} already")
            self._put_candidate(package, others)
        return sorted(others)

    def rollback(
        self, id: str, tasks: Mapping[str, Task], only: Collection[str] = ()
    ) -> dict[str, str]:
        """Take a package out of service: the previous packages serve its tasks again.

        Returns by task the package that serves again.
        """
        with self._lock():
            serving = {
                task: aliases
                for task in self.tasks()
                if (aliases := self.aliases(task)).serving is not None
                and aliases.serving.package == id
            }
            wanted = {task: was for task, was in serving.items() if not only or task in only}
            if not wanted or set(only) - wanted.keys():
                raise RegistryError(
                    f"{id} serves {', '.join(serving) or 'no task'}"
                    + (f", not {', '.join(sorted(set(only) - serving.keys()))}" if only else "")
                )
            again: dict[str, AliasEntry] = {}
            for task, was in wanted.items():
                if was.previous is None:
                    raise RegistryError(
                        f"nothing served {task} before {id}; promote another package"
                    )
                self._served(task, was.previous).package.verify(tasks)
                again[task] = was.previous.model_copy(update={"at": _now()})
            for task, entry in again.items():
                self._record("rollback", {task: wanted[task]}, entry)
                was = wanted[task]
                self._write(
                    task, was.model_copy(update={"serving": entry, "previous": was.serving})
                )
        return {task: entry.package for task, entry in again.items()}

    # -- parts -------------------------------------------------------------------------------

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.ids()
        try:
            with locked(self.folder / ".lock", LOCK_TIMEOUT_S):
                yield
        except LockTimeout as error:
            raise RegistryError(
                f"another process changes {self.folder}, {error}; try again when it is done"
            ) from error

    def _served(self, task: str, entry: AliasEntry) -> Served:
        package = self.package(entry.package)
        if package.digest != entry.digest:
            raise RegistryError(
                f"{self._alias_file(task)}: {entry.package} was put there with the digest "
                f"{entry.digest} and is {package.digest} now: it was changed; copy the package "
                "anew from where it was made, or promote another version"
            )
        return Served(package, entry)

    def _wanted(self, package: Package, only: Collection[str]) -> list[str]:
        own = package.manifest.tasks
        if foreign := set(only) - own.keys():
            raise RegistryError(
                f"{package.id} serves {', '.join(sorted(own))}, not {', '.join(sorted(foreign))}"
            )
        return sorted(only or own)

    def _failures(
        self, package: Package, tasks: Mapping[str, Aliases], check: PackageCheck
    ) -> list[str]:
        """The failures of the gate, against each package that serves some of the tasks."""
        rivals: dict[str | None, list[str]] = {}
        for task, was in tasks.items():
            rival = None if was.serving is None else was.serving.package
            rivals.setdefault(rival, []).append(task)
        failures: list[str] = []
        for rival, contested in rivals.items():
            try:
                serving = None if rival is None else self.package(rival)
            except PackageError as error:
                failures.append(f"what serves {', '.join(contested)} cannot be compared: {error}")
            else:
                failures += check(package, serving, contested)
        return failures

    def _put_candidate(self, package: Package, tasks: Iterable[str]) -> None:
        entry = AliasEntry(package=package.id, digest=package.digest, gate=None, at=_now())
        for task in tasks:
            self._write(task, self.aliases(task).model_copy(update={"candidate": entry}))

    def _record(
        self,
        action: Literal["promote", "rollback"],
        tasks: Mapping[str, Aliases],
        entry: AliasEntry,
        forced_because: str = "",
        failures: Sequence[str] = (),
    ) -> None:
        """Written before the aliases change, so that every change is recorded."""
        change = Change(
            at=entry.at,
            action=action,
            package=entry.package,
            digest=entry.digest,
            gate=entry.gate,
            tasks={
                task: None if was.serving is None else was.serving.package
                for task, was in tasks.items()
            },
            not_passed=list(failures),
            forced_because=forced_because if failures else "",
        )
        append_line(self.folder / "history.jsonl", change.model_dump_json())

    def _write(self, task: str, aliases: Aliases) -> None:
        replace_file(self._alias_file(task), aliases.model_dump_json(indent=2) + "\n")

    def _folder_of(self, id: str) -> Path:
        return self.folder / "packages" / id

    def _alias_file(self, task: str) -> Path:
        return self.folder / "aliases" / f"{task}.json"


def _is(entry: AliasEntry | None, package: Package) -> bool:
    return entry is not None and (entry.package, entry.digest) == (package.id, package.digest)


def _now() -> datetime:
    return datetime.now(UTC)


def _told(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
