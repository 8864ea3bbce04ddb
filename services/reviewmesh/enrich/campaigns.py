"""The states of campaigns, which do answers again, from `reviews.campaigns`."""

from __future__ import annotations

from typing import Any, Literal

import structlog

from reviewmesh.avro.codec import Codec
from reviewmesh.avro.followed import followed
from reviewmesh.kafka.record import Record
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import CAMPAIGNS

RUNNING, PAUSED, CANCELLED = "RUNNING", "PAUSED", "CANCELLED"

Verdict = Literal["unread", "unknown", "go", "wait", "drop"]


class Campaigns:
    """Written by the thread that follows the topic, read by the polling thread."""

    def __init__(
        self,
        settings: Settings,
        codec: Codec,
        partitions: int,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._log = log
        self._states: dict[bytes, str] = {}
        self._follows = False
        self._topic = followed(settings, CAMPAIGNS, partitions, codec, self._take, log)

    def follow(self) -> None:
        """Start to read the topic, at the first request: most meshes never have a campaign."""
        if not self._follows:
            self._follows = True
            self._topic.start()

    def stop(self) -> None:
        self._topic.stop()

    def verdict(self, campaign: str) -> Verdict:
        """What to do with a request of this campaign.

        `unread`: the topic was not read to its end yet. `unknown`: the campaign does not exist, or
        its first record was not read yet.
        """
        if not self._topic.is_current:
            return "unread"
        state = self._states.get(campaign.encode(errors="replace"))
        if state is None:
            return "unknown"
        if state == RUNNING:
            return "go"
        return "wait" if state == PAUSED else "drop"

    def _take(self, record: Record, content: dict[str, Any] | None) -> None:
        # Without a readable state the earlier one stays in force.
        key = record.key or b""
        if content is None:
            self._states.pop(key, None)
            return
        self._states[key] = content["state"]
        if self._topic.is_current:
            self._log.info(
                "state of a campaign", campaign=content["campaign"], state=content["state"]
            )
