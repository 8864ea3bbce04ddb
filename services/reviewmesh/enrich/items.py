"""Items to infer, jobs (items in the client), and answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reviewmesh.avro.bounds import LARGEST
from reviewmesh.enrich.routes import PRIMARY, HoldReason
from reviewmesh.kafka.record import TRACEPARENT, Record
from reviewmesh_protos.inference.v1 import inference_pb2

# Fields of a usage that are summed over all calls for an item; the others are of the last call.
SUMMED = (
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "cost_micros",
    "provider_requests",
)

ITEM_REFUSED = "NOT_TAKEN"
"""The code of an item that a worker refuses, for example because its text is too long."""

TaskOutput = inference_pb2.NerOutput | inference_pb2.TopicOutput | inference_pb2.SentimentOutput


@dataclass(frozen=True, slots=True)
class WorkItem:
    """The text of one review for one task. The caller finds its own state in `token`."""

    token: object
    partition: int
    offset: int
    text: str
    language: str
    traceparent: str | None
    business_id: str | None
    accepted_s: float
    """When the review was accepted, in seconds since 1970."""
    review_id: str = ""
    content_hash: str = ""

    @classmethod
    def of(cls, token: object, record: Record, review: Mapping[str, Any]) -> WorkItem:
        """The item of an accepted or enriched review; `record` is the one that needs the answer."""
        trace = record.header(TRACEPARENT)
        return cls(
            token=token,
            partition=record.partition,
            offset=record.offset,
            text=review["text"] or "",
            language=review["language"] or "",
            traceparent=trace.decode("ascii", "replace") if trace else None,
            business_id=review["business_id"],
            accepted_s=accepted_ms(record, review) / 1000,
            review_id=review["review_id"],
            content_hash=review["content_hash"] or "",
        )


def accepted_ms(record: Record, review: Mapping[str, Any]) -> int:
    """By the later of two clocks, the broker's and that of intake.

    A clock that is minutes behind must not make a review look as if it had waited: text would leave
    for that.
    """
    return max(record.timestamp_ms, review.get("accepted_at") or 0)


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
    """Tokens, cost and requests of all its calls, as far as the workers report them."""
    code: str = ""
    """The code of the worker's error about the item; empty without one."""
    paid: inference_pb2.Usage | None = None
    """The usage of the fallback's call; None if unknown or without a fallback."""
    retryable: bool = False
    """Whether another attempt may succeed."""
    route: str = PRIMARY
    """The pool that answered."""
    rollout: str | None = None
    """The rollout that gave the item to its candidate."""
    candidate_error: str | None = None
    """Why the candidate did not answer."""
    call: CallMade | None = None
    """The last one that it was part of."""


@dataclass(slots=True, eq=False)
class Job:
    """An item in the client that is not answered yet. Times are by the event loop's clock."""

    item: WorkItem
    max_batch: int
    """Most items of a call with this item."""
    attempts: int = 0
    broken_calls: int = 0
    """Number of its calls that broke in flight."""
    withdrawn: bool = False
    suspect: bool = False
    """A whole call failed, perhaps because of this item, so it is sent alone."""
    worker: str = ""
    """Address of the worker that it was sent to; empty while it waits."""
    sent_at: float = 0.0
    """When it was sent."""
    retry_at: float = 0.0
    """When it is retried."""
    fallback_failures: int = 0
    """Number of its fallback calls without a result."""
    fallback_refusals: int = 0
    """How often a fallback worker refused it, because it is too large."""
    fallback_paused_until: float = 0.0
    """Until then it is not sent to the fallback."""
    fallback_pause_reason: HoldReason = HoldReason.FAILED
    """Why it is not sent there."""
    usage: inference_pb2.Usage | None = None
    """The usage of its calls so far."""
    call: CallMade | None = None
    """The last one that it was part of."""
    lineage: inference_pb2.Lineage | None = None
    """The lineage that a worker reported last."""
    size: int = field(init=False)
    """Most bytes that it takes in a request."""

    def __post_init__(self) -> None:
        self.size = len(self.item.text) * 4 + len(self.item.language) + 128

    def add_usage(
        self, lineage: inference_pb2.Lineage | None, usage: inference_pb2.Usage | None
    ) -> None:
        """Add the usage that a worker reported for one more call, even a failed one."""
        self.usage = sum_of_usage(self.usage, usage)
        self.lineage = lineage or self.lineage


def sum_of_usage(
    before: inference_pb2.Usage | None, last: inference_pb2.Usage | None
) -> inference_pb2.Usage | None:
    """The usage of all calls. A number that a call does not report counts as 0."""
    if before is None or last is None:
        return last or before
    total = inference_pb2.Usage()
    total.CopyFrom(last)
    for name in SUMMED:
        numbers = number_of(before, name), number_of(last, name)
        if reported := [number for number in numbers if number is not None]:
            setattr(total, name, min(sum(reported), LARGEST))
    return total


def number_of(usage: inference_pb2.Usage | None, name: str) -> int | None:
    """A number of the usage; None if it is not reported or out of range."""
    if usage is None or not usage.HasField(name):  # type: ignore[arg-type]
        return None
    number = int(getattr(usage, name))
    return number if 0 <= number <= LARGEST else None
