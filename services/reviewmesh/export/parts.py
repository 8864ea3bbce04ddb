"""Writes the parts of an export, and writes them anew without the rows that were superseded."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reviewmesh.export.columns import View, views
from reviewmesh.export.formats import RowFormat, parquet_writing
from reviewmesh.export.journal import Erased, Part
from reviewmesh.export.store import DRAFTS, Store

KEYS_FOLDER = "_export/keys"
ID = "review_id"
KEYS = pa.schema([(ID, pa.string())])
OWN_NAME = re.compile(r"^part-[0-9a-f]{8}-\d+(-erased)?\.(parquet|jsonl\.gz)$")
OWN_FOLDERS = ("full", "flat", KEYS_FOLDER)


class Parts:
    """The files of one export, in one format."""

    def __init__(self, store: Store, format: RowFormat, run: str) -> None:
        self._store = store
        self._format = format
        self._run = run
        self._named = 0
        self.views: tuple[View, View] = views()

    def path(self, view: str, part: Part) -> str:
        """Folders by day, named as Hive's partitions are."""
        return f"{view}/day={part.day}/{part.name}{self._format.suffix}"

    def write(
        self, day: str, chunk: int, keys: pa.Array, content: Mapping[str, Iterable[pa.Table]]
    ) -> Part:
        """A new part with these ids, and for each view its rows in the same order."""
        part = Part(self._new_name(), day, len(keys), chunk)
        for view in self.views:
            with (
                self._store.writing(self.path(view.name, part)) as file,
                self._format.writing(file, view) as sink,
            ):
                for table in content[view.name]:
                    sink.write(table)
        self._write_keys(part.name, keys)
        return part

    def write_erased(self, chunk: int, ids: Sequence[str]) -> Erased:
        erased = Erased(f"{self._new_name()}-erased", chunk)
        self._write_keys(erased.name, pa.array(ids, pa.string()))
        return erased

    def keys(self, part: Part | Erased) -> pa.Array:
        """The ids in a part, in the order of its rows."""
        with self._store.reading(_keys_path(part.name)) as file:
            column = pq.read_table(file, schema=KEYS)[ID]
        return column.combine_chunks()

    def merge(self, sources: Sequence[Part], kept: Mapping[str, pa.Array]) -> Part | None:
        """One part of several of the same day: of each the rows that are kept, or all of them.

        `kept`: by a part's name, a Boolean for each row. None where nothing is left.
        """
        chosen = [(part, kept.get(part.name)) for part in sources]
        keys = pa.concat_arrays(
            [
                self.keys(part) if mask is None else self.keys(part).filter(mask)
                for part, mask in chosen
            ]
        )
        if not len(keys):
            return None
        content = {view.name: self._all_rows(view, chosen) for view in self.views}
        return self.write(sources[0].day, max(part.chunk for part in sources), keys, content)

    def _all_rows(
        self, view: View, chosen: Iterable[tuple[Part, pa.Array | None]]
    ) -> Iterator[pa.Table]:
        for part, mask in chosen:
            yield from self._rows(view, part, mask)

    def _rows(self, view: View, part: Part, mask: pa.Array | None) -> Iterator[pa.Table]:
        at = 0
        with self._store.reading(self.path(view.name, part)) as file:
            for table in self._format.tables(file, view):
                yield table if mask is None else table.filter(mask.slice(at, len(table)))
                at += len(table)
        if at != part.rows:
            raise RuntimeError(f"{part.name}: expected {part.rows} rows, got {at}")

    def paths(self, parts: Iterable[Part], erased: Iterable[Erased] = ()) -> set[str]:
        """Every file of these."""
        listed = list(parts)
        of_keys: list[Part | Erased] = [*listed, *erased]
        return {self.path(view.name, part) for view in self.views for part in listed} | {
            _keys_path(item.name) for item in of_keys
        }

    def _write_keys(self, name: str, keys: pa.Array) -> None:
        with self._store.writing(_keys_path(name)) as file, parquet_writing(file, KEYS) as sink:
            sink.write(pa.table([keys], schema=KEYS))

    def _new_name(self) -> str:
        self._named += 1
        return f"part-{self._run}-{self._named:06}"


def files_of_exports(store: Store) -> set[str]:
    """Every file in the folder that a run wrote, of all parts and drafts."""
    found = set(store.list(DRAFTS))
    for folder in OWN_FOLDERS:
        found |= {path for path in store.list(folder) if OWN_NAME.match(path.rpartition("/")[2])}
    return found


def _keys_path(name: str) -> str:
    return f"{KEYS_FOLDER}/{name}.parquet"


def is_not_in(keys: pa.Array, others: pa.Array) -> pa.Array | None:
    """A Boolean for each id, whether it is none of the others; None where that is so for all."""
    found = pc.is_in(keys, value_set=others)
    return pc.invert(found) if pc.any(found).as_py() else None
