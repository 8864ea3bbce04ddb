"""Tombstones while services are killed: each has its outcome once, and no replay undoes one."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.kafka.record import REPLAY, REPLAY_OF
from reviewmesh.loop.replays import letter_at
from tests.mesh import PARTITIONS, Mesh, assert_exactly_once, review

REVIEWS = 300
SOON_S = 90
ERASED = "(erased)"
DROPPED = 'reviewmesh_erased_replays_dropped_total{service="joiner"}'


@pytest.mark.nightly
def test_tombstones_amid_kills_and_replays_after_them(mesh: Mesh) -> None:
    mesh.script(poison=["POISON"])
    mesh.publish([review("poisoned", "POISON for the engine")])
    mesh.wait_for(lambda: len(mesh.dead_letters()) == 3, SOON_S, "a dead letter of each task")
    letters = list(mesh.dead_letters())
    mesh.script()

    wanted = _published_amid_kills(mesh, ("intake", "joiner"))
    mesh.wait_for(lambda: len(_of(mesh, "erased-")) >= len(wanted), SOON_S, "all versions")
    assert_exactly_once(wanted, _of(mesh, "erased-"))

    erase(mesh, "poisoned")
    mesh.wait_for(lambda: _texts(mesh, "poisoned")[-1] == ERASED, SOON_S, "it is erased")
    # What knows of the erasure from its marks alone.
    joiner = mesh.processes["joiner"]
    joiner.kill()
    joiner.start()
    mesh.wait_ready()
    _replay(mesh, letters)
    mesh.wait_for(lambda: joiner.metric(DROPPED) == len(letters), SOON_S, "replays are dropped")
    assert _texts(mesh, "poisoned") == ["POISON for the engine", ERASED]


def _published_amid_kills(mesh: Mesh, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Every second review is erased, every fourth published again; services die in transactions."""
    wanted: list[dict[str, Any]] = []
    for at, name in enumerate(names):
        mesh.processes[name].kill()
        dying = mesh.add(name, dies_in_transaction=2)
        dying.start()
        ids = [f"erased-{at}-{number}" for number in range(REVIEWS // len(names))]
        first = [review(review_id, f"{review_id} as it was") for review_id in ids]
        mesh.publish(first)
        for review_id in ids[::2]:
            erase(mesh, review_id)
        again = [review(review_id, f"{review_id} once more") for review_id in ids[::4]]
        mesh.publish(again)
        wanted += [*first, *(review(review_id, ERASED) for review_id in ids[::2]), *again]
        assert dying.wait() == -signal.SIGKILL
        mesh.add(name).start()
    mesh.wait_ready()
    return wanted


def erase(mesh: Mesh, review_id: str) -> None:
    key = review_id.encode()
    mesh.publish_raw(None, key=key, partition=partition_of(key, PARTITIONS))


def _replay(mesh: Mesh, letters: list[dict[str, Any]]) -> None:
    producer = mesh.producer()
    for letter in letters:
        place = f"{letter['_partition']}/{letter['_offset']}"
        name = letter_at(place, letter["failed_at"], letter["key"], letter["value"]).name
        producer.produce(
            mesh.prefix + letter["topic"],
            letter["value"],
            letter["key"],
            letter["partition"],
            headers=[(REPLAY, b"all"), (REPLAY_OF, name.encode())],
        )
    assert producer.flush(30) == 0


def _of(mesh: Mesh, tag: str) -> list[dict[str, Any]]:
    return [record for record in mesh.enriched() if record["review_id"].startswith(tag)]


def _texts(mesh: Mesh, tag: str) -> list[str]:
    return [record["text"] for record in _of(mesh, tag)]
