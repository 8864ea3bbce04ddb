"""A queue of items: the lowest offset of each partition first, partitions round-robin.

Ordered by offset, not by arrival. The second version of a review is submitted when the first is
done, and an item to be retried comes back late. At the end of the queue both would be overtaken by
thousands of items, whose results the joiner then has to hold.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")


class OldestFirst(Generic[T]):
    def __init__(self) -> None:
        # Breaks ties between equal offsets by order of arrival.
        self._arrivals = count()
        # In round-robin order; none is empty.
        self._partitions: OrderedDict[int, list[tuple[int, int, T]]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, partition: int, offset: int, item: T) -> None:
        heap = self._partitions.setdefault(partition, [])
        heapq.heappush(heap, (offset, next(self._arrivals), item))
        self._size += 1

    def first(self) -> T:
        """The item that `take` returns next."""
        return next(iter(self._partitions.values()))[0][2]

    def take(self) -> T:
        partition, heap = next(iter(self._partitions.items()))
        *_, item = heapq.heappop(heap)
        self._size -= 1
        if heap:
            self._partitions.move_to_end(partition)
        else:
            del self._partitions[partition]
        return item

    def firsts(self) -> list[T]:
        """The oldest of each partition."""
        return [heap[0][2] for heap in self._partitions.values()]

    def __iter__(self) -> Iterator[T]:
        """All of them, in no order."""
        return (entry[2] for heap in self._partitions.values() for entry in heap)

    def keep(self, wanted: Callable[[T], bool]) -> None:
        """Drop all other items."""
        entries = self._partitions
        self._partitions, self._size = OrderedDict(), 0
        for partition, heap in entries.items():
            kept = [entry for entry in heap if wanted(entry[2])]
            if kept:
                heapq.heapify(kept)
                self._partitions[partition] = kept
                self._size += len(kept)
