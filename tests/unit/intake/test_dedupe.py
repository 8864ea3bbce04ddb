"""Intake's memory against a plain list of everything that was ever accepted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reviewmesh.intake.dedupe import REMEMBERED_CONTENTS, Dedupe

WINDOW_MS = 1_000
MAX_IDS = 4
IDS = ["a", "b", "c", "d", "e", "f"]
CONTENTS = ["1", "2", "3"]


@dataclass(frozen=True)
class Accepted:
    review_id: str
    content: str
    acceptance: int
    at_ms: int


def model_is_duplicate(log: list[Accepted], review_id: str, content: str, now_ms: int) -> bool:
    """By definition: the latest of that id, same content, in the window, among the last ids."""
    latest = {item.review_id: item for item in log}
    by_age = sorted(latest.values(), key=log.index)[-MAX_IDS:]
    last = latest.get(review_id)
    return (
        last in by_age
        and last is not None
        and last.content == content
        and now_ms - last.at_ms < WINDOW_MS
    )


class Memory(RuleBasedStateMachine):
    """Reviews come and the clock moves on; a rebuilt memory answers as the living one does."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 10_000
        self.dedupe = Dedupe(WINDOW_MS, MAX_IDS)
        self.log: list[Accepted] = []

    @rule(review_id=st.sampled_from(IDS), content=st.sampled_from(CONTENTS), replay=st.booleans())
    def comes(self, review_id: str, content: str, replay: bool) -> None:
        duplicate = self.dedupe.is_duplicate(review_id, content, self.now_ms)
        assert duplicate == model_is_duplicate(self.log, review_id, content, self.now_ms)
        if duplicate and not replay:
            return
        acceptance = self.dedupe.acceptance(review_id, content)
        # Two of one content in a row differ by their number, so that none hides the other.
        if duplicate:
            assert acceptance == 1 + self.last(review_id).acceptance
        self.dedupe.accepted(review_id, content, acceptance, self.now_ms)
        # A tick apart, so that the model's order is by time.
        self.log.append(Accepted(review_id, content, acceptance, self.now_ms))
        self.now_ms += 1

    @rule(pause_ms=st.sampled_from([1, 10, 300, WINDOW_MS - 1, WINDOW_MS, 3 * WINDOW_MS]))
    def time_passes(self, pause_ms: int) -> None:
        self.now_ms += pause_ms

    @precondition(lambda self: self.log)
    @rule()
    def restarts(self) -> None:
        """The tail of what was accepted, as far back as the window, is all that a restart has."""
        rebuilt = Dedupe(WINDOW_MS, MAX_IDS)
        for item in self.log:
            if item.at_ms > self.now_ms - WINDOW_MS:
                rebuilt.accepted(item.review_id, item.content, item.acceptance, item.at_ms)
        for review_id in IDS:
            for content in CONTENTS:
                assert rebuilt.is_duplicate(
                    review_id, content, self.now_ms
                ) == self.dedupe.is_duplicate(review_id, content, self.now_ms)
        self.dedupe = rebuilt

    @invariant()
    def is_bounded(self) -> None:
        assert len(self.dedupe) <= MAX_IDS

    def last(self, review_id: str) -> Accepted:
        return [item for item in self.log if item.review_id == review_id][-1]


TestMemory: Any = Memory.TestCase


def test_the_same_content_is_a_duplicate_until_the_window_is_over() -> None:
    dedupe = Dedupe(WINDOW_MS, MAX_IDS)
    assert not dedupe.is_duplicate("a", "1", 0)
    dedupe.accepted("a", "1", 1, 0)
    assert dedupe.is_duplicate("a", "1", WINDOW_MS - 1)
    assert not dedupe.is_duplicate("a", "1", WINDOW_MS)


def test_a_duplicate_does_not_extend_the_window() -> None:
    dedupe = Dedupe(WINDOW_MS, MAX_IDS)
    dedupe.accepted("a", "1", 1, 0)
    assert dedupe.is_duplicate("a", "1", WINDOW_MS - 1)
    assert not dedupe.is_duplicate("a", "1", WINDOW_MS + 1)


def test_an_edit_taken_back_is_an_edit() -> None:
    """A, then B, then A again: compared with the latest only, and counted as a second of A."""
    dedupe = Dedupe(WINDOW_MS, MAX_IDS)
    for content, acceptance in (("A", 1), ("B", 1), ("A", 2), ("B", 2)):
        assert not dedupe.is_duplicate("a", content, 0)
        assert dedupe.acceptance("a", content) == acceptance
        dedupe.accepted("a", content, acceptance, 0)
    assert dedupe.is_duplicate("a", "B", 0)


def test_the_id_accepted_longest_ago_makes_room() -> None:
    dedupe = Dedupe(WINDOW_MS, 2)
    for review_id in ("a", "b", "a", "c"):
        dedupe.accepted(review_id, "1", 1, 0)
    assert dedupe.is_duplicate("a", "1", 0)
    assert not dedupe.is_duplicate("b", "1", 0)


def test_what_is_older_than_the_window_takes_up_no_room() -> None:
    dedupe = Dedupe(WINDOW_MS, 1_000)
    for number in range(500):
        dedupe.accepted(f"r-{number}", "1", 1, 0)
    dedupe.accepted("later", "1", 1, WINDOW_MS)
    assert len(dedupe) == 1


def test_what_a_clock_that_is_ahead_accepted_makes_nothing_else_old() -> None:
    dedupe = Dedupe(WINDOW_MS, 1_000)
    for number in range(10):
        dedupe.accepted(f"r-{number}", "1", 1, 0)
    dedupe.accepted("ahead", "1", 1, 5 * WINDOW_MS, now_ms=WINDOW_MS - 1)
    assert dedupe.is_duplicate("r-5", "1", WINDOW_MS - 1)
    dedupe.accepted("later", "1", 1, WINDOW_MS, now_ms=WINDOW_MS)
    assert len(dedupe) == 2


@given(st.integers(1, 3 * REMEMBERED_CONTENTS))
def test_an_id_that_is_edited_for_ever_is_bounded(edits: int) -> None:
    dedupe = Dedupe(WINDOW_MS, MAX_IDS)
    for number in range(edits):
        dedupe.accepted("a", str(number), 1, 0)
    known = sum(dedupe.acceptance("a", str(number)) > 1 for number in range(edits))
    assert known == min(edits, REMEMBERED_CONTENTS)
