"""Texts that leave for the fallback: what the client's thread asks of the polling thread.

Before a call its cost is reserved in a transaction. The transaction of the result settles the
reservation. A text that was not sent releases it, and a call without a result is charged.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from reviewmesh.enrich.items import WorkItem
from reviewmesh_protos.inference.v1 import inference_pb2


@dataclass(frozen=True, slots=True, eq=False)
class Departure:
    """A text that is about to leave for a fallback."""

    item: WorkItem
    """The review with its unmasked text."""
    region: str
    reason: str
    digest: str
    characters: int
    masked: Mapping[str, int]

    @classmethod
    def of(
        cls, item: WorkItem, region: str, reason: str, text: str, kinds: Counter[str]
    ) -> Departure:
        """`text`: the masked text. `kinds`: how many values of each kind are masked."""
        digest = sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        return cls(
            item=item,
            region=region,
            reason=reason,
            digest=digest,
            characters=len(text),
            masked=dict(kinds),
        )


@dataclass(frozen=True, slots=True)
class Reserve:
    """Reserve the cost of the call. The text is sent once that is committed."""

    departure: Departure


@dataclass(frozen=True, slots=True)
class Release:
    """End the reservation without cost: the text was not sent."""

    departure: Departure


@dataclass(frozen=True, slots=True)
class Charge:
    """End the reservation of a call that gave no result."""

    departure: Departure
    usage: inference_pb2.Usage | None
    """None if the worker did not report it."""


Step = Reserve | Release | Charge


class Steps:
    """Appended to in the client's thread, taken in the polling thread."""

    def __init__(self) -> None:
        self._steps: deque[Step] = deque()

    def append(self, step: Step) -> None:
        self._steps.append(step)

    def take(self) -> list[Step]:
        return [self._steps.popleft() for _ in range(len(self._steps))]
