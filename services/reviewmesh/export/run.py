"""One run of an export: takes over from the last one, reads, settles and publishes.

Each step is written to the journal, so a run that is killed anywhere is gone on with by the next
one. Readers follow `manifest.json`, which is replaced in one step when a run has come to the end:
it names files that never change and have no review in common. Everything else is removed after it.
"""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from reviewmesh.clock import milliseconds, wall_clock
from reviewmesh.export.chunk import Chunk
from reviewmesh.export.errors import AnotherExport, ExportEnds
from reviewmesh.export.formats import FORMATS, RowFormat
from reviewmesh.export.journal import Erased, ExportState, Journal, Part, PublishedParts
from reviewmesh.export.parts import Parts, files_of_exports, is_not_in
from reviewmesh.export.source import ReviewSource
from reviewmesh.export.store import Store
from reviewmesh.kafka.topicids import is_another
from reviewmesh.query.values import iso

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
DEFAULT_FORMAT = "parquet"
PART_REVIEWS = 100_000
"""Parts are put together up to so many."""
MAX_SMALL_PARTS = 8
"""Of one day, before they are put together to fewer."""
KEYS_AT_ONCE = 1_000_000
"""Ids of new parts that are held to look for them in earlier ones."""
CHUNK_S = 60.0
"""After so long a step is made, however little has come."""


