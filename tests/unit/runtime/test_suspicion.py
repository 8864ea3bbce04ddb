"""A record that kills its process is found, whatever stands around it, and no other is blamed."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from reviewmesh.runtime.ledger import CompletionLedger, Notes, restore
from reviewmesh.runtime.suspicion import LARGEST_GROUP, Suspicion


class Life:
    """A process that takes records of one input, as the feed does; `kill` ends it at any step."""

    def __init__(self, log: range, poison: set[int], commit: tuple[int, str], at_once: int) -> None:
        self.log = log
        self.poison = poison
        self.at_once = at_once
        restored = restore(*commit)
        self.ledger = CompletionLedger(commit[0], restored.finished)
        notes = restored.notes
        self.suspicion = Suspicion(notes, notes.running, commit[0])
        self.set_aside: list[int] = []
        self.in_hand: list[int] = []
        self.now = 0.0
        self.committed = commit
        self.commit()

    def commit(self) -> None:
        notes = self.suspicion.notes(self.ledger.head, 0)
        commit = self.ledger.commit(notes)
        self.committed = commit.offset, commit.metadata
        self.suspicion.committed(notes)

    def take(self) -> bool:
        """Hand out what may be handed out; False when the process died of it."""
        while self.ledger.position < len(self.log) and self.suspicion.may_take():
            if len(self.in_hand) >= self.at_once and not self.suspicion.is_trying:
                break
            offset = self.ledger.position
            if self.ledger.is_new(offset):
                if self.suspicion.condemns():
                    self.set_aside.append(offset)
                elif offset in self.poison:
                    return False
                self.suspicion.took(self.now)
                self.in_hand.append(offset)
            self.ledger.deliver(offset)
        return True

    def finish(self) -> None:
        for offset in self.in_hand:
            self.ledger.finish(offset)
        self.in_hand.clear()

    def settle(self) -> None:
        self.suspicion.settle(
            self.now, self.ledger.in_flight, self.ledger.position >= len(self.log)
        )

    def is_done(self) -> bool:
        return self.ledger.head >= len(self.log)


def run(length: int, poison: set[int], at_once: int, kills: list[int]) -> tuple[list[int], int]:
    """Lives one after the other until all is done; `kills` ends them after so many steps each.

    Gives what was set aside and how many processes died of a record.
    """
    commit = (0, "")
    set_aside: list[int] = []
    deaths = 0
    for life_number in range(2_000):
        life = Life(range(length), poison - set(set_aside), commit, at_once)
        steps = kills[life_number] if life_number < len(kills) else 10**9
        died = False
        actions = (life.take, life.finish, life.commit, life.settle, life.commit)
        while not life.is_done() and steps > 0 and not died:
            for action in actions:
                steps -= 1
                if steps <= 0:
                    break
                if action() is False:
                    died = True
                    deaths += 1
                    break
        commit = life.committed
        done = restore(*commit)
        set_aside += [o for o in life.set_aside if o < commit[0] or o in done.finished]
        if life.is_done() and not died and commit[0] >= length:
            return set_aside, deaths
    raise AssertionError("it never came to an end")


@given(
    length=st.integers(1, 600),
    places=st.sets(st.integers(0, 599), max_size=3),
    at_once=st.sampled_from([1, 50, 500]),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_every_record_that_kills_is_set_aside_and_no_other(
    length: int, places: set[int], at_once: int
) -> None:
    poison = {place for place in places if place < length}
    set_aside, deaths = run(length, poison, at_once, [])
    assert set(set_aside) == poison
    assert deaths <= 40 * len(poison)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_kills_from_elsewhere_set_nothing_aside(seed: int) -> None:
    """200 kills, many of them before anything was finished, a few while one record is alone."""
    chance = random.Random(seed)
    kills = [chance.choice([1, 2, 3, 5, 8, 30]) for _ in range(200)]
    kills = [steps if chance.random() < 0.7 else 30 for steps in kills]
    set_aside, deaths = run(500, set(), 100, kills)
    assert set_aside == []
    assert deaths == 0


def test_a_partition_let_go_of_in_order_is_under_no_suspicion() -> None:
    notes = Notes(running=False)
    suspicion = Suspicion(notes, died=False, head=5)
    assert not suspicion.is_trying
    assert suspicion.may_take()


def test_groups_grow_until_nothing_is_held_back() -> None:
    suspicion = Suspicion(Notes(running=True, deaths=9), died=True, head=0)
    taken = 0
    while suspicion.is_trying:
        suspicion.committed(suspicion.notes(0, 0))
        while suspicion.may_take():
            suspicion.took(0.0)
            taken += 1
        suspicion.settle(0.0, in_flight=0, waits=False)
    assert taken >= LARGEST_GROUP
