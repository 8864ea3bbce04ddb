"""Reviews that come at a steady pace, and what can be seen of a swap in those that came out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from itertools import count, pairwise
from typing import Any

from reviewmesh_schemas.names import TASKS
from tests.mesh import Mesh, review


class Stream:
    """One review after the other, no two of them alike, until it is left."""

    def __init__(self, mesh: Mesh, every_s: float, tag: str = "r") -> None:
        self._mesh = mesh
        self._every_s = every_s
        self._tag = tag
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.published: list[dict[str, Any]] = []

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def enriched(self) -> list[dict[str, Any]]:
        """Of this stream, so far."""
        mine = f"{self._tag}-"
        return [r for r in self._mesh.enriched() if r["review_id"].startswith(mine)]

    def wait_enriched(self, timeout_s: float = 180) -> list[dict[str, Any]]:
        """All of a stream that was left."""
        wanted = len(self.published)
        self._mesh.wait_for(
            lambda: len(self.enriched()) >= wanted, timeout_s, f"{wanted} enriched reviews"
        )
        return self.enriched()

    def wait_for_more(
        self, version: str, wanted: int, tasks: Iterable[str] = TASKS, timeout_s: float = 60
    ) -> None:
        """Until so many more reviews were answered by that version in these tasks alone."""
        named = set(tasks)

        def answered() -> int:
            return sum(versions(record, named) == {version} for record in self.enriched())

        before = answered()
        self._mesh.wait_for(
            lambda: answered() >= before + wanted, timeout_s, f"version {version} answers"
        )

    def _run(self) -> None:
        codec, producer = self._mesh.codec("reviews.raw"), self._mesh.producer()
        began = time.monotonic()
        for number in count():
            if self._ended.wait(max(0.0, began + number * self._every_s - time.monotonic())):
                break
            text = f"Anna sold me {number} of these for {self._tag}, and all were late."
            item = review(f"{self._tag}-{number}", text)
            self.published.append(item)
            producer.produce(
                self._mesh.prefix + "reviews.raw",
                key=item["review_id"].encode(),
                value=codec.encode(item),
            )
            producer.poll(0)
        assert producer.flush(30) == 0


def versions(record: dict[str, Any], tasks: Iterable[str] = TASKS) -> set[str]:
    return {record["tasks"][task]["lineage"]["model_version"] for task in tasks}


def longest_gap_ms(records: Iterable[dict[str, Any]], task: str) -> float:
    """The longest time without an answer of that task."""
    times = sorted(record["timings"][f"{task}_at"] for record in records)
    return float(max(after - before for before, after in pairwise(times)))
