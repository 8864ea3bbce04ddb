"""`dlq replay` through a whole mesh: each letter once, however often the command is run."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reviewmesh.runtime.record import REPLAY_OF
from tests.command_line import Run, reviewmesh
from tests.mesh import Mesh, review

SOON_S = 40
LETTERS = 4


@pytest.fixture
def run(mesh: Mesh) -> Run:
    """Run a command on the mesh of this module."""
    environment = mesh.processes["intake"].environment
    return lambda *words, stdin="": reviewmesh(environment, mesh.folder, *words, stdin=stdin)


def listed(run: Run) -> list[dict[str, Any]]:
    lines = run("dlq", "list", "--json").stdout.splitlines()
    return [json.loads(line) for line in lines]


def waiting(run: Run) -> list[dict[str, Any]]:
    return [letter for letter in listed(run) if not letter["replayed"]]


def test_replaying_all_again_and_again_sends_each_letter_once(mesh: Mesh, run: Run) -> None:
    """Nothing mends an empty review, so each replay ends in a letter of its own."""
    mesh.publish(review(f"empty-{number}", " ") for number in range(LETTERS))
    mesh.wait_for(lambda: len(listed(run)) == LETTERS, SOON_S, "a letter of each")

    for turn in range(1, 4):
        done = run("dlq", "replay", "--all", "--cause", "EMPTY")
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith(f"{LETTERS} replayed")
        assert turn == 1 or f"{LETTERS * (turn - 1)} skipped that were replayed" in done.stderr
        wanted = LETTERS * (turn + 1)
        mesh.wait_for(
            lambda wanted=wanted: len(listed(run)) == wanted and len(waiting(run)) == LETTERS,
            SOON_S,
            f"{wanted} letters, all but the last replayed",
        )

    originals = [letter for letter in listed(run) if letter["replay_of"] is None]
    assert len(originals) == LETTERS
    assert {letter["replay_of"] for letter in listed(run)} >= {each["place"] for each in originals}
    table = run("dlq", "list").stdout
    assert table.count(" replayed ") == LETTERS
    assert table.count(" replayed, of ") == 2 * LETTERS
    sent = [each for each in mesh.read("reviews.raw") if REPLAY_OF in each["_headers"]]
    assert len(sent) == 3 * LETTERS
