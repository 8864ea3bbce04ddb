"""The rollout of one task, as `reviews.control` says, and which reviews take part in it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import structlog

from reviewmesh.avro.codec import Codec
from reviewmesh.avro.followed import followed
from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.kafka.record import Record, Unavailable
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import CONTROL

NONE, SHADOW, CANARY, READY = "NONE", "SHADOW", "CANARY", "READY"
DONE, ROLLED_BACK, ABORTED = "DONE", "ROLLED_BACK", "ABORTED"
GOING_ON = frozenset({SHADOW, CANARY, READY})


class Part(Enum):
    """What a review is to a rollout."""

    NO = "no"
    COPIED = "copied"
    """The candidate answers it as well."""
    CANARY = "canary"
    """The candidate answers it."""


@dataclass(frozen=True, slots=True)
class Rollout:
    id: str
    task: str
    state: str
    share: float

    def part(self, review_id: str) -> Part:
        """A larger share keeps the reviews of a smaller one."""
        if self.state not in GOING_ON:
            return Part.NO
        kind = Part.COPIED if self.state == SHADOW else Part.CANARY
        return kind if place(self.id, self.task, review_id) < self.share else Part.NO


def place(rollout: str, task: str, review_id: str) -> float:
    """Where the review is between 0 and 1: the same in every process, for all of its versions."""
    digest = hashlib.sha256("\0".join((rollout, task, review_id)).encode(errors="replace"))
    return int.from_bytes(digest.digest()[:8], "big") / 2**64


class Rollouts:
    """Written by the thread that follows the topic, read by the calls' event loop."""

    def __init__(
        self,
        task: str,
        settings: Settings,
        codec: Codec,
        partitions: int,
        prepare: Callable[[], None],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`prepare`: called before a rollout begins here; may wait, raises RegistryUnavailable."""
        self._task = task
        self._prepare = prepare
        self._log = log
        self._latest: Rollout | None = None
        self._was_read = False
        self._topic = followed(settings, CONTROL, partitions, codec, self._take, log)

    def start(self) -> None:
        self._topic.start()

    def stop(self) -> None:
        self._topic.stop()

    def now(self) -> Rollout | None:
        """The one that goes on. While the broker is away, the one that is known stays."""
        if not self._was_read:
            # What a compacted topic holds of the past is not in force.
            self._was_read = self._topic.is_current
        latest = self._latest if self._was_read else None
        return latest if latest is not None and latest.state in GOING_ON else None

    def _take(self, record: Record, content: dict[str, Any] | None) -> None:
        if record.key != self._task.encode():
            return
        if content is None:
            self._latest = None
            return
        latest = Rollout(content["rollout"], self._task, content["state"], content["share"])
        if latest == self._latest:
            return
        if latest.state in GOING_ON:
            try:
                self._prepare()
            except RegistryUnavailable as error:
                raise Unavailable(str(error)) from error
        self._latest = latest
        self._log.info("rollout", rollout=latest.id, state=latest.state, share=latest.share)
