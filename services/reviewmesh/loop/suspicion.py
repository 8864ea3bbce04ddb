"""Finds the record that ends the process without a word, and never blames one that did not.

A process that is killed may have been killed by a record, or by anything else. What tells is that
it happens again at the same place: the lowest unfinished record stays the same over several deaths.
Then records are handed out in small groups that the commit's metadata names beforehand, and nothing
else is handed out meanwhile. A group that survives makes the next one larger, a death makes it
smaller, and a record is set aside only after several deaths with it alone in hand.

Pure: the clock is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Protocol, TypeVar

from reviewmesh.loop.ledger import Notes

# So many processes in a row that finished nothing: from there on groups are named beforehand.
DEATHS_BEFORE_GROUPS = 3
# And so many until what lies ahead is read in another process first: a batch may be what the client
# itself dies of, before there is a record.
DEATHS_BEFORE_CARE = 2
# A kill from elsewhere may fall into the moment in which a record is alone; not so often in a row.
DEATHS_ALONE = 4
# A death says that it is among the last group: come near it in small steps.
SHRINKING = 8
GROWTH = 2
LARGEST_GROUP = 64
# What a stage dies of, it dies of when it takes the record or soon after.
SURVIVED_AFTER_S = 0.1


class HoldsRecords(Protocol):
    """An input, as far as its turn depends on it."""

    @property
    def suspicion(self) -> Suspicion: ...

    @property
    def held(self) -> Sized:
        """Records that wait to be handed out."""
        ...


Tried = TypeVar("Tried", bound=HoldsRecords)


class Suspicion:
    """One input in one life of its process."""

    def __init__(self, before: Notes, died: bool, head: int) -> None:
        """`died`: the process that wrote `before` never let go of the partition in order."""
        self._head = head
        self._deaths = before.deaths_with(not died)
        self._strikes = 0
        self._group = 0
        # Records before this one were in hand and did no harm, though they may be unfinished.
        self._passed = head
        if died and (before.group or self._deaths >= DEATHS_BEFORE_GROUPS):
            self._group = max(1, before.group // SHRINKING)
            self._strikes = before.strikes + (before.group == 1)
            self._passed = max(head, before.passed)
        # One input of the process at a time: a death then tells of that one only.
        self._on_trial = False
        # The group that a commit has named, and how many of it were handed out.
        self._named = 0
        self._taken = 0
        self._taken_at = 0.0
        self._last = head

    @property
    def is_trying(self) -> bool:
        return self._group > 0

    @property
    def has_some_in_hand(self) -> bool:
        """Records of a group were handed out and it is not known yet whether they are harmless."""
        return self._group > 0 and self._taken > 0

    def notes(self, head: int, redo_until: int) -> Notes:
        """What the next commit says, with `head` as its offset."""
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
        """Whether this record, the next one, may be handed out."""
        if self._group == 0 or offset < self._passed:
            return True
        return self._on_trial and self._named == self._group and self._taken < self._group

    def condemns(self, offset: int) -> bool:
        """Whether this record, the next one to be handed out, is to be set aside."""
        return self._strikes >= DEATHS_ALONE and offset >= self._passed

    def took(self, now: float, offset: int) -> None:
        if self._group == 0 or offset < self._passed:
            return
        self._taken += 1
        self._taken_at = now
        self._last = offset
        # It is the first record only that was alone.
        self._strikes = 0 if self._strikes >= DEATHS_ALONE else self._strikes

    def settle(self, now: float, in_flight: int, waits: bool) -> None:
        """Let the next group be larger once this one is finished, or was in hand long enough.

        `waits`: no further record of the group is there to be handed out.
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
        """Who alone may hand out records now: the one on trial as long as it has some."""
        for item in trying:
            if item.suspicion._on_trial and (item.suspicion.has_some_in_hand or item.held):
                return item
        chosen = next((item for item in trying if item.held), None)
        for item in trying:
            item.suspicion._on_trial = item is chosen
        return chosen
