"""Any order of edits, erasures, runs, runs that are killed and runs that stood still meanwhile."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from reviewmesh.export import chunk, run
from reviewmesh.export.errors import AnotherExport
from reviewmesh.export.run import ExportRun
from reviewmesh.export.store import Store
from tests.export_reading import VIEWS, by_manifest, there
from tests.unit.export.reviews import Topic

REVIEWS = st.lists(st.integers(0, 9), min_size=1, max_size=6)
DAYS = st.integers(0, 2)


class Killed(BaseException):
    """As kill -9: nothing of the run goes on."""


class DyingStore(Store):
    """Dies at its n-th change of the folder, before it or in its midst."""

    def __init__(self, folder: str, changes: int) -> None:
        super().__init__(folder)
        self._left = changes

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            raise Killed

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        with super().writing(path) as file:
            self._count()
            yield file
            self._count()

    def create(self, path: str, content: bytes) -> bool:
        self._count()
        created = super().create(path, content)
        self._count()
        return created

    def replace(self, path: str, content: bytes) -> None:
        self._count()
        super().replace(path, content)

    def remove(self, path: str) -> None:
        self._count()
        super().remove(path)


class Exports(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="reviewmesh-export-"))
        self.topic = Topic()
        self.stalled: ExportRun | None = None
        self.known: set[tuple[str, int]] = set()
        self.small = [
            patch.object(chunk, "MAX_REVIEWS", 4),
            patch.object(run, "PART_REVIEWS", 8),
            patch.object(run, "MAX_SMALL_PARTS", 3),
            patch.object(run, "KEYS_AT_ONCE", 5),
        ]
        for one in self.small:
            one.start()

    def teardown(self) -> None:
        for one in self.small:
            one.stop()
        shutil.rmtree(self.folder)

    @initialize(format_name=st.sampled_from(("parquet", "jsonl")))
    def first(self, format_name: str) -> None:
        ExportRun(Store(str(self.folder)), self.topic, format_name)()

    @rule(numbers=REVIEWS, day=DAYS, erased=st.sampled_from((False, False, True)))
    def publish(self, numbers: list[int], day: int, erased: bool) -> None:
        for number in numbers:
            self.topic.publish(number, day, erased)
            self.known.add((f"r-{number}", self.topic.revision))

    @rule()
    def export(self) -> None:
        ExportRun(Store(str(self.folder)), self.topic)()
        for view in VIEWS:
            rows = by_manifest(self.folder, view)
            assert {row["review_id"]: row["revision"] for row in rows} == self.topic.latest()
            assert len(there(self.folder, view)) == len(rows), "something else is left"

    @rule(changes=st.integers(1, 60))
    def export_is_killed(self, changes: int) -> None:
        try:
            ExportRun(DyingStore(str(self.folder), changes), self.topic)()
        except Killed:
            return

    @precondition(lambda self: self.stalled is None)
    @rule()
    def one_begins_and_stands_still(self) -> None:
        self.stalled = ExportRun(Store(str(self.folder)), self.topic)

    @precondition(lambda self: self.stalled is not None)
    @rule()
    def it_goes_on(self) -> None:
        stalled, self.stalled = self.stalled, None
        assert stalled is not None
        try:
            stalled()
        except AnotherExport:
            return

    @invariant()
    def readers_see_each_review_once(self) -> None:
        if not (self.folder / "manifest.json").exists():
            return
        ids = {}
        for view in VIEWS:
            rows = by_manifest(self.folder, view)
            seen = [(row["review_id"], row["revision"]) for row in rows]
            assert set(seen) <= self.known
            ids[view] = [review_id for review_id, _ in seen]
            assert len(set(ids[view])) == len(ids[view]), "a review is there twice"
        assert ids["full"] == ids["flat"], "the views differ"


TestExports = Exports.TestCase
TestExports.settings = settings(max_examples=15, stateful_step_count=25)
