"""Outcomes of texts, so that a text that is asked for again is not inferred again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Generic, TypeVar

from reviewmesh_worker.engines.interface import ItemFailure

T = TypeVar("T")


class AnswerCache(Generic[T]):
    """Outcomes of at most so many texts; what was asked for longest ago is let go of first."""

    def __init__(self, most: int) -> None:
        self._most = most
        # Keyed by digest: the texts themselves may be large.
        self._outcomes: OrderedDict[bytes, T] = OrderedDict()

    def get(self, text: str) -> T | None:
        digest = _digest_of(text)
        if digest not in self._outcomes:
            return None
        self._outcomes.move_to_end(digest)
        return self._outcomes[digest]

    def put(self, text: str, outcome: T | ItemFailure) -> None:
        # Failures are not remembered: their cause may be mended.
        if isinstance(outcome, ItemFailure):
            return
        self._outcomes[_digest_of(text)] = outcome
        if len(self._outcomes) > self._most:
            self._outcomes.popitem(last=False)


def _digest_of(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
