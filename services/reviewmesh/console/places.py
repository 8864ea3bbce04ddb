"""Where the records of each review are: an index on disk, made from the topics and made again.

It holds hashes of review ids and coordinates, no text of anybody. Dead letters are kept by stage,
cause and business, insights by business and window.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reviewmesh.kafka.partitions import MeshPartition
from reviewmesh_schemas.names import ACCEPTED, DEAD_LETTER, ENRICHED, REPROCESSED, RESULT_OF

TOPICS = (ACCEPTED, *RESULT_OF.values(), ENRICHED, DEAD_LETTER, REPROCESSED)
"""In the index by number: append only."""
VERSION = 1
CACHE_KB = 32 * 1024
BUSY_S = 10.0

TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS positions (
  topic TEXT, number INTEGER, next INTEGER, PRIMARY KEY (topic, number)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS places (
  review INTEGER, topic INTEGER, number INTEGER, at INTEGER,
  PRIMARY KEY (review, topic, number, at)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS letters (
  number INTEGER, at INTEGER, since_ms INTEGER, stage TEXT, cause TEXT, business TEXT,
  PRIMARY KEY (number, at)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS insights (
  business TEXT, window_start INTEGER, content TEXT,
  PRIMARY KEY (business, window_start)) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record is."""

    partition: MeshPartition
    offset: int


@dataclass(frozen=True, slots=True)
class LetterRow:
    """A dead letter as the index knows it."""

    partition: int
    offset: int
    since_ms: int
    stage: str
    cause: str
    business: str


@dataclass(slots=True)
class Batch:
    """What some records add to the index, and up to where they were read."""

    places: list[tuple[int, int, int, int]] = field(default_factory=list)
    letters: list[tuple[int, int, int, str, str, str]] = field(default_factory=list)
    insights: list[tuple[str, int, str]] = field(default_factory=list)
    insights_gone: list[tuple[str, int]] = field(default_factory=list)
    positions: dict[MeshPartition, int] = field(default_factory=dict)


