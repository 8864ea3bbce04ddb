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
RUNNING_STATES = frozenset({SHADOW, CANARY, READY})


class Participation(Enum):
    """How a review takes part in a rollout."""

    NO = "no"
    COPIED = "copied"
    """The candidate answers it too."""
    CANARY = "canary"
    """Only the candidate answers it."""


@dataclass(frozen=True, slots=True)
class Rollout:
    id: str
    task: str
    state: str
    share: float

    def participation(self, review_id: str) -> Participation:
        """How the review takes part. A larger share includes the reviews of a smaller one."""
        if self.state not in RUNNING_STATES:
            return Participation.NO
        kind = Participation.COPIED if self.state == SHADOW else Participation.CANARY
        return (
            kind if hash_fraction(self.id, self.task, review_id) < self.share else Participation.NO
        )


def hash_fraction(rollout: str, task: str, review_id: str) -> float:
    """A number in [0, 1) for the review: the same in every process, for all its versions."""
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
        """`prepare`: called before a rollout begins in this process. It may block, and raises
        RegistryUnavailable.
        """
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

    def current(self) -> Rollout | None:
        """The running rollout; None without one. Without a broker, the last known one."""
        if not self._was_read:
            # Older records of a compacted topic are not in force, so read it to its end first.
            self._was_read = self._topic.is_current
        latest = self._latest if self._was_read else None
        return latest if latest is not None and latest.state in RUNNING_STATES else None

    def _take(self, record: Record, content: dict[str, Any] | None) -> None:
        if record.key != self._task.encode():
            return
        if content is None:
            self._latest = None
            return
        latest = Rollout(content["rollout"], self._task, content["state"], content["share"])
        if latest == self._latest:
            return
        if latest.state in RUNNING_STATES:
            try:
                self._prepare()
            except RegistryUnavailable as error:
                raise Unavailable(str(error)) from error
        self._latest = latest
        self._log.info("rollout", rollout=latest.id, state=latest.state, share=latest.share)
