"""The records of a topic that is followed whole, decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog

from reviewmesh.avro.codec import Codec, DecodeError
from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.kafka.followed import FollowedTopic
from reviewmesh.kafka.record import Record, Unavailable
from reviewmesh.settings import Settings

Take = Callable[[Record, dict[str, Any] | None], None]
"""Given a record and what it holds: None for a tombstone."""


def followed(
    settings: Settings,
    topic: str,
    partitions: int,
    codec: Codec,
    take: Take,
    log: structlog.stdlib.BoundLogger,
    since: Mapping[int, int] | None = None,
) -> FollowedTopic:
    """What cannot be decoded is logged and passed over: it changes nothing of what came before."""

    def receive(record: Record) -> None:
        content: dict[str, Any] | None = None
        if record.value is not None:
            try:
                content = codec.decode_ours(record.value)
            except RegistryUnavailable as error:
                raise Unavailable(str(error)) from error
            except DecodeError as error:
                log.warning(
                    "not a record of this topic",
                    topic=topic,
                    partition=record.partition,
                    offset=record.offset,
                    reason=str(error),
                )
                return
        take(record, content)

    return FollowedTopic(settings, topic, partitions, receive, log, since)
