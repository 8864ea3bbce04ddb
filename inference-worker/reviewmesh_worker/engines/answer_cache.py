"""A cache of answers: a text that comes again is not inferred again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Generic, TypeVar

from reviewmesh_worker.engines.interface import ItemFailure

T = TypeVar("T")


class AnswerCache(Generic[T]):
    """Least recently used: beyond `max_entries` the entry that was read longest ago is evicted."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        # Keyed by digest: the texts themselves may be large.
        self._outcomes: OrderedDict[bytes, T] = OrderedDict()

    def get(self, text: str) -> T | None:
        digest = _digest_of(text)
        if digest not in self._outcomes:
            return None
        self._outcomes.move_to_end(digest)
        return self._outcomes[digest]

    def put(self, text: str, outcome: T | ItemFailure) -> None:
        # Failures are not cached: their cause may be gone by the next request.
        if isinstance(outcome, ItemFailure):
            return
        self._outcomes[_digest_of(text)] = outcome
        if len(self._outcomes) > self._max_entries:
            self._outcomes.popitem(last=False)


def _digest_of(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
