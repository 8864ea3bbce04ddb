"""Finds a poison record, which kills every process that takes it.

A process may also die of something else. So a search begins when several processes die with the
same lowest unfinished record. During the search records are passed to the stage in small groups.
The size of a group is committed in the metadata before, and nothing else is in flight. The group
after one that survives is larger, the group after a death is smaller. A record is dead-lettered
only after several deaths with no other record in flight.

Pure: the clock is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Protocol, TypeVar

from reviewmesh.loop.ledger import Notes

# The search begins after this many processes in a row died without progress.
DEATHS_BEFORE_GROUPS = 3
# After this many, a probe process reads the next records first: the client itself may die of a
# batch before it returns a record.
DEATHS_BEFORE_PROBE = 2
# Another cause may kill the process while one record is in flight, but not this often in a row.
DEATHS_ALONE_BEFORE_DEAD_LETTER = 4
# After a death the poison record is in the last group, so the next groups are much smaller.
SHRINK_FACTOR = 8
GROWTH_FACTOR = 2
LARGEST_GROUP = 64
# A stage that dies of a record dies at once or soon after.
SURVIVED_AFTER_S = 0.1


class HoldsRecords(Protocol):
    """An input, as far as the search needs it."""

    @property
    def poison_search(self) -> PoisonSearch: ...

    @property
    def queued(self) -> Sized:
        """Records that wait for the stage."""
        ...


Tried = TypeVar("Tried", bound=HoldsRecords)


class PoisonSearch:
    """The search in one input by this process. Inactive while nothing points to a poison record."""

    def __init__(self, before: Notes, died: bool, head: int) -> None:
        """`before`: the notes of the last commit. `died`: the process that wrote them did not
        release the partition."""
        self._start_head = head
        self._deaths = before.deaths_with(not died)
        self._deaths_alone = 0
        self._group_size = 0
        # Records before this offset were in flight and killed nothing, though they may be
        # unfinished.
        self._survived_until = head
        if died and (before.group_size or self._deaths >= DEATHS_BEFORE_GROUPS):
            self._group_size = max(1, before.group_size // SHRINK_FACTOR)
            self._deaths_alone = before.deaths_alone + (before.group_size == 1)
            self._survived_until = max(head, before.survived_until)
        # True for one input of the process at a time, so that a death can be attributed to it.
        self._on_trial = False
        # The committed size of the group, and how many of its records the stage has taken.
        self._committed_group_size = 0
        self._passed_on = 0
        self._taken_at = 0.0
        self._last_offset = head

    @property
    def is_active(self) -> bool:
        return self._group_size > 0

    @property
    def has_records_in_flight(self) -> bool:
        """Whether records of a group are in flight that may still kill the process."""
        return self._group_size > 0 and self._passed_on > 0

    def notes(self, head: int, redo_until: int) -> Notes:
        """The notes of the next commit, with `head` as its offset."""
        if head > self._start_head:
            self._deaths = 0
        group_size = self._group_size if self._on_trial else 0
        survived_until = self._survived_until if self.is_active else 0
        return Notes(
            running=True,
            deaths=self._deaths,
            group_size=group_size,
            deaths_alone=self._deaths_alone,
            redo_until=redo_until,
            survived_until=survived_until,
        )

    def committed(self, notes: Notes) -> None:
        """Note that these notes are committed, and with them the size of the group."""
        self._committed_group_size = notes.group_size

    def may_pass(self, offset: int) -> bool:
        """Whether the next record, at `offset`, may be passed to the stage."""
        if self._group_size == 0 or offset < self._survived_until:
            return True
        return (
            self._on_trial
            and self._committed_group_size == self._group_size
            and self._passed_on < self._group_size
        )

    def is_poison(self, offset: int) -> bool:
        """Whether the next record, at `offset`, is the poison record and has to be
        dead-lettered."""
        return (
            self._deaths_alone >= DEATHS_ALONE_BEFORE_DEAD_LETTER and offset >= self._survived_until
        )

    def passed_to_stage(self, now: float, offset: int) -> None:
        """Note that the stage took the next record; `now` in monotonic seconds."""
        if self._group_size == 0 or offset < self._survived_until:
            return
        self._passed_on += 1
        self._taken_at = now
        self._last_offset = offset
        # Only the first record of the group was alone in flight.
        self._deaths_alone = (
            0 if self._deaths_alone >= DEATHS_ALONE_BEFORE_DEAD_LETTER else self._deaths_alone
        )

    def finish_group(self, now: float, in_flight: int, queue_empty: bool) -> None:
        """Enlarge the next group once this one is finished or has survived.

        `queue_empty`: no further record of the group has arrived.
        """
        if not self.has_records_in_flight or (
            self._passed_on < self._group_size and not queue_empty
        ):
            return
        if in_flight == 0 or now - self._taken_at >= SURVIVED_AFTER_S:
            self._passed_on = 0
            self._deaths_alone = 0
            self._survived_until = self._last_offset + 1
            self._group_size = (
                self._group_size * GROWTH_FACTOR if self._group_size < LARGEST_GROUP else 0
            )
            self._on_trial &= self._group_size > 0

    @classmethod
    def input_on_trial(cls, trying: Sequence[Tried]) -> Tried | None:
        """The only input whose records may be passed on now; None when no input has any."""
        for item in trying:
            if item.poison_search._on_trial and (
                item.poison_search.has_records_in_flight or item.queued
            ):
                return item
        chosen = next((item for item in trying if item.queued), None)
        for item in trying:
            item.poison_search._on_trial = item is chosen
        return chosen
