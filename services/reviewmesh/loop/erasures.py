"""Reviews that were erased: replays of their older versions take no effect.

Dead letters keep a review's text longer than any other topic, and a replay would publish it again.
So intake writes a mark to `reviews.replayed` in the transaction that accepts the erasure. Intake
and the joiner read the marks back when a partition is opened. A mark holds a digest of the id,
never the id.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import partial

from reviewmesh import metrics
from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.kafka.record import Output, Record
from reviewmesh_schemas.names import REPLAYED

# Per partition; beyond this number, replays of the reviews erased first may take effect again.
REMEMBERED_ERASURES = 50_000
# Dead letters have the broker's time, erasures have intake's, and a dead letter is appended up to
# one transaction later. So a dead letter counts as older even if it is this much younger.
LETTER_SLACK_MS = 10_000
MARK = re.compile(r"erased/([0-9a-f]{32})")


class Erasures:
    """The erasures of one partition, or of all partitions."""

    def __init__(self, codec: Codec, at_most: int = REMEMBERED_ERASURES) -> None:
        self._codec = codec
        self._at_most = at_most
        # When each review was erased last, in milliseconds since 1970, by the digest of its id.
        self._at: dict[str, int] = {}

    def restore(self, record: Record) -> None:
        """Take a mark that was read back from the topic. Raises RegistryUnavailable."""
        match = MARK.fullmatch((record.key or b"").decode("ascii", "replace"))
        if match is None or record.value is None:
            return
        try:
            at = self._codec.decode_ours(record.value)["at"]
        except DecodeError:
            at = None
        # The content is invalid, but its key says that the review was erased.
        self._remember(match[1], record.timestamp_ms if at is None else at)

    def take(self, review_id: str, at_ms: int) -> None:
        self._remember(digest_of(review_id), at_ms)

    def erased_at(self, review_id: str) -> int:
        """When it was erased last, in milliseconds since 1970; -1 if it was not."""
        return self._at.get(digest_of(review_id), -1) if self._at else -1

    def covers(self, review_id: str, accepted_at: int | None) -> bool:
        """Whether a version of the review was accepted before it was erased."""
        return (accepted_at or 0) <= self.erased_at(review_id)

    def covers_letter(self, review_id: str, letter_ms: int | None) -> bool:
        """Whether intake refused a version of the review before it was erased."""
        erased_at = self.erased_at(review_id)
        return erased_at >= 0 and (letter_ms or 0) <= erased_at + LETTER_SLACK_MS

    def mark(self, tombstone: Record, partition: int, review_id: str) -> Output:
        value = self._codec.encode(
            {
                "partition": tombstone.partition,
                "offset": tombstone.offset,
                "stage": "intake",
                "topic": tombstone.topic,
                "record_offset": tombstone.offset,
                "at": self.erased_at(review_id),
            }
        )
        return Output(REPLAYED, partition, f"erased/{digest_of(review_id)}".encode(), value)

    def _remember(self, digest: str, at_ms: int) -> None:
        at_ms = max(at_ms, self._at.pop(digest, 0))
        self._at[digest] = at_ms
        if len(self._at) > self._at_most:
            del self._at[next(iter(self._at))]


def digest_of(review_id: str) -> str:
    return hashlib.sha256(review_id.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def on_dropped(service: str) -> Callable[[], None]:
    """A callback that counts a dropped replay of an erased review, for after the commit."""
    return partial(_dropped, service)


def _dropped(service: str) -> None:
    metrics.ERASED_REPLAYS_DROPPED.labels(service).inc()
