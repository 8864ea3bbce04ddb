"""The ledger against a model: any order of completion, restarts anywhere, gaps in the offsets."""

from __future__ import annotations

import base64
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from reviewmesh.loop.ledger import (
    LARGEST_WINDOW,
    METADATA_LIMIT,
    CompletionLedger,
    Notes,
    restore,
)


class LedgerMachine(RuleBasedStateMachine):
    """A log with gaps, read in order; work finishes in any order; the process dies at any point."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[int] = []
        self.end = 0
        self.ledger = CompletionLedger(0, max_in_flight=20, max_window=60)
        self.committed = self.ledger.commit()
        self.done: dict[int, int] = {}
        self.done_at_commit: set[int] = set()
        self.in_flight: set[int] = set()
        self.unread = 0

    @rule(gap=st.integers(0, 5))
    def append(self, gap: int) -> None:
        self.log.append(self.end + gap)
        self.end += gap + 1

    @rule(count=st.sampled_from([1, 100, LARGEST_WINDOW, 40 * LARGEST_WINDOW]))
    def abort(self, count: int) -> None:
        """Records of an aborted transaction take offsets that are never delivered."""
        self.end += count

    @precondition(lambda self: self.unread < len(self.log))
    @rule()
    def deliver(self) -> None:
        offset = self.log[self.unread]
        if not self.ledger.has_room_for(offset):
            return
        self.unread += 1
        if self.ledger.deliver(offset):
            assert offset not in self.done_at_commit, "a finished offset came again"
            self.in_flight.add(offset)
        else:
            assert offset in self.done_at_commit or offset < self.committed.offset

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.in_flight)))
        self.in_flight.discard(offset)
        self.ledger.finish(offset)
        self.done[offset] = self.done.get(offset, 0) + 1

    @precondition(lambda self: self.unread == len(self.log))
    @rule()
    def end_of_partition(self) -> None:
        self.ledger.reached_end(self.end)

    @rule()
    def commit(self) -> None:
        self.committed = self.ledger.commit()
        self.done_at_commit = set(self.done)

    @rule()
    def restart(self) -> None:
        """What finished after the last commit was rolled back with it."""
        finished = restore(self.committed.offset, self.committed.metadata).finished
        self.ledger = CompletionLedger(
            self.committed.offset, finished, max_in_flight=20, max_window=60
        )
        self.in_flight.clear()
        self.done = {offset: 1 for offset in self.done_at_commit}
        self.unread = sum(offset < self.committed.offset for offset in self.log)

    @rule()
    def rebalance(self) -> None:
        """Revoked with a last transaction, read on by the next owner."""
        self.commit()
        self.restart()

    @invariant()
    def the_commit_says_exactly_what_is_finished(self) -> None:
        commit = self.ledger.commit()
        restored = restore(commit.offset, commit.metadata)
        assert restored.marked, restored.problem
        finished = restored.finished
        for offset in self.log:
            is_done = offset in self.done
            assert (offset < commit.offset or offset in finished) == is_done
        assert all(count == 1 for count in self.done.values())


LedgerMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, derandomize=True
)
TestLedger = LedgerMachine.TestCase


def test_a_full_window_that_does_not_compress_fits_the_metadata() -> None:
    ledger = CompletionLedger(0, max_in_flight=LARGEST_WINDOW, max_window=LARGEST_WINDOW)
    chance = random.Random(0)
    for offset in range(LARGEST_WINDOW):
        assert ledger.has_room_for(offset)
        ledger.deliver(offset)
    kept = {0} | {offset for offset in range(LARGEST_WINDOW) if chance.random() < 0.5}
    for offset in set(range(LARGEST_WINDOW)) - kept:
        ledger.finish(offset)
    # Nothing of what follows is delivered.
    ledger.reached_end(10_000_000)
    commit = ledger.commit(Notes(True, 0xFFFF, 0xFFFF, 0xFF, *[2**64 - 1] * 3))
    assert len(commit.metadata) <= METADATA_LIMIT
    finished = restore(commit.offset, commit.metadata).finished
    assert finished == set(range(LARGEST_WINDOW)) - kept


def test_a_window_that_would_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="24000"):
        CompletionLedger(0, max_window=LARGEST_WINDOW + 1)


BOMB = "rm1:" + base64.b64encode(zlib.compress(bytes(10_000_000))).decode()


@pytest.mark.parametrize(
    "metadata",
    ["rm9:abc", "rm1:***", "rm1:AAAA", "rm1:", "somebody's own", "rm1:\xe4", BOMB, "\0" * 4095],
)
def test_metadata_of_another_make_counts_as_none_and_says_so(metadata: str) -> None:
    restored = restore(5, metadata)
    assert restored.finished == frozenset()
    assert not restored.marked
    assert restored.problem


@pytest.mark.parametrize("metadata", ["", None])
def test_empty_metadata_means_nothing_beyond_is_finished(metadata: str | None) -> None:
    restored = restore(5, metadata)
    assert restored.finished == frozenset()
    assert not restored.marked
    assert not restored.problem


def test_a_commit_that_finished_nothing_beyond_its_offset_still_carries_the_mark() -> None:
    ledger = CompletionLedger(3)
    ledger.deliver(3)
    commit = ledger.commit()
    assert restore(commit.offset, commit.metadata).marked


@given(
    notes=st.builds(
        Notes,
        running=st.booleans(),
        deaths=st.integers(0, 0xFFFF),
        group_size=st.integers(0, 0xFFFF),
        deaths_alone=st.integers(0, 0xFF),
        redo_until=st.integers(0, 2**64 - 1),
        survived_until=st.integers(0, 2**64 - 1),
        topic_id=st.integers(0, 2**64 - 1),
    )
)
def test_notes_travel_with_the_commit(notes: Notes) -> None:
    ledger = CompletionLedger(0)
    for offset in range(10):
        ledger.deliver(offset)
    ledger.finish(4)
    commit = ledger.commit(notes)
    restored = restore(commit.offset, commit.metadata)
    assert restored.notes == notes
    assert restored.finished == {4}


def test_metadata_of_the_version_before_the_notes_is_read() -> None:
    metadata = "rm1:" + base64.b64encode(zlib.compress(bytes([0b101]))).decode()
    restored = restore(10, metadata)
    assert restored.finished == {10, 12}
    assert restored.notes == Notes()
    assert restored.marked


def test_metadata_of_the_version_before_the_topic_id_is_read() -> None:
    ledger = CompletionLedger(0)
    notes = Notes(running=True, deaths=2, redo_until=7, topic_id=5)
    packed = base64.b64decode(ledger.commit(notes).metadata.removeprefix("rm1:"))
    restored = restore(0, "rm1:" + base64.b64encode(packed[:-8]).decode())
    assert restored.notes == Notes(running=True, deaths=2, redo_until=7)


def test_the_version_before_the_notes_reads_metadata_that_has_them() -> None:
    """It inflates the bitmap and does not look behind its end: a rollback reads on."""
    ledger = CompletionLedger(0)
    for offset in range(3):
        ledger.deliver(offset)
    ledger.finish(2)
    packed = base64.b64decode(ledger.commit(Notes(running=True)).metadata.removeprefix("rm1:"))
    assert zlib.decompress(packed) == bytes([0b100])
