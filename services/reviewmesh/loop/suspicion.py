"""Finds the record that kills the process, without blaming one that does not.

A killed process may have died of a record or of anything else. A record is suspected when several
processes die with the same lowest unfinished record. Then records are passed to the stage in small
groups, each named in the metadata of a commit beforehand, and nothing else is in flight meanwhile.
The next group is larger after one that survives and smaller after a death. A record is
dead-lettered only after several deaths with no other record in flight.

Pure: the clock is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Protocol, TypeVar

from reviewmesh.loop.ledger import Notes

# After so many processes in a row without progress, groups are named beforehand.
DEATHS_BEFORE_GROUPS = 3
# After so many, the records ahead are read in a probe process first: the client itself may die of a
# batch, before there is a record.
DEATHS_BEFORE_CARE = 2
# A kill from elsewhere may hit while a record is alone in flight, but not so often in a row.
DEATHS_ALONE = 4
# After a death the record is in the last group: continue in small steps.
SHRINKING = 8
GROWTH = 2
LARGEST_GROUP = 64
# A stage that dies of a record does so when it takes the record or soon after.
SURVIVED_AFTER_S = 0.1


class HoldsRecords(Protocol):
    """What decides whose turn it is: an input."""

    @property
    def suspicion(self) -> Suspicion: ...

    @property
    def held(self) -> Sized:
        """Records that wait for the stage."""
        ...


Tried = TypeVar("Tried", bound=HoldsRecords)


class Suspicion:
    """The state of one input in this process."""

    def __init__(self, before: Notes, died: bool, head: int) -> None:
        """`died`: the process that wrote `before` did not release the partition in order."""
        self._head = head
        self._deaths = before.deaths_with(not died)
        self._strikes = 0
        self._group = 0
        # Records before this offset were in flight without harm, though they may be unfinished.
        self._passed = head
        if died and (before.group or self._deaths >= DEATHS_BEFORE_GROUPS):
            self._group = max(1, before.group // SHRINKING)
            self._strikes = before.strikes + (before.group == 1)
            self._passed = max(head, before.passed)
        # Only one input of the process at a time, so that a death can be attributed.
        self._on_trial = False
        # The size of the group that was committed, and how many of it the stage has taken.
        self._named = 0
        self._taken = 0
        self._taken_at = 0.0
        self._last = head

    @property
    def is_trying(self) -> bool:
        return self._group > 0

    @property
    def has_some_in_hand(self) -> bool:
        """Whether records of a group are in flight that may still turn out to be fatal."""
        return self._group > 0 and self._taken > 0

    def notes(self, head: int, redo_until: int) -> Notes:
        """The notes of the next commit, with `head` as its offset."""
        if head > self._head:
            self._deaths = 0
        group = self._group if self._on_trial else 0
        passed = self._passed if self.is_trying else 0
        return Notes(
            running=True,
            deaths=self._deaths,
            group=group,
            strikes=self._strikes,
            redo_until=redo_until,
            passed=passed,
        )

    def committed(self, notes: Notes) -> None:
        self._named = notes.group

    def may_take(self, offset: int) -> bool:
        """Whether the stage may take this record, the next one."""
        if self._group == 0 or offset < self._passed:
            return True
        return self._on_trial and self._named == self._group and self._taken < self._group

    def condemns(self, offset: int) -> bool:
        """Whether this record, the next one, is to be dead-lettered."""
        return self._strikes >= DEATHS_ALONE and offset >= self._passed

    def took(self, now: float, offset: int) -> None:
        if self._group == 0 or offset < self._passed:
            return
        self._taken += 1
        self._taken_at = now
        self._last = offset
        # Only the first record was alone in flight.
        self._strikes = 0 if self._strikes >= DEATHS_ALONE else self._strikes

    def settle(self, now: float, in_flight: int, waits: bool) -> None:
        """Enlarge the next group once this one is finished, or was in flight long enough.

        `waits`: no further record of the group has arrived.
        """
        if not self.has_some_in_hand or (self._taken < self._group and not waits):
            return
        if in_flight == 0 or now - self._taken_at >= SURVIVED_AFTER_S:
            self._taken = 0
            self._strikes = 0
            self._passed = self._last + 1
            self._group = self._group * GROWTH if self._group < LARGEST_GROUP else 0
            self._on_trial &= self._group > 0

    @classmethod
    def whose_turn(cls, trying: Sequence[Tried]) -> Tried | None:
        """The only input whose records may be taken now: the one on trial while it has some."""
        for item in trying:
            if item.suspicion._on_trial and (item.suspicion.has_some_in_hand or item.held):
                return item
        chosen = next((item for item in trying if item.held), None)
        for item in trying:
            item.suspicion._on_trial = item is chosen
        return chosen
