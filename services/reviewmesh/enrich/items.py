"""Items to infer, jobs (items in the client), and answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reviewmesh.enrich.routes import PRIMARY
from reviewmesh.kafka.record import TRACEPARENT, Record
from reviewmesh_protos.inference.v1 import inference_pb2

Output = inference_pb2.NerOutput | inference_pb2.TopicOutput | inference_pb2.SentimentOutput


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
class Answer:
    """An output, or the final error; `attempts` counts calls that reached a worker."""

    output: Output | None
    error: str | None
    attempts: int
    lineage: inference_pb2.Lineage | None
    usage: inference_pb2.Usage | None
    may_pass: bool = False
    """The error is one that the item's next try may not meet."""
    route: str = PRIMARY
    """The pool that answered."""
    rollout: str | None = None
    """The rollout that the item is a canary of."""
    candidate_error: str | None = None
    """Why its candidate did not answer."""


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
    again_at: float = 0.0
    """When it is retried, by the same clock."""
    rests_until: float = 0.0
    """Until then the fallback is not asked again, by the same clock."""
    size: int = field(init=False)
    """Upper bound of its bytes in a request."""

    def __post_init__(self) -> None:
        self.size = len(self.item.text) * 4 + len(self.item.language) + 128
