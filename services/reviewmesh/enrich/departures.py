"""Texts on their way to the fallback: the steps between the client's thread and the polling one.

A text leaves in steps: it asks for a reservation, which a transaction writes; only then is it sent;
its result's transaction settles the reservation. One that is not answered gives it back, or says
what it took in vain.
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
    """One text that is to leave."""

    item: WorkItem
    """The review, with the text that the mesh holds."""
    region: str
    reason: str
    digest: str
    characters: int
    masked: Mapping[str, int]

    @classmethod
    def of(
        cls, item: WorkItem, region: str, reason: str, text: str, kinds: Counter[str]
    ) -> Departure:
        """`text` is what leaves."""
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
class Asks:
    """It may leave once it is reserved."""

    departure: Departure


@dataclass(frozen=True, slots=True)
class GivesBack:
    """It was reserved, and nothing was sent."""

    departure: Departure


@dataclass(frozen=True, slots=True)
class Unanswered:
    """It was sent, and the review waits for another answer."""

    departure: Departure
    usage: inference_pb2.Usage | None
    """None where nobody told what it took."""


Step = Asks | GivesBack | Unanswered


class Steps:
    """Appended to in the client's thread, taken in the polling thread."""

    def __init__(self) -> None:
        self._steps: deque[Step] = deque()

    def append(self, step: Step) -> None:
        self._steps.append(step)

    def take(self) -> list[Step]:
        return [self._steps.popleft() for _ in range(len(self._steps))]
