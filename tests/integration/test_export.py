"""An export on a real broker, killed at random while reviews are edited and erased.

A transactional producer stands in for the joiner: each revision of a review as a record of its key,
some transactions aborted.
"""

from __future__ import annotations

import multiprocessing
import random
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest

from reviewmesh.kafka.partitioning import partition_of
from reviewmesh_schemas.names import ENRICHED
from tests.broker import TestStack, wait_until
from tests.export_program import run_export
from tests.export_reading import VIEWS, by_manifest, there
from tests.mesh import PARTITIONS, Mesh
from tests.unit.export.reviews import DAY_MS, EXAMPLE, FIRST_MS

# To import everything takes longer than a run: it is done once.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.export_program"])
REVIEWS = 600
EDITS_AT_ONCE = 20
BETWEEN_EDITS_S = 0.1
LONGEST_RUN_S = 2.0
"""A run takes about so long after its first step."""
RUN_TIMEOUT_S = 240


class Joiner:
    """Publishes revisions of enriched reviews in transactions."""

    def __init__(self, mesh: Mesh, seed: int) -> None:
        self._topic = mesh.prefix + ENRICHED
        self._codec = mesh.codec(ENRICHED)
        self._producer = mesh.producer(**{"transactional.id": f"{mesh.prefix}joiner"})
        self._producer.init_transactions(60)
        self._random = random.Random(seed)
        self._revision = 0
        self.latest: dict[str, int] = {}
        """By id, the latest committed revision of what was not erased."""

    def publish(self, numbers: Iterable[int], erased: bool = False, abort: bool = False) -> None:
        self._producer.begin_transaction()
        told: dict[str, int] = {}
        for number in numbers:
            self._revision += 1
            review_id = f"r-{number}"
            accepted_at = FIRST_MS + self._random.randrange(3) * DAY_MS
            record = EXAMPLE | {
                "review_id": review_id,
                "revision": self._revision,
                "accepted_at": accepted_at,
                "erased_at": accepted_at if erased else None,
            }
            key = review_id.encode()
            self._producer.produce(
                self._topic, self._codec.encode(record), key, partition_of(key, PARTITIONS)
            )
            told[review_id] = self._revision
        assert self._producer.flush(60) == 0
        if abort:
            self._producer.abort_transaction(60)
            return
        self._producer.commit_transaction(60)
        for review_id, revision in told.items():
            self.latest.pop(review_id, None)
            if not erased:
                self.latest[review_id] = revision

    def edit(self) -> None:
        some = self._random.sample(range(REVIEWS), EDITS_AT_ONCE)
        self.publish(some)
        self.publish(some[:3], erased=True)
        self.publish(some[3:6], abort=True)

    @contextmanager
    def editing(self) -> Iterator[None]:
        """Meanwhile, in a thread."""
        done = threading.Event()

        def edit() -> None:
            while not done.wait(BETWEEN_EDITS_S):
                self.edit()

        thread = threading.Thread(target=edit)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class Exporter:
    """The command as a process of its own, with small steps."""

    def __init__(self, mesh: Mesh, folder: Path, *options: str) -> None:
        self.folder = folder
        self._environment = mesh.stack.environment() | {"REVIEWMESH_PREFIX": mesh.prefix}
        self._words = ["export", str(folder), *options]

    def start(self) -> ForkServerProcess:
        process = FORKS.Process(target=run_export, args=(self._environment, self._words))
        process.start()
        return process

    def kill_one(self, after_s: float) -> bool:
        """Kill a run so long after its first step; False where it had ended by then."""
        before = self.step()
        process = self.start()
        try:
            wait_until(
                lambda: self.step() > before or not process.is_alive(),
                RUN_TIMEOUT_S,
                "a first step",
            )
            process.join(after_s)
            if process.is_alive():
                return True
            assert process.exitcode == 0, f"the export ended with {process.exitcode}"
            return False
        finally:
            process.kill()
            process.join()

    def run(self) -> None:
        process = self.start()
        process.join(RUN_TIMEOUT_S)
        assert process.exitcode == 0, f"the export ended with {process.exitcode}"

    def step(self) -> int:
        names = [path.stem for path in (self.folder / "_export/journal").glob("*.json")]
        return max(map(int, names), default=0)

    def published(self, view: str) -> dict[str, int]:
        """What a reader sees now, each review once."""
        if not (self.folder / "manifest.json").exists():
            return {}
        rows = by_manifest(self.folder, view)
        found = {row["review_id"]: row["revision"] for row in rows}
        assert len(found) == len(rows), "a review is there twice"
        return found


@pytest.fixture
def mesh(stack: TestStack, prefix: str, tmp_path: Path) -> Mesh:
    """Its topics only."""
    mesh = Mesh(stack, prefix, tmp_path)
    mesh.apply_topics()
    return mesh


@pytest.mark.timeout(3_000)
@pytest.mark.parametrize(
    ("kills", "format_name"),
    [
        (6, "parquet"),
        pytest.param(50, "parquet", marks=pytest.mark.nightly),
        pytest.param(50, "jsonl", marks=pytest.mark.nightly),
    ],
)
def test_each_review_once_though_the_export_is_killed(
    mesh: Mesh, tmp_path: Path, kills: int, format_name: str
) -> None:
    moments = random.Random(kills)
    joiner = Joiner(mesh, kills)
    exporter = Exporter(mesh, tmp_path / "reviews", "--format", format_name)
    joiner.publish(range(REVIEWS))
    killed = ended = 0
    with joiner.editing():
        while killed < kills:
            if exporter.kill_one(moments.uniform(0, LONGEST_RUN_S)):
                killed += 1
            else:
                ended += 1
            for view in VIEWS:
                exporter.published(view)
    exporter.run()
    print(f"{killed} runs killed, {ended} ended before; {joiner._revision} revisions")
    for view in VIEWS:
        assert exporter.published(view) == joiner.latest
        # Nothing else is left for those who read every file.
        assert {row["review_id"]: row["revision"] for row in there(exporter.folder, view)} == (
            joiner.latest
        )
        assert len(there(exporter.folder, view)) == len(joiner.latest)
