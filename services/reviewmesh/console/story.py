"""One review's story: its records, its revisions, and where its time went."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reviewmesh.console.mesh import Mesh
from reviewmesh.console.places import Place, PlaceIndex, grouped
from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh.kafka.record import TRACEPARENT, Record
from reviewmesh.kafka.tracing import context_at, context_of
from reviewmesh.query.connection import Connection
from reviewmesh.query.errors import CannotReach
from reviewmesh.query.reading import EndReached, Reader
from reviewmesh.query.search import DecodedRecord, Occurrence, decoded_of, judged_occurrences
from reviewmesh.trace.spans import Span, spans_of_enriched
from reviewmesh_schemas.names import ACCEPTED, DEAD_LETTER, ENRICHED, RAW, TASKS

READ_WITHIN_S = 10.0
# A review that was edited or done again very often shows its newest records.
RECORDS_SHOWN = 400


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of the way, within the whole of it."""

    service: str
    name: str
    start_ms: float
    end_ms: float
    left: float
    """Percent of the whole."""
    width: float
    error: str

    @property
    def ms(self) -> float:
        return self.end_ms - self.start_ms


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the text; `label` is empty outside of entities."""

    text: str
    label: str = ""
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Revision:
    """An enriched record of the review."""

    record: Record
    content: Mapping[str, Any]
    bars: tuple[Bar, ...]
    pieces: tuple[Piece, ...]
    changed: tuple[str, ...]
    """What differs from the revision before."""
    trace_id: str

    @property
    def number(self) -> int:
        return int(self.content["revision"])

    @property
    def whole_ms(self) -> float:
        return max((bar.end_ms for bar in self.bars), default=0.0) - min(
            (bar.start_ms for bar in self.bars), default=0.0
        )


@dataclass(frozen=True, slots=True)
class Story:
    review_id: str
    occurrences: tuple[Occurrence, ...]
    revisions: tuple[Revision, ...]
    """Newest first."""
    letters: tuple[DecodedRecord, ...]
    gone: int
    """Records that retention has deleted since they were indexed."""


class Storyteller:
    """Reads records by their coordinates, with one consumer that stays connected."""

    def __init__(self, mesh: Mesh, index: PlaceIndex) -> None:
        self._mesh = mesh
        self._index = index
        self._lock = threading.Lock()
        self._reader: Reader | None = None

    def close(self) -> None:
        with self._lock:
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    def story(self, review_id: str) -> Story:
        """Raises CannotReach and KafkaException."""
        connection = self._mesh.connection()
        places = self._index.places(review_id)[-RECORDS_SHOWN:]
        found = _decoded(connection, self.read(connection, places))
        mine = [
            (record, content) for record, content in found if _is_of(record, content, review_id)
        ]
        sources = dict.fromkeys(source for _, content in mine if (source := _source_of(content)))
        read = self.read(connection, list(sources))
        mine = [*_decoded(connection, read), *mine]
        return Story(
            review_id=review_id,
            occurrences=tuple(judged_occurrences(connection, mine)),
            revisions=_revisions(connection, mine),
            letters=tuple(item for item in mine if item[0].topic == DEAD_LETTER),
            gone=len(places) + len(sources) - len(found) - len(read),
        )

    def read(self, connection: Connection, places: Sequence[Place]) -> list[Record]:
        """The records that are still there, in the order of the places. Raises CannotReach."""
        if not places:
            return []
        with self._lock:
            if self._reader is None:
                self._reader = Reader(connection)
            try:
                found = self._read(self._reader, places)
            except BaseException:
                self._reader.close()
                self._reader = None
                raise
        return [found[place] for place in places if place in found]

    def _read(self, reader: Reader, places: Sequence[Place]) -> dict[Place, Record]:
        found: dict[Place, Record] = {}
        waiting = {at: list(offsets) for at, offsets in grouped(places).items()}
        deadline = time.monotonic() + READ_WITHIN_S
        while waiting:
            wanted = {at: offsets[0] for at, offsets in waiting.items()}
            reader.assign(wanted)
            for at in self._heads(reader, wanted, found, deadline):
                waiting[at].pop(0)
                if not waiting[at]:
                    del waiting[at]
        return found

    def _heads(
        self,
        reader: Reader,
        wanted: Mapping[MeshPartition, int],
        found: dict[Place, Record],
        deadline: float,
    ) -> Iterable[MeshPartition]:
        """Each partition, once what is at its offset was read, or is known to be gone."""
        unread = dict(wanted)
        while unread:
            for item in reader.poll():
                at = (
                    item.partition
                    if isinstance(item, EndReached)
                    else MeshPartition(item.topic, item.partition)
                )
                if at not in unread or (isinstance(item, Record) and item.offset < unread[at]):
                    continue
                if isinstance(item, Record) and item.offset == unread[at]:
                    found[Place(at, item.offset)] = item
                del unread[at]
                yield at
            if unread and time.monotonic() > deadline:
                raise CannotReach(
                    f"the broker did not send {len(unread)} records within {READ_WITHIN_S:g} s; "
                    "look at it on the overview"
                )


def _decoded(connection: Connection, records: Iterable[Record]) -> list[DecodedRecord]:
    return [(record, decoded_of(connection.codec(record.topic), record)) for record in records]


def _is_of(record: Record, content: Mapping[str, Any], review_id: str) -> bool:
    """Ids of different reviews can have the same hash."""
    if content.get("review_id") is not None:
        return bool(content["review_id"] == review_id)
    return record.key == review_id.encode(errors="surrogateescape")


def _source_of(content: Mapping[str, Any]) -> Place | None:
    """The producer's own record, of an accepted review."""
    if content.get("source_topic") != RAW or "acceptance" not in content:
        return None
    return Place(MeshPartition(RAW, content["source_partition"]), content["source_offset"])