@dataclass
class Outcome:
    """What a run did."""

    read: int = 0
    superseded: int = 0
    """Earlier revisions and erased reviews that were taken out of parts."""
    gaps: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By partition: offsets that were deleted before they were exported, from and up to."""
    unreadable: list[str] = field(default_factory=list)
    topic_is_new: bool = False
    published: PublishedParts | None = None

    @property
    def is_whole(self) -> bool:
        return not self.gaps and not self.unreadable


class ExportRun:
    """One run, in one folder."""

    def __init__(
        self,
        store: Store,
        source: ReviewSource,
        format_name: str | None = None,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._store = store
        self._source = source
        self._progress = progress
        self._journal = Journal(store)
        self._run = uuid.uuid4().hex[:8]
        self._outcome = Outcome()
        # What is there before this run takes over, and its first step does not name, no run will
        # ever name: of what comes later that cannot be said, where a later run has begun.
        earlier = files_of_exports(store)
        self._state = self._taken_over(format_name)
        self._format: RowFormat = FORMATS[self._state.format]
        self._parts = Parts(store, self._format, self._run)
        self._unnamed = earlier - self._named()

    def __call__(self) -> Outcome:
        """Raises ExportEnds; and CannotReach, after which another run goes on."""
        try:
            self._write_manifest()
            self._remove(self._unnamed)
            self._read()
            if not self._state.is_published or self._state.published is None:
                before = self._named()
                self._settle()
                self._publish()
                self._remove(before - self._named())
        except FileNotFoundError:
            latest = self._journal.latest()
            if latest is None or latest.run == self._run:
                raise
            raise AnotherExport(self._store.folder) from None
        self._outcome.published = self._state.published
        return self._outcome

    # -- steps -------------------------------------------------------------------------------

    def _taken_over(self, format_name: str | None) -> ExportState:
        """The last state, made a step of this run: no earlier run can make another one."""
        before = self._journal.latest()
        if before is None:
            state = ExportState(
                1,
                self._run,
                format_name or DEFAULT_FORMAT,
                self._source.topic,
                self._source.topic_id,
            )
        else:
            self._check(before, format_name)
            state = dataclasses.replace(before, number=before.number + 1, run=self._run)
        self._journal.append(state)
        return state

    def _check(self, before: ExportState, format_name: str | None) -> None:
        folder = self._store.folder
        if format_name not in (None, before.format):
            raise ExportEnds(
                f"{folder} holds {before.format}, and --format says {format_name}: expected the "
                "same, or another folder"
            )
        if before.topic != self._source.topic:
            raise ExportEnds(
                f"{folder} holds reviews of {before.topic}, and this mesh has "
                f"{self._source.topic}: expected the same, or another folder"
            )

    def _step(self, **changes: Any) -> None:
        state = dataclasses.replace(self._state, number=self._state.number + 1, **changes)
        self._journal.append(state)
        self._state = state

    def _named(self) -> set[str]:
        """The files that the journal or the manifest names."""
        published = self._state.published
        return self._parts.paths(self._state.parts, self._state.erased) | self._parts.paths(
            published.parts if published else ()
        )

    def _remove(self, paths: set[str]) -> None:
        """Remove what is named no longer, and the steps before this run's last one."""
        for path in sorted(paths):
            self._store.remove(path)
        self._journal.forget_before(self._state.number)

    # -- reading -----------------------------------------------------------------------------

    def _read(self) -> None:
        starts, ends = self._range()
        position = dict(starts)
        chunk, began = Chunk(self._format, self._parts.views), time.monotonic()
        for item in self._source.read(starts, ends):
            if item.review is None:
                place = f"{item.partition}/{item.offset}"
                self._outcome.unreadable.append(f"{place}: {item.problem}")
            else:
                chunk.add(item.review, item.size, item.timestamp_ms)
                self._outcome.read += 1
            position[item.partition] = item.offset + 1
            if chunk.is_full or time.monotonic() - began > CHUNK_S:
                self._write(chunk, position)
                chunk, began = Chunk(self._format, self._parts.views), time.monotonic()
        self._write(chunk, {**position, **ends})

    def _range(self) -> tuple[dict[int, int], dict[int, int]]:
        bounds = self._source.bounds()
        known: Mapping[int, int] = self._state.offsets
        if is_another(self._state.topic_id, self._source.topic_id):
            # Its revisions begin again at 1, and all of them are later than what was exported.
            self._outcome.topic_is_new = True
            known = {}
        starts, ends = {}, {}
        for partition, (first, end) in bounds.items():
            start = known.get(partition, first)
            if start > end:
                raise ExportEnds(
                    f"{self._source.topic}/{partition}: exported up to offset {start}, and the "
                    f"topic ends at {end}: it has lost records. Export to another folder"
                )
            if start < first:
                self._outcome.gaps[partition] = (start, first)
            starts[partition], ends[partition] = max(start, first), end
        return starts, ends

    def _write(self, chunk: Chunk, position: Mapping[int, int]) -> None:
        if not chunk.is_empty:
            number = self._state.chunk + 1
            written, erased = chunk.write(self._parts, number)
            self._step(
                chunk=number,
                parts=self._state.parts + tuple(written),
                erased=self._state.erased + tuple(erased),
                offsets=dict(position),
                topic_id=self._source.topic_id,
            )
            self._progress(f"{self._outcome.read:,} reviews read")
        elif position != self._state.offsets:
            self._step(offsets=dict(position), topic_id=self._source.topic_id)

    # -- settling ----------------------------------------------------------------------------

    def _settle(self) -> None:
        """Write anew what holds superseded rows, and put small parts together."""
        kept = self._kept()
        for day in sorted({part.day for part in self._state.parts}):
            of_day = [part for part in self._state.parts if part.day == day]
            touched = [part for part in of_day if part.name in kept]
            small = [part for part in of_day if part.rows < PART_REVIEWS // 2]
            if len(small) >= MAX_SMALL_PARTS:
                touched += [part for part in small if part not in touched]
            for sources in _grouped(touched):
                merged = self._parts.merge(sources, kept)
                others = tuple(part for part in self._state.parts if part not in sources)
                self._step(parts=others + (() if merged is None else (merged,)))
                self._progress(f"{day}: {len(sources)} files written anew")

    def _kept(self) -> dict[str, pa.Array]:
        """By the name of a part with superseded rows: which rows stay.

        From the last chunk to the first, its ids are looked for in everything before it, and in
        what readers see, where no review is twice.
        """
        kept: dict[str, pa.Array] = {}
        newer: list[pa.Array] = []
        count = 0
        for chunk in range(self._state.chunk, self._state.settled, -1):
            items: list[Part | Erased] = [p for p in self._state.parts if p.chunk == chunk]
            self._drop([p for p in self._state.parts if p.chunk == chunk], newer, kept)
            items += [item for item in self._state.erased if item.chunk == chunk]
            for item in items:
                newer.append(self._parts.keys(item))
                count += len(newer[-1])
            if count >= KEYS_AT_ONCE or chunk == self._state.settled + 1:
                # These chunks have been compared with each other.
                self._drop([p for p in self._state.parts if p.chunk < chunk], newer, kept)
                newer, count = [], 0
        return kept

    def _drop(self, parts: list[Part], newer: list[pa.Array], kept: dict[str, pa.Array]) -> None:
        if not newer:
            return
        others = pa.concat_arrays(newer)
        for part in parts:
            mask = is_not_in(self._parts.keys(part), others)
            if mask is not None:
                earlier = kept.get(part.name)
                both = mask if earlier is None else pa.compute.and_(mask, earlier)
                self._outcome.superseded += _dropped(both) - _dropped(earlier)
                kept[part.name] = both

    def _publish(self) -> None:
        number = self._state.number + 1
        published = PublishedParts(
            number, iso(milliseconds(wall_clock())), self._state.offsets, self._state.parts
        )
        self._step(settled=self._state.chunk, erased=(), published=published)
        self._write_manifest()

    def _write_manifest(self) -> None:
        """The manifest of what the journal says is published, whichever run wrote it last."""
        published = self._state.published
        while published is not None:
            self._store.replace(MANIFEST, self._manifest(published))
            latest = self._journal.latest()
            now = latest.published if latest is not None else None
            if now is None or now.number == published.number:
                return
            published = now

    def _manifest(self, published: PublishedParts) -> bytes:
        content = {
            "version": MANIFEST_VERSION,
            "number": published.number,
            "published_at": published.at,
            "topic": self._state.topic,
            "offsets": published.offsets,
            "format": self._state.format,
            "reviews": sum(part.rows for part in published.parts),
            "files": [
                {
                    "day": part.day,
                    "reviews": part.rows,
                    **{view.name: self._parts.path(view.name, part) for view in self._parts.views},
                }
                for part in sorted(published.parts, key=lambda part: (part.day, part.name))
            ],
        }
        return json.dumps(content, indent=1).encode() + b"\n"


def _grouped(parts: list[Part]) -> list[list[Part]]:
    """Parts to put together, each group up to PART_REVIEWS and the part that goes beyond."""
    groups: list[list[Part]] = []
    room = 0
    for part in parts:
        if room <= 0:
            groups.append([])
            room = PART_REVIEWS
        groups[-1].append(part)
        room -= part.rows
    return groups


def _dropped(mask: pa.Array | None) -> int:
    return 0 if mask is None else len(mask) - int(pa.compute.sum(mask).as_py() or 0)
