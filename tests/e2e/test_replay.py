"""`dlq replay` through a whole mesh: each letter once, however often the command is run."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from reviewmesh.kafka.record import REPLAY_OF
from tests.command_line import Run, reviewmesh
from tests.faults.test_operators import Operator
from tests.mesh import Mesh, review

SOON_S = 40
LETTERS = 4


@pytest.fixture
def run(mesh: Mesh) -> Run:
    """Run a command on the mesh of this module."""
    environment = mesh.processes["intake"].environment
    return lambda *words, stdin="": reviewmesh(environment, mesh.folder, *words, stdin=stdin)


def listed(run: Run) -> list[dict[str, Any]]:
    done = run("dlq", "list", "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def all_but_the_last_are_replayed(run: Run, wanted: int) -> bool:
    return len(listed(run)) == wanted and len(waiting(run)) == LETTERS


def waiting(run: Run) -> list[dict[str, Any]]:
    return [letter for letter in listed(run) if not letter["replayed"]]


def test_replaying_all_again_and_again_sends_each_letter_once(mesh: Mesh, run: Run) -> None:
    """Nothing mends an empty review, so each replay ends in a letter of its own."""
    mesh.publish(review(f"empty-{number}", " ") for number in range(LETTERS))
    mesh.wait_for(lambda: len(listed(run)) == LETTERS, SOON_S, "a letter of each")

    for turn in range(1, 4):
        done = run("dlq", "replay", "--all", "--force", "--cause", "EMPTY")
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith(f"{LETTERS} replayed")
        assert turn == 1 or f"{LETTERS * (turn - 1)} skipped that were replayed" in done.stderr
        wanted = LETTERS * (turn + 1)
        mesh.wait_for(
            partial(all_but_the_last_are_replayed, run, wanted),
            SOON_S,
            f"{wanted} letters, all but the last replayed",
        )

    refused = run("dlq", "replay", "--all", "--cause", "EMPTY")
    assert refused.returncode == 1
    assert f"{LETTERS} refused that cannot pass" in refused.stderr
    dry = run("dlq", "replay", "--all", "--dry-run", "--force", "--limit", "2", "--since", "1h ago")
    assert (dry.returncode, dry.stdout.count("would be sent")) == (0, 2)
    assert len(waiting(run)) == LETTERS, "nothing was sent"

    originals = [letter for letter in listed(run) if letter["replay_of"] is None]
    assert len(originals) == LETTERS
    assert {letter["replay_of"] for letter in listed(run)} >= {each["place"] for each in originals}
    table = run("dlq", "list").stdout
    assert table.count(" replayed ") == LETTERS
    assert table.count(" replayed, of ") == 2 * LETTERS
    sent = [each for each in mesh.read("reviews.raw") if REPLAY_OF in each["_headers"]]
    assert len(sent) == 3 * LETTERS


def test_an_edited_letter_comes_out_enriched_and_counts_as_replayed(
    mesh: Mesh, run: Run, tmp_path: Path
) -> None:
    known, out = len(listed(run)), len(mesh.enriched())
    [letter, *_] = waiting(run)
    shown = json.loads(run("dlq", "show", letter["place"]).stdout)
    assert "something to read" in shown["not_replayable"]
    review_ = shown["decoded"]["value"]
    file = tmp_path / "review.json"
    for wrong in ({"text": " "}, {"texts": "x"}, {"stars": "many"}):
        file.write_text(json.dumps(review_ | wrong))
        refused = run("dlq", "edit", letter["place"], "--with", str(file))
        assert refused.returncode == 1 and "would be refused" in refused.stderr
    file.write_text(json.dumps(review_ | {"text": "Anna was great."}))
    for turn in range(2):
        done = run("dlq", "edit", letter["place"], "--with", str(file))
        assert done.returncode == turn, done.stderr
        mesh.wait_for(lambda: len(waiting(run)) == LETTERS - 1, SOON_S, "it counts as replayed")
    [*_, enriched] = mesh.wait_enriched(out + 1)
    assert (enriched["review_id"], enriched["text"]) == (review_["review_id"], "Anna was great.")
    assert len(listed(run)) == known
    # The others go on with as many letters as before.
    mesh.publish([review("empty-again", " ")])
    mesh.wait_for(lambda: len(waiting(run)) == LETTERS, SOON_S, "a letter of it")


def test_two_shells_at_once_and_a_service_that_is_down_send_no_letter_twice(
    mesh: Mesh, run: Run
) -> None:
    known = len(listed(run))
    mesh.processes["intake"].kill()
    with ThreadPoolExecutor(2) as shells:
        done = list(shells.map(lambda _: run("dlq", "replay", "--all", "--force"), range(2)))
    assert [each.returncode for each in done] == [0, 0]
    mesh.processes["intake"].start()
    mesh.wait_for(lambda: len(listed(run)) >= known + LETTERS, SOON_S, "a letter of each replay")
    out = len(mesh.enriched())
    mesh.publish([review("after-two-shells", "Anna was great.")])
    mesh.wait_enriched(out + 1)
    dropped = mesh.processes["intake"].metric("reviewmesh_replays_dropped_total")
    assert (len(listed(run)), dropped) == (known + LETTERS, LETTERS)
    assert "was replayed before" in mesh.processes["intake"].log.read_text()


def test_copied_headers_cost_no_review_and_a_true_replay_nothing(mesh: Mesh, run: Run) -> None:
    known, out = len(listed(run)), len(mesh.enriched())
    [letter, *_] = waiting(run)
    sent = mesh.read("reviews.raw")[-1]
    copies = [{REPLAY_OF: letter["place"].encode()}, sent["_headers"]]
    copies.append({**copies[0], "reviewmesh-replay": b"all"})
    codec, producer = mesh.codec("reviews.raw"), mesh.producer()
    partition = int(letter["place"].split("/")[0])
    for number in range(60):
        value = codec.encode(review(f"copied-{number}", f"Review {number}."))
        headers = list(copies[number % 3].items())
        producer.produce(f"{mesh.prefix}reviews.raw", value, b"k", partition, headers=headers)
    assert producer.flush(30) == 0
    mesh.wait_enriched(out + 60)
    assert letter["place"] in {each["place"] for each in waiting(run)}
    assert run("dlq", "replay", "--force", letter["place"]).stderr.startswith("1 replayed")
    mesh.wait_for(lambda: len(listed(run)) == known + 1, SOON_S, "the replay fails again")


def test_letters_of_a_topic_that_was_made_anew_were_not_replayed(mesh: Mesh, run: Run) -> None:
    """Also where the very same records come to lie where they lay."""
    old = {letter["place"]: letter["value"] for letter in listed(run) if letter["replayed"]}
    Operator(mesh).make_anew("reviews.dead-letter")
    mesh.publish(review(f"empty-{number}", " ") for number in range(LETTERS))
    mesh.wait_for(lambda: len(listed(run)) == LETTERS, SOON_S, "a letter of each")
    assert {letter["place"]: letter["value"] for letter in listed(run)}.items() <= old.items()
    assert len(waiting(run)) == LETTERS

    for _ in range(2):
        done = run("dlq", "replay", "--all", "--force")
        assert (done.returncode, done.stderr[:10]) == (0, f"{LETTERS} replayed"), done.stderr
        mesh.wait_for(lambda: len(waiting(run)) == LETTERS, SOON_S, "they fail again")
    assert len(listed(run)) == 3 * LETTERS
