"""The reviews read since the last step, in memory: of each the latest revision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from reviewmesh.clock import plausible_ms
from reviewmesh.export.columns import View
from reviewmesh.export.formats import RowFormat
from reviewmesh.export.journal import Erased, Part
from reviewmesh.export.parts import Parts

MAX_REVIEWS = 50_000
MAX_BYTES = 64 * 1024 * 1024
"""Of the rows as they will be written, before compression."""
# Decoded records take ten times the room of rows: few wait.
WAITING_RECORDS = 500
WAITING_BYTES = 2 * 1024 * 1024


@dataclass
class _Day:
    """The rows of one day, with those that a later one of the same chunk supersedes."""

    ids: list[str] = field(default_factory=list)
    kept: list[bool] = field(default_factory=list)
    waiting: list[Mapping[str, Any]] = field(default_factory=list)
    tables: dict[str, list[pa.Table]] = field(default_factory=dict)


class Chunk:
    """Takes reviews in the order of their offsets, until it is full."""

    def __init__(self, format: RowFormat, views: tuple[View, ...]) -> None:
        self._format = format
        self._views = views
        self._days: dict[str, _Day] = {}
        self._latest: dict[str, tuple[str, int] | None] = {}
        """By id: the day and row of the latest revision; None where it was erased."""
        self._bytes = 0
        self._waiting = 0
        self._waiting_bytes = 0

    def add(self, record: Mapping[str, Any], size: int, timestamp_ms: int) -> None:
        """`size` of its Avro; `timestamp_ms` of Kafka, where the review has no time of its own."""
        review_id = record["review_id"]
        earlier = self._latest.get(review_id)
        if earlier is not None:
            day, row = earlier
            self._days[day].kept[row] = False
        if record["erased_at"] is not None:
            self._latest[review_id] = None
            return
        name = day_of(record, timestamp_ms)
        into = self._days.setdefault(name, _Day())
        self._latest[review_id] = (name, len(into.ids))
        into.ids.append(review_id)
        into.kept.append(True)
        into.waiting.append(record)
        self._waiting += 1
        self._waiting_bytes += size
        if self._waiting >= WAITING_RECORDS or self._waiting_bytes >= WAITING_BYTES:
            self._convert()

    @property
    def is_full(self) -> bool:
        return len(self._latest) >= MAX_REVIEWS or self._bytes >= MAX_BYTES

    @property
    def is_empty(self) -> bool:
        return not self._latest

    def write(self, parts: Parts, number: int) -> tuple[list[Part], list[Erased]]:
        """All of it, as parts of chunk `number`."""
        self._convert()
        written = []
        for name, day in self._days.items():
            mask = pa.array(day.kept)
            keys = pa.array(day.ids, pa.string()).filter(mask)
            if len(keys):
                content = {
                    view: [pa.concat_tables(tables).filter(mask)]
                    for view, tables in day.tables.items()
                }
                written.append(parts.write(name, number, keys, content))
        erased = [review_id for review_id, place in self._latest.items() if place is None]
        return written, [parts.write_erased(number, erased)] if erased else []

    def _convert(self) -> None:
        for day in self._days.values():
            if not day.waiting:
                continue
            for view in self._views:
                table = self._format.table(view, [view.row(record) for record in day.waiting])
                day.tables.setdefault(view.name, []).append(table)
                self._bytes += table.nbytes
            day.waiting = []
        self._waiting = self._waiting_bytes = 0


def day_of(record: Mapping[str, Any], timestamp_ms: int) -> str:
    """The day, in UTC, on which this revision's content was accepted."""
    times = (record["accepted_at"], timestamp_ms)
    found = next((time for time in times if time is not None and plausible_ms(time)), 0)
    return datetime.fromtimestamp(found / 1000, UTC).date().isoformat()
