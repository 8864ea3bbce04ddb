"""Where a review is still held, until when, and what can be done about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.kafka.record import TRACEPARENT
from reviewmesh.kafka.tracing import new_traceparent
from reviewmesh.query.connection import Connection
from reviewmesh.query.errors import CannotReach
from reviewmesh.query.retention import kept_by_topic
from reviewmesh.query.search import Occurrence, occurrences_of
from reviewmesh.query.sending import Sender
from reviewmesh_schemas.names import RAW

ELSEWHERE = (
    (
        "the system that publishes the review",
        "delete it there first; published again, its text comes back as a newer version",
    ),
    (
        "stores, indexes and exports of consumers of reviews.enriched",
        "those that keep the highest revision take the replacement; delete it from others",
    ),
    (
        "folders of `reviewmesh-models label`, and data that models are trained on",
        "labels.sqlite and the .jsonl files hold texts without ids; look for the text",
    ),
    (
        "labelled rows that a rollout was started with: reviews.commands",
        "they hold texts without ids, and are deleted after 14 days",
    ),
    (
        "providers that the text was sent to: engine `openai`, a fallback, teachers",
        "ask them to delete it; the lineage in reviews.enriched names engine, model and route",
    ),
    (
        "memory of inference workers",
        "answers by a digest of the text, until newer ones take their room or the worker restarts",
    ),
    ("backups and mirrors of the topics", "they have a retention of their own"),
)
"""Places outside the mesh's topics, and what to do there."""


@dataclass(frozen=True)
class HeldRecord:
    """A record of the review that the broker still has."""

    occurrence: Occurrence
    deleted_by: int | None
    """When retention has deleted it at the latest, in milliseconds since 1970."""
    no_time: str
    """Why there is no such time; empty when there is."""


def held(connection: Connection, review_id: str) -> list[HeldRecord]:
    """The records of a review that the broker has, by topic and offset. Raises CannotReach."""
    found = occurrences_of(connection, review_id)
    if not found:
        return []
    kept = kept_by_topic(connection, sorted({item.record.topic for item in found}))
    return [
        HeldRecord(
            item,
            kept[item.record.topic].deleted_by(item.record.timestamp_ms),
            kept[item.record.topic].no_time,
        )
        for item in found
    ]


def can_erase(found: list[HeldRecord]) -> bool:
    """Whether a record with a value is left, which consumers have or could get by a replay."""
    return any(item.occurrence.record.value is not None for item in found)


def erase(connection: Connection, review_id: str) -> tuple[int, int]:
    """Write a tombstone for the review; returns its partition and offset.

    Raises ValueError for an id that is no text, and CannotReach.
    """
    key = review_id.encode()
    places, failures = [], []

    def delivered(error: Any, message: Any) -> None:
        if error is not None:
            failures.append(error.str())
        else:
            places.append((message.partition(), message.offset()))

    sender = Sender(connection)
    sender.send(
        RAW,
        partition=partition_of(key, connection.partitions(RAW)),
        key=key,
        value=None,
        headers=[(TRACEPARENT, new_traceparent())],
        on_delivery=delivered,
    )
    sender.close()
    if failures:
        raise CannotReach(
            f"the tombstone was not acknowledged: {failures[0]}; run the command again"
        )
    [place] = places
    return place
