"""A record that kills its process is found, whatever stands around it, and no other is blamed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from reviewmesh.loop.ledger import CompletionLedger, Notes, restore
from reviewmesh.loop.poison import LARGEST_GROUP, PoisonSearch

Place = tuple[int, int]
"""A partition and an offset in it."""
Commits = Mapping[int, tuple[int, str]]


class Died(Exception):
    """The process ended without a word."""


class OneInput:
    """A partition in one life of its process."""

    def __init__(self, number: int, length: int, commit: tuple[int, str]) -> None:
        self.number = number
        restored = restore(*commit)
        self.ledger = CompletionLedger(commit[0], restored.finished)
        self.poison_search = PoisonSearch(restored.notes, restored.notes.running, commit[0])
        self.queued = [offset for offset in range(length) if self.ledger.is_new(offset)]
        self.in_hand: list[int] = []
        self.commit = commit


class Life:
    """A process with some partitions, as the feed and the outbox handle them, step by step."""

    def __init__(
        self, lengths: list[int], poison: set[Place], commits: Commits, finishes_late: bool
    ) -> None:
        self.poison = poison
        self.finishes_late = finishes_late
        self.now = 0.0
        self.inputs = [OneInput(n, length, commits[n]) for n, length in enumerate(lengths)]
        self.set_aside: list[Place] = []
        self.lengths = lengths

    def steps(self) -> Iterator[None]:
        """Each may be the last. Raises Died."""
        while True:
            for item in self.inputs:
                self._name(item)
            yield
            trying = [item for item in self.inputs if item.poison_search.is_active]
            for item in trying:
                item.poison_search.finish_group(self.now, item.ledger.in_flight, not item.queued)
            chosen = PoisonSearch.input_on_trial(trying)
            for item in self.inputs if chosen is None else [chosen]:
                self._hand_out(item)
            yield
            self.now += 1.0
            if self.finishes_late and chosen is not None:
                continue
            for item in self.inputs:
                for offset in item.in_hand:
                    item.ledger.finish(offset)
                item.in_hand.clear()

    def _name(self, item: OneInput) -> None:
        """A transaction: what is finished, and what may be handed out next."""
        notes = item.poison_search.notes(item.ledger.head, 0)
        commit = item.ledger.commit(notes)
        item.commit = commit.offset, commit.metadata
        item.poison_search.committed(notes)

    def _hand_out(self, item: OneInput) -> None:
        while item.queued and item.poison_search.may_pass(item.queued[0]):
            offset = item.queued.pop(0)
            set_aside = item.poison_search.is_poison(offset)
            if set_aside:
                self.set_aside.append((item.number, offset))
            elif (item.number, offset) in self.poison:
                raise Died
            item.poison_search.passed_to_stage(self.now, offset)
            item.ledger.deliver(offset)
            if set_aside:
                # Its dead letter goes out with the next transaction.
                item.ledger.finish(offset)
            else:
                item.in_hand.append(offset)

    def is_done(self) -> bool:
        return all(item.commit[0] >= self.lengths[item.number] for item in self.inputs)


def run(
    lengths: list[int], poison: set[Place], kills: list[int], finishes_late: bool = False
) -> tuple[set[Place], int]:
    """Lives one after the other until all is done; `kills` ends them after so many steps each.

    `finishes_late`: nothing is finished while some input is on trial, as when records of one need
    those of another.

    Gives what was set aside, and how many processes died of a record.
    """
    commits: Commits = dict.fromkeys(range(len(lengths)), (0, ""))
    set_aside: set[Place] = set()
    deaths = 0
    for number in range(3_000):
        life = Life(lengths, poison, commits, finishes_late)
        try:
            for step, _ in enumerate(life.steps(), start=1):
                if life.is_done() or (number < len(kills) and step >= kills[number]):
                    break
        except Died:
            deaths += 1
        commits = {item.number: item.commit for item in life.inputs}
        set_aside |= {
            (partition, offset)
            for partition, offset in life.set_aside
            if offset < commits[partition][0] or offset in restore(*commits[partition]).finished
        }
        if life.is_done():
            return set_aside, deaths
    raise AssertionError("it never came to an end")


@given(
    lengths=st.lists(st.integers(1, 200), min_size=1, max_size=4),
    places=st.sets(st.tuples(st.integers(0, 3), st.integers(0, 199)), max_size=3),
    finishes_late=st.booleans(),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_record_that_kills_is_set_aside_and_no_other(
    lengths: list[int], places: set[Place], finishes_late: bool
) -> None:
    poison = {
        (partition, offset)
        for partition, offset in places
        if partition < len(lengths) and offset < lengths[partition]
    }
    set_aside, deaths = run(lengths, poison, [], finishes_late)
    assert set_aside == poison
    assert deaths <= 20 * len(poison)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_kills_from_elsewhere_set_nothing_aside(seed: int) -> None:
    """200 kills, some of them before anything was finished, some while one record is alone."""
    chance = random.Random(seed)
    kills = chance.choices([1, 2, 3, 8, 30], weights=[1, 1, 1, 4, 8], k=200)
    set_aside, deaths = run([300, 300, 300], set(), kills)
    assert set_aside == set()
    assert deaths == 0


def test_a_partition_that_was_released_starts_no_search() -> None:
    poison_search = PoisonSearch(Notes(running=False), died=False, head=5)
    assert not poison_search.is_active
    assert poison_search.may_pass(5)


def test_groups_grow_until_nothing_is_held_back() -> None:
    metadata = CompletionLedger(0).commit(Notes(running=True, deaths=9)).metadata
    item = OneInput(0, 1_000, (0, metadata))
    taken = 0
    while item.poison_search.is_active:
        assert PoisonSearch.input_on_trial([item]) is item
        item.poison_search.committed(item.poison_search.notes(0, 0))
        while item.poison_search.may_pass(taken):
            item.poison_search.passed_to_stage(0.0, taken)
            taken += 1
        item.poison_search.finish_group(0.0, in_flight=0, queue_empty=False)
    assert taken >= LARGEST_GROUP
