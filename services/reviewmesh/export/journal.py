"""What an export has done so far, written to its folder step by step.

Each step is a file with the next number, which only one run can create: of two runs that go on from
the same step, one is refused. So a run that stood still, and that another one has taken over from,
can change nothing any more.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reviewmesh.export.errors import AnotherExport, ExportEnds
from reviewmesh.export.store import Store

FOLDER = "_export/journal"
VERSION = 1


@dataclass(frozen=True)
class Part:
    """One file of each view, with the same reviews in the same order, and one of their ids."""

    name: str
    day: str
    rows: int
    chunk: int
    """Of two parts with the same review, the one of the higher chunk has the later revision."""


@dataclass(frozen=True)
class Erased:
    """The ids of reviews that were erased, a file of them; they belong to no part."""

    name: str
    chunk: int


@dataclass(frozen=True)
class PublishedParts:
    """What readers see: each review once."""

    number: int
    at: str
    offsets: Mapping[int, int]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class ExportState:
    """One step of an export."""

    number: int
    run: str
    """The run that made this step."""
    format: str
    topic: str
    topic_id: int
    offsets: Mapping[int, int] = field(default_factory=dict)
    """By partition: parts and erased ids hold everything before."""
    chunk: int = 0
    """The last one written."""
    settled: int = 0
    """Parts up to this chunk have no review in common."""
    parts: tuple[Part, ...] = ()
    erased: tuple[Erased, ...] = ()
    published: PublishedParts | None = None

    @property
    def is_published(self) -> bool:
        """Whether readers see all of it."""
        return self.settled == self.chunk

    def as_json(self) -> bytes:
        return json.dumps({"version": VERSION, **dataclasses.asdict(self)}).encode()


def _state(content: bytes, path: str) -> ExportState:
    value: dict[str, Any] = json.loads(content)
    if (version := value.pop("version")) != VERSION:
        raise ExportEnds(
            f"{path}: expected version {VERSION}, got {version}; a newer reviewmesh wrote it"
        )
    published = value.pop("published")
    return ExportState(
        **value
        | {
            "offsets": _offsets(value["offsets"]),
            "parts": _parts(value["parts"]),
            "erased": tuple(Erased(**item) for item in value["erased"]),
            "published": None
            if published is None
            else PublishedParts(
                **published
                | {
                    "offsets": _offsets(published["offsets"]),
                    "parts": _parts(published["parts"]),
                }
            ),
        }
    )


def _offsets(value: Mapping[str, int]) -> dict[int, int]:
    return {int(partition): offset for partition, offset in value.items()}


def _parts(value: list[dict[str, Any]]) -> tuple[Part, ...]:
    return tuple(Part(**item) for item in value)


class Journal:
    """The steps in a folder; only the latest one counts."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def latest(self) -> ExportState | None:
        """The latest step; None in a folder without an export."""
        while numbers := self._numbers():
            content = self._store.read(_path(max(numbers)))
            # Another run may have removed it, after a later one was written.
            if content is not None:
                return _state(content, _path(max(numbers)))
        return None

    def append(self, state: ExportState) -> None:
        """Make the next step. Raises AnotherExport where another run has made it."""
        path, content = _path(state.number), state.as_json()
        # A store that answered too late is asked again by its driver, and refuses its own file.
        made = self._store.create(path, content) or self._store.read(path) == content
        # Another run may have made this step, later ones, and removed this one.
        if not made or max(self._numbers()) != state.number:
            raise AnotherExport(self._store.folder)

    def forget_before(self, number: int) -> None:
        for earlier in self._numbers():
            if earlier < number:
                self._store.remove(_path(earlier))

    def _numbers(self) -> list[int]:
        names = [path.rpartition("/")[2].removesuffix(".json") for path in self._store.list(FOLDER)]
        return [int(name) for name in names if name.isdecimal()]


def _path(number: int) -> str:
    return f"{FOLDER}/{number:012}.json"
