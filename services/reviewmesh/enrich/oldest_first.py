"""A queue of items: round-robin over partitions, the lowest offset of each first.

Ordered by offset instead of arrival. The second version of a review is submitted after the first is
answered, and an item is queued again for a retry. At the end of a queue by arrival thousands of
items would overtake it, and the joiner would have to keep their results.
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
        """The oldest item of each partition."""
        return [heap[0][2] for heap in self._partitions.values()]

    def __iter__(self) -> Iterator[T]:
        """All items, in no order."""
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