class PlaceIndex:
    """One writer; each reading thread opens a connection of its own."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError and sqlite3.Error for a folder that cannot be written."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.file = folder / "places.sqlite"
        self._readers = threading.local()
        self._writer = self._opened()
        if self._meta("version") not in (None, str(VERSION)):
            self._made_again()
        self._set_meta("version", str(VERSION))

    def begin(self, cluster_id: str) -> None:
        """An index of another cluster is thrown away."""
        if self._meta("cluster") not in (None, cluster_id):
            self._made_again()
            self._set_meta("version", str(VERSION))
        self._set_meta("cluster", cluster_id)

    def positions(self) -> dict[MeshPartition, int]:
        """Where to go on reading."""
        rows = self._writer.execute("SELECT topic, number, next FROM positions")
        return {MeshPartition(topic, number): following for topic, number, following in rows}

    def forget(self, topic: str) -> None:
        """The topic was made again: its offsets mean other records now."""
        with self._writer:
            self._writer.execute("DELETE FROM positions WHERE topic = ?", (topic,))
            if topic in TOPICS:
                number = TOPICS.index(topic)
                self._writer.execute("DELETE FROM places WHERE topic = ?", (number,))
            if topic == DEAD_LETTER:
                self._writer.execute("DELETE FROM letters")

    def take(self, batch: Batch) -> None:
        """All of it or nothing; the same records again change nothing."""
        with self._writer as writer:
            writer.executemany("INSERT OR IGNORE INTO places VALUES (?, ?, ?, ?)", batch.places)
            writer.executemany(
                "INSERT OR REPLACE INTO letters VALUES (?, ?, ?, ?, ?, ?)", batch.letters
            )
            writer.executemany("INSERT OR REPLACE INTO insights VALUES (?, ?, ?)", batch.insights)
            writer.executemany(
                "DELETE FROM insights WHERE business = ? AND window_start = ?", batch.insights_gone
            )
            writer.executemany(
                "INSERT OR REPLACE INTO positions VALUES (?, ?, ?)",
                [(*partition, following) for partition, following in batch.positions.items()],
            )

    def drop_before(self, starts: Mapping[MeshPartition, int]) -> None:
        """Forget what retention has deleted from the topics."""
        with self._writer as writer:
            for (topic, number), start in starts.items():
                if topic in TOPICS:
                    writer.execute(
                        "DELETE FROM places WHERE topic = ? AND number = ? AND at < ?",
                        (TOPICS.index(topic), number, start),
                    )
                if topic == DEAD_LETTER:
                    writer.execute(
                        "DELETE FROM letters WHERE number = ? AND at < ?", (number, start)
                    )

    def places(self, review_id: str) -> list[Place]:
        """Every record of a review, and, seldom, one of another review with the same hash."""
        rows = self._reader().execute(
            "SELECT topic, number, at FROM places WHERE review = ? ORDER BY topic, at",
            (hash_of(review_id),),
        )
        return [Place(MeshPartition(TOPICS[topic], number), at) for topic, number, at in rows]

    def letter_groups(self) -> list[tuple[str, str, int, int, int]]:
        """Stage, cause, how many, the oldest and the newest in milliseconds; most first."""
        return list(
            self._reader().execute(
                "SELECT stage, cause, COUNT(*), MIN(since_ms), MAX(since_ms) FROM letters "
                "GROUP BY stage, cause ORDER BY COUNT(*) DESC"
            )
        )

    def letters(
        self, stage: str, cause: str, business: str, limit: int, after: tuple[int, int] | None
    ) -> list[LetterRow]:
        """Newest first; an empty filter lets all pass. `after`: the last of the page before."""
        wanted = {"stage": stage, "cause": cause, "business": business}
        tests = [f"{name} = ?" for name, value in wanted.items() if value]
        values: list[Any] = [value for value in wanted.values() if value]
        if after is not None:
            tests.append(
                "(since_ms, number, at) < (SELECT since_ms, number, at FROM letters "
                "WHERE number = ? AND at = ?)"
            )
            values += after
        where = f"WHERE {' AND '.join(tests)}" if tests else ""
        rows = self._reader().execute(
            f"SELECT number, at, since_ms, stage, cause, business FROM letters {where} "
            "ORDER BY since_ms DESC, number DESC, at DESC LIMIT ?",
            (*values, limit),
        )
        return [LetterRow(*row) for row in rows]

    def businesses(self, limit: int) -> list[str]:
        """Those with insights, by name; the whole mesh is the empty name."""
        rows = self._reader().execute(
            "SELECT DISTINCT business FROM insights ORDER BY business LIMIT ?", (limit,)
        )
        return [business for (business,) in rows]

    def windows(self, business: str, limit: int) -> list[tuple[int, str]]:
        """The newest windows of a business: start in milliseconds, and the record as JSON."""
        rows = self._reader().execute(
            "SELECT window_start, content FROM insights WHERE business = ? "
            "ORDER BY window_start DESC LIMIT ?",
            (business, limit),
        )
        return list(rows)[::-1]

    def size(self) -> int:
        """Bytes on disk."""
        return self.file.stat().st_size

    def close(self) -> None:
        self._writer.close()

    def _opened(self) -> sqlite3.Connection:
        opened = sqlite3.connect(self.file, timeout=BUSY_S, check_same_thread=False)
        opened.execute("PRAGMA journal_mode = WAL")
        # After a crash of the machine the last seconds are read from the topics again.
        opened.execute("PRAGMA synchronous = NORMAL")
        opened.execute(f"PRAGMA cache_size = -{CACHE_KB}")
        opened.executescript(TABLES)
        return opened

    def _reader(self) -> sqlite3.Connection:
        opened = getattr(self._readers, "connection", None)
        if opened is None:
            opened = self._readers.connection = sqlite3.connect(self.file, timeout=BUSY_S)
        return opened

    def _made_again(self) -> None:
        with self._writer as writer:
            for table in ("meta", "positions", "places", "letters", "insights"):
                writer.execute(f"DELETE FROM {table}")
        with closing(self._writer.cursor()) as cursor:
            cursor.execute("VACUUM")

    def _meta(self, name: str) -> str | None:
        row = self._writer.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def _set_meta(self, name: str, value: str) -> None:
        with self._writer as writer:
            writer.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))


def hash_of(review_id: str | bytes) -> int:
    """63 bits, for SQLite's signed integers."""
    data = review_id if isinstance(review_id, bytes) else review_id.encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") >> 1


def grouped(places: Iterable[Place]) -> dict[MeshPartition, Sequence[int]]:
    """Offsets by partition, in order."""
    found: dict[MeshPartition, list[int]] = {}
    for place in places:
        found.setdefault(place.partition, []).append(place.offset)
    return {partition: sorted(offsets) for partition, offsets in found.items()}
