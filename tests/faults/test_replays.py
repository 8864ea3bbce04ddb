"""Dead letters that several tools replay again and again take effect once each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reviewmesh.kafka.record import REPLAY, REPLAY_OF
from tests.mesh import Mesh, review, reviews

SOON_S = 40


def send(mesh: Mesh, letters: list[dict[str, Any]], times: int) -> None:
    """As a tool of somebody's own does it: original bytes, and the place of the letter."""
    producer = mesh.producer()
    for _ in range(times):
        for letter in letters:
            place = f"{letter['_partition']}/{letter['_offset']}".encode()
            producer.produce(
                mesh.prefix + letter["topic"],
                letter["value"],
                letter["key"],
                letter["partition"],
                headers=[(REPLAY, b"all"), (REPLAY_OF, place)],
            )
    assert producer.flush(30) == 0


def dropped(mesh: Mesh) -> float:
    names = ("intake", "joiner")
    return sum(
        mesh.processes[name].metric("reviewmesh_replays_dropped_total")
        for name in names
        if mesh.processes[name].get("/metrics")[0] == 200
    )


def test_a_letter_that_two_tools_replay_three_times_takes_effect_once(mesh: Mesh) -> None:
    mesh.script(poison=["POISON"])
    mesh.publish([review("replayed", "POISON for the engine"), *reviews(20, tag="beside-")])
    mesh.publish_raw(b"junk", partition=4, topic="reviews.ner")
    mesh.wait_for(lambda: len(mesh.dead_letters()) == 4, SOON_S, "four dead letters")
    mesh.wait_enriched(21)
    mesh.script()
    letters = list(mesh.dead_letters())
    with ThreadPoolExecutor(2) as tools:
        list(tools.map(lambda _: send(mesh, letters, 3), range(2)))
    mesh.wait_for(lambda: dropped(mesh) == 20, SOON_S, "five of six replays of each are dropped")

    def of_it() -> list[dict[str, Any]]:
        return [record for record in mesh.enriched() if record["review_id"] == "replayed"]

    mesh.wait_for(lambda: len(of_it()) >= 4, SOON_S, "one replay of each comes out")
    mesh.wait_for(lambda: len(mesh.dead_letters()) >= 5, SOON_S, "junk is a dead letter again")
    assert [record["complete"] for record in of_it()] == [False, True, True, True]
    again = [letter for letter in mesh.dead_letters() if letter not in letters]
    assert [(letter["stage"], letter["value"]) for letter in again] == [("join", b"junk")]
    assert len(mesh.read("reviews.replayed")) == 4


def test_a_letter_that_was_replayed_is_known_after_a_restart(mesh: Mesh) -> None:
    letters = list(mesh.dead_letters())
    known, out = len(mesh.read("reviews.replayed")), len(mesh.enriched())
    mesh.processes["joiner"].kill()
    send(mesh, letters[:4], 1)
    mesh.processes["joiner"].start()
    mesh.wait_for(lambda: dropped(mesh) == 4, SOON_S, "all are dropped")
    mesh.publish([review("after", "Nothing else came out")])
    mesh.wait_enriched(out + 1)
    assert [record["review_id"] for record in mesh.enriched()[out:]] == ["after"]
    assert len(mesh.dead_letters()) == len(letters)
    assert len(mesh.read("reviews.replayed")) == known
