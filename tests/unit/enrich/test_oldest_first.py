"""The order in which items get their calls."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from reviewmesh.enrich.oldest_first import OldestFirst

PLACES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), max_size=40)


def taken(queue: OldestFirst[tuple[int, int]]) -> list[tuple[int, int]]:
    return [queue.take() for _ in range(len(queue))]


@given(PLACES, st.integers(0, 3))
def test_the_oldest_of_a_partition_first_and_partitions_in_turn(
    places: list[tuple[int, int]], gone: int
) -> None:
    queue: OldestFirst[tuple[int, int]] = OldestFirst()
    for place in places:
        queue.add(*place, place)
    queue.keep(lambda place: place[0] != gone)
    left = [place for place in places if place[0] != gone]
    assert len(queue) == len(left)
    order = taken(queue)
    assert sorted(order) == sorted(left)
    waiting: dict[int, list[int]] = defaultdict(list)
    for partition, offset in sorted(left):
        waiting[partition].append(offset)
    turns: dict[int, int] = dict.fromkeys(waiting, 0)
    for partition, offset in order:
        assert offset == waiting[partition].pop(0)
        turns[partition] += 1
        behind = [turns[other] for other in waiting if waiting[other]]
        assert turns[partition] <= min(behind, default=turns[partition]) + 1


def test_a_follower_and_what_is_tried_again_go_to_the_head_of_the_line() -> None:
    queue: OldestFirst[tuple[int, int]] = OldestFirst()
    for offset in range(10, 15):
        queue.add(0, offset, (0, offset))
    assert queue.take() == (0, 10)
    queue.add(0, 3, (0, 3))
    queue.add(0, 10, (0, 10))
    assert [offset for _, offset in taken(queue)] == [3, 10, 11, 12, 13, 14]


def test_first_is_what_take_gives() -> None:
    queue: OldestFirst[str] = OldestFirst()
    queue.add(1, 5, "b")
    queue.add(1, 4, "a")
    assert [queue.first(), queue.take(), queue.first(), queue.take()] == ["a", "a", "b", "b"]