def _revisions(connection: Connection, found: Iterable[DecodedRecord]) -> tuple[Revision, ...]:
    enriched = [item for item in found if item[0].topic == ENRICHED and "revision" in item[1]]
    enriched.sort(key=lambda item: item[1]["revision"])
    revisions = []
    before: Mapping[str, Any] | None = None
    for record, content in enriched:
        place = f"{ACCEPTED}/{content['accepted_partition']}/{content['accepted_offset']}"
        context = context_of(record.header(TRACEPARENT)) or context_at(place)
        spans = list(spans_of_enriched(content, record, context, "shown"))
        revisions.append(
            Revision(
                record=record,
                content=content,
                bars=_bars(spans),
                pieces=tuple(_pieces(content["text"] or "", content["entities"])),
                changed=() if before is None else tuple(changes(before, content)),
                trace_id=f"{context.trace_id:032x}",
            )
        )
        before = content
    return tuple(reversed(revisions))


def _bars(spans: Sequence[Span]) -> tuple[Bar, ...]:
    if not spans:
        return ()
    begin = min(span.start_ms for span in spans)
    whole = max(max(span.end_ms for span in spans) - begin, 1.0)
    return tuple(
        Bar(
            service=span.service,
            name=span.name,
            start_ms=span.start_ms,
            end_ms=span.end_ms,
            left=100 * (span.start_ms - begin) / whole,
            width=100 * (span.end_ms - span.start_ms) / whole,
            error=span.error or "",
        )
        for span in spans
    )


def _pieces(text: str, entities: Iterable[Mapping[str, Any]]) -> Iterable[Piece]:
    """The text from end to end; an entity that overlaps the one before is left out."""
    at = 0
    for entity in sorted(entities, key=lambda found: (found["start"], -found["end"])):
        start, end = entity["start"], entity["end"]
        if not at <= start < end <= len(text):
            continue
        if at < start:
            yield Piece(text[at:start])
        yield Piece(text[start:end], entity["label"], entity["score"])
        at = end
    if at < len(text):
        yield Piece(text[at:])


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[str]:
    """What a reader of the later revision finds changed, in words."""
    for name in ("text", "title", "language", "stars", "business_id"):
        if before[name] != after[name]:
            yield f"{name} changed"
    if before["erased_at"] is None and after["erased_at"] is not None:
        yield "erased"
    for task in TASKS:
        old, new = before["tasks"].get(task), after["tasks"].get(task)
        if old is None or new is None:
            continue
        if old["status"] != new["status"]:
            yield f"{task}: {old['status']} became {new['status']}"
        models = [
            f"{lineage['model']}@{lineage['model_version']}"
            for outcome in (old, new)
            if (lineage := outcome["lineage"])
        ]
        if len(set(models)) > 1:
            yield f"{task}: answered by {models[1]}, before by {models[0]}"
    if _labels(before, "entities", "label") != _labels(after, "entities", "label"):
        yield "entities differ"
    if _labels(before, "topics", "id") != _labels(after, "topics", "id"):
        yield "topics differ"
    moods = [(content["sentiment"] or {}).get("label") for content in (before, after)]
    if moods[0] != moods[1]:
        yield f"sentiment {moods[0] or 'missing'} became {moods[1] or 'missing'}"


def _labels(content: Mapping[str, Any], field: str, name: str) -> list[tuple[str, str]]:
    return sorted((found.get("text", ""), found[name]) for found in content[field])
