"""Items to infer, jobs (items in the client), and answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reviewmesh.avro.bounds import LARGEST
from reviewmesh.enrich.routes import PRIMARY, Held
from reviewmesh.kafka.record import TRACEPARENT, Record
from reviewmesh_protos.inference.v1 import inference_pb2

# Of all calls for an item; the other fields of a usage are those of the last call.
SUMMED = (
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "cost_micros",
    "provider_requests",
)

NOT_TAKEN = "NOT_TAKEN"
"""The code of an item that a worker refuses before it begins: its text may be too long."""

TaskOutput = inference_pb2.NerOutput | inference_pb2.TopicOutput | inference_pb2.SentimentOutput


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One text of one review for one task; `token` is the caller's."""

    token: object
    partition: int
    offset: int
    text: str
    language: str
    traceparent: str | None
    business_id: str | None
    accepted_s: float
    """When the review was accepted, by the wall clock."""
    review_id: str = ""
    content_hash: str = ""

    @classmethod
    def of(cls, token: object, record: Record, review: Mapping[str, Any]) -> WorkItem:
        """The text of an accepted or an enriched review; `record` is what asks for the answer."""
        trace = record.header(TRACEPARENT)
        return cls(
            token=token,
            partition=record.partition,
            offset=record.offset,
            text=review["text"] or "",
            language=review["language"] or "",
            traceparent=trace.decode("ascii", "replace") if trace else None,
            business_id=review["business_id"],
            accepted_s=record.timestamp_ms / 1000,
            review_id=review["review_id"],
            content_hash=review["content_hash"] or "",
        )


@dataclass(frozen=True, slots=True)
class CallMade:
    """A gRPC call, as results tell of it."""

    id: str
    began_ms: int
    """Since 1970."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An output, or the final error; `attempts` counts calls that reached a worker."""

    output: TaskOutput | None
    error: str | None
    attempts: int
    lineage: inference_pb2.Lineage | None
    usage: inference_pb2.Usage | None
    """Tokens, money and requests of all its calls, as far as workers told them."""
    code: str = ""
    """Of the worker's error about the item; empty without one."""
    paid: inference_pb2.Usage | None = None
    """What the call to the fallback that gave it took; None where nobody told."""
    may_pass: bool = False
    """The error is one that the item's next try may not meet."""
    route: str = PRIMARY
    """The pool that answered."""
    rollout: str | None = None
    """The rollout that the item is a canary of."""
    candidate_error: str | None = None
    """Why its candidate did not answer."""
    call: CallMade | None = None
    """The last one that it was part of."""


@dataclass(slots=True, eq=False)
class Job:
    """An item in the client, until it is answered."""

    item: WorkItem
    limit: int
    """The largest call that it may be part of, in items."""
    attempts: int = 0
    broken: int = 0
    """How many of its calls broke in flight."""
    withdrawn: bool = False
    suspect: bool = False
    """A whole call failed, perhaps because of this item: it is sent alone."""
    worker: str = ""
    """Address of the worker that it was sent to; empty while it waits."""
    since: float = 0.0
    """When it was sent, by the event loop's clock."""
    call: CallMade | None = None
    """The last one that it was part of."""
    again_at: float = 0.0
    """When it is retried, by the same clock."""
    departures: int = 0
    """How often the fallback failed on it."""
    not_taken: int = 0
    """How often the fallback's worker did not send it on: it was too large."""
    rests_until: float = 0.0
    """Until then the fallback is not asked again, by the same clock."""
    rests_as: Held = Held.FAILED
    """Why not."""
    used: inference_pb2.Usage | None = None
    """What its calls took so far."""
    lineage: inference_pb2.Lineage | None = None
    """Of the worker that told of it last."""
    size: int = field(init=False)
    """Upper bound of its bytes in a request."""

    def __post_init__(self) -> None:
        self.size = len(self.item.text) * 4 + len(self.item.language) + 128

    def told(
        self, lineage: inference_pb2.Lineage | None, usage: inference_pb2.Usage | None
    ) -> None:
        """A worker told what one more call for it took, also one that failed."""
        self.used = used_in_all(self.used, usage)
        self.lineage = lineage or self.lineage


def used_in_all(
    before: inference_pb2.Usage | None, last: inference_pb2.Usage | None
) -> inference_pb2.Usage | None:
    """A call that tells nothing of a number adds nothing to it."""
    if before is None or last is None:
        return last or before
    total = inference_pb2.Usage()
    total.CopyFrom(last)
    for name in SUMMED:
        numbers = number_of(before, name), number_of(last, name)
        if told := [number for number in numbers if number is not None]:
            setattr(total, name, min(sum(told), LARGEST))
    return total


def number_of(usage: inference_pb2.Usage | None, name: str) -> int | None:
    """None also for numbers that are out of range."""
    if usage is None or not usage.HasField(name):  # type: ignore[arg-type]
        return None
    number = int(getattr(usage, name))
    return number if 0 <= number <= LARGEST else None
