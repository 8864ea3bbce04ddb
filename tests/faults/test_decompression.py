"""Batches that the broker takes and the client does not: small when sent, huge decompressed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import batches
from tests.broker import TestStack
from tests.command_line import reviewmesh
from tests.faults.test_defects import replace
from tests.faults.test_operators import Operator
from tests.mesh import Mesh, Process, assert_exactly_once, reviews

GOES_ON_WITHIN_S = 60
RESTARTS_AT_MOST = 2
ZSTD_BYTES = 150_000_000
# As large as a batch of 1 MiB becomes.
GZIP_BYTES = 1_000_000_000


@pytest.fixture
def mesh(breakable_stack: TestStack, prefix: str, tmp_path: Path) -> Iterator[Mesh]:
    with Mesh(breakable_stack, prefix, tmp_path) as mesh:
        mesh.start()
        yield mesh


@pytest.fixture(scope="module")
def gigabyte() -> tuple[bytes, int]:
    return batches.zeros([GZIP_BYTES])


class Supervised:
    """Starts a process again when it ended, and notes how much memory it took."""

    def __init__(self, mesh: Mesh, process: Process) -> None:
        self._mesh = mesh
        self._process = process
        self.restarts = 0
        self.most_bytes = 0

    def wait_for_all(
        self, published: list[dict[str, Any]], letters: int, within_s: float = GOES_ON_WITHIN_S
    ) -> None:
        began = time.monotonic()

        def is_over() -> bool:
            popen = self._process.popen
            assert popen is not None
            if popen.poll() is not None:
                self.restarts += 1
                self._process.start()
            else:
                self._measure(popen.pid)
            out = len(self._mesh.enriched()) >= len(published)
            return out and len(self._mesh.dead_letters()) >= letters

        self._mesh.wait_for(is_over, 2 * within_s, "all reviews and dead letters are out")
        took_s = time.monotonic() - began
        print(
            f"went on after {took_s:.1f} s, {self.restarts} restarts, "
            f"at most {self.most_bytes >> 20} MiB"
        )
        assert took_s < within_s
        assert_exactly_once(published, self._mesh.enriched())

    def _measure(self, pid: int) -> None:
        try:
            self.most_bytes = max(self.most_bytes, psutil.Process(pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return


def produce_zstd(mesh: Mesh, partition: int, values: list[bytes]) -> None:
    """One batch of these values."""
    producer = mesh.producer(
        **{
            "compression.type": "zstd",
            "message.max.bytes": "1000000000",
            "batch.size": "2147483647",
            "queue.buffering.max.kbytes": "2097151",
            # A busy machine takes a while over the values; `flush` does not wait for it.
            "linger.ms": "60000",
        }
    )
    for value in values:
        producer.produce(mesh.prefix + "reviews.raw", value=value, partition=partition)
    assert producer.flush(60) == 0


def produce_gzip(mesh: Mesh, partition: int, batch: tuple[bytes, int]) -> int:
    servers = mesh.stack.bootstrap_servers
    return batches.produce(servers, mesh.prefix + "reviews.raw", partition, *batch)


def extents(letters: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """Their partitions, and the part of their messages that names the offsets."""
    assert {letter["cause"] for letter in letters} == {"OVERSIZE"}
    assert all("in smaller batches" in letter["message"] for letter in letters)
    for letter in letters:
        assert letter["message"].startswith(f"offsets {letter['offset']} to ")
    return sorted((letter["partition"], letter["message"].split(",")[0]) for letter in letters)


def test_zstd_batches_cost_their_records_and_no_restart(mesh: Mesh) -> None:
    """A record, many in one batch, and two side by side with good ones between."""
    published = reviews(60, tag="before")
    mesh.publish(published)
    mesh.wait_enriched(60)
    bomb = b"a" * ZSTD_BYTES
    for _ in range(2):
        produce_zstd(mesh, 2, [bomb])
        more = reviews(60, tag=f"between-{len(published)}")
        mesh.publish(more)
        published += more
    produce_zstd(mesh, 4, [b"b"] * 30 + [bomb] + [b"c"] * 30)
    del bomb
    more = reviews(60, tag="after")
    mesh.publish(more)
    supervised = Supervised(mesh, mesh.processes["intake"])
    supervised.wait_for_all(published + more, 3)
    letters = extents(mesh.dead_letters())
    assert [partition for partition, _ in letters] == [2, 2, 4]
    assert supervised.restarts == 0
    first, last = (int(word) for word in letters[2][1].split()[1::2])
    assert last - first == 60
    shown = reviewmesh(
        mesh.processes["intake"].environment,
        mesh.folder,
        *("tail", "--topic", "raw", "--from-beginning", "--json", "--max", "240"),
        *("--timeout", "40"),
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stderr.count("skipped offsets") == 3
    # And it is over with them.
    mesh.processes["intake"].kill()
    mesh.processes["intake"].start()
    more += reviews(60, tag="later")
    mesh.publish(more[60:])
    supervised.wait_for_all(published + more, 3)
    assert len(mesh.dead_letters()) == 3


def test_a_gzip_batch_that_the_process_dies_of_is_passed_over(
    mesh: Mesh, gigabyte: tuple[bytes, int]
) -> None:
    """In the midst of what is fetched together, on two partitions, two side by side."""
    process = replace(mesh, "intake", "has-little-memory")
    mesh.wait_for(process.is_ready, 30, "it is ready")
    published = reviews(60, tag="before")
    mesh.publish(published)
    mesh.wait_enriched(60)
    many = batches.zeros([10] * 5 + [GZIP_BYTES // 4] + [10] * 6)
    expected = []
    for partition in (1, 3):
        first = produce_gzip(mesh, partition, gigabyte)
        expected.append((partition, f"offsets {first} to {first}"))
    more = reviews(60, tag="between")
    mesh.publish(more)
    published += more
    first = produce_gzip(mesh, 3, many)
    expected.append((3, f"offsets {first} to {first + 11}"))
    more = reviews(60, tag="after")
    mesh.publish(more)
    published += more
    supervised = Supervised(mesh, process)
    # Three of them, one after the other.
    supervised.wait_for_all(published, 3, within_s=3 * GOES_ON_WITHIN_S)
    assert extents(mesh.dead_letters()) == sorted(expected)
    assert 1 <= supervised.restarts <= RESTARTS_AT_MOST


@pytest.mark.nightly
def test_a_gzip_batch_amid_a_backlog(mesh: Mesh, gigabyte: tuple[bytes, int]) -> None:
    """What lies before it was fetched together with it, and comes out all the same."""
    mesh.processes["intake"].terminate()
    published = reviews(1_500, tag="before")
    mesh.publish(published)
    produce_gzip(mesh, 0, gigabyte)
    more = reviews(1_500, tag="after")
    mesh.publish(more)
    process = mesh.add("intake", defect="has-little-memory")
    process.start()
    supervised = Supervised(mesh, process)
    supervised.wait_for_all(published + more, 1, within_s=2 * GOES_ON_WITHIN_S)
    assert [partition for partition, _ in extents(mesh.dead_letters())] == [0]
    assert 1 <= supervised.restarts <= RESTARTS_AT_MOST + 1


def test_a_batch_that_the_client_refuses_holds_up_no_reset(mesh: Mesh) -> None:
    """After one, intake reads back what others wrote to every partition of raw."""
    published = reviews(60, tag="before")
    mesh.publish(published)
    for partition in (0, 3):
        produce_zstd(mesh, partition, [b"\0" * ZSTD_BYTES])
    intake = mesh.processes["intake"]
    Supervised(mesh, intake).wait_for_all(published, letters=2)
    intake.terminate()
    Operator(mesh).commit("intake", "reviews.raw", 0, "")
    intake.start()
    more = reviews(60, tag="after")
    mesh.publish(more)
    Supervised(mesh, intake).wait_for_all([*published, *more], letters=2)
    assert len(mesh.dead_letters()) == 2
