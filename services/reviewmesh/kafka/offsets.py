"""Where the logs of partitions begin and end: every question for it is asked here.

It is asked with `offsets_for_times` of a consumer, which takes logical offsets as well as
timestamps and sends one request to each leader, whatever the number of partitions. The admin
client's `list_offsets` is not used: after a broker's restart its requests stay fenced by the old
leader epoch (decision 6).

A consumer keeps the leader epochs that it has seen. After a topic was deleted and created again it
has to be replaced.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from reviewmesh.kafka.partitions import BrokerPartition


@dataclass(frozen=True, slots=True)
class LogBounds:
    """How far a partition's log reaches."""

    start: int
    """The first offset that is still there."""
    stable: int
    """The last stable offset: what follows is in open transactions, or behind them."""
    end: int
    """The high watermark, open transactions included."""


def offsets_at(
    consumer: Any, partitions: Iterable[BrokerPartition], at: int, timeout_s: float
) -> dict[BrokerPartition, int]:
    """The offset of each partition at OFFSET_BEGINNING, OFFSET_END or a timestamp in ms.

    OFFSET_END is the last stable offset for a consumer with `isolation.level=read_committed`, the
    high watermark for one with `read_uncommitted`. A timestamp after the last record gives -1.
    Raises KafkaException, also when a single partition has no answer.
    """
    found = {}
    for partition, offset in _ask(consumer, partitions, at, timeout_s).items():
        if isinstance(offset, KafkaError):
            raise KafkaException(offset)
        found[partition] = offset
    return found


def start_and_end(consumer: Any, partition: BrokerPartition, timeout_s: float) -> tuple[int, int]:
    """The first offset and the one after the last; see `offsets_at`. Raises KafkaException."""
    start = offsets_at(consumer, [partition], OFFSET_BEGINNING, timeout_s)[partition]
    return start, offsets_at(consumer, [partition], OFFSET_END, timeout_s)[partition]


def log_bounds(
    committed: Any, uncommitted: Any, partitions: Iterable[BrokerPartition], timeout_s: float
) -> dict[BrokerPartition, LogBounds | KafkaError]:
    """The bounds of each partition, or the error that the broker gave for it.

    `committed`, `uncommitted`: consumers with that isolation level. Raises KafkaException when the
    broker gives no answer at all, or lacks one of the topics.
    """
    wanted = list(partitions)
    starts = _ask(uncommitted, wanted, OFFSET_BEGINNING, timeout_s)
    stables = _ask(committed, wanted, OFFSET_END, timeout_s)
    ends = _ask(uncommitted, wanted, OFFSET_END, timeout_s)
    found: dict[BrokerPartition, LogBounds | KafkaError] = {}
    for partition in wanted:
        start, stable, end = starts[partition], stables[partition], ends[partition]
        if isinstance(start, KafkaError):
            found[partition] = start
        elif isinstance(stable, KafkaError):
            found[partition] = stable
        elif isinstance(end, KafkaError):
            found[partition] = end
        else:
            # The log may have grown between the two answers.
            found[partition] = LogBounds(start, stable, max(stable, end))
    return found


def _ask(
    consumer: Any, partitions: Iterable[BrokerPartition], at: int, timeout_s: float
) -> dict[BrokerPartition, int | KafkaError]:
    wanted = [TopicPartition(*partition, at) for partition in partitions]
    if not wanted:
        return {}
    answers = consumer.offsets_for_times(wanted, timeout=timeout_s)
    return {
        BrokerPartition(answer.topic, answer.partition): (
            answer.offset if answer.error is None else answer.error
        )
        for answer in answers
    }
