"""Asks the broker, in one batch each, where partitions end and what groups have committed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import OffsetSpec as _OffsetSpec  # type: ignore[attr-defined]

from reviewmesh.runtime.ledger import decode_finished
from reviewmesh.runtime.settings import Settings

REQUEST_TIMEOUT_S = 3.0
# The client gives up by itself; this is for a client that does not.
ANSWER_TIMEOUT_S = REQUEST_TIMEOUT_S + 2
LATEST: Any = _OffsetSpec.latest()  # type: ignore[no-untyped-call]
EARLIEST: Any = _OffsetSpec.earliest()  # type: ignore[no-untyped-call]
# What a topic or a group answers that is not there, or not there any more.
GONE = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.GROUP_ID_NOT_FOUND,
    }
)

Place = tuple[str, int]
"""A topic as it is named on the broker, and a partition."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What a group committed for a partition, as it lies on the broker."""

    offset: int
    metadata: str

    def progress(self) -> Progress:
        """Raises LedgerMetadataError on metadata that this version did not write."""
        return Progress(self.offset, frozenset(decode_finished(self.offset, self.metadata)))


@dataclass(frozen=True, slots=True)
class Progress:
    """What a group has finished of one partition."""

    committed: int
    finished: frozenset[int] = frozenset()
    """Offsets beyond `committed` that are finished too."""

    def covers(self, offset: int) -> bool:
        return offset < self.committed or offset in self.finished


@dataclass(frozen=True, slots=True)
class Ends:
    """How far a partition reaches."""

    start: int
    stable: int
    """The last stable offset: what follows is in open transactions, or behind them."""
    end: int
    """The high watermark, open transactions included: Kafka's own lag counts up to here."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something could not be asked; `gone` when there is nothing to ask about."""

    reason: str
    gone: bool


class Broker:
    """An admin client's answers as plain values; failures are values too, one per partition."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin: Any = admin

    def ends(self, places: Collection[Place]) -> dict[Place, Ends | Failure]:
        """Three requests to each leader, whatever the number of partitions."""
        if not places:
            return {}
        committed, uncommitted = IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED
        asked = [
            self._ask(places, EARLIEST, uncommitted),
            self._ask(places, LATEST, committed),
            self._ask(places, LATEST, uncommitted),
        ]
        return {place: _ends([answers[place] for answers in asked]) for place in places}

    def _ask(self, places: Collection[Place], spec: Any, isolation: Any) -> dict[Place, Any]:
        futures = self._admin.list_offsets(
            {TopicPartition(*place): spec for place in places},
            isolation_level=isolation,
            request_timeout=REQUEST_TIMEOUT_S,
        )
        return {(at.topic, at.partition): future for at, future in futures.items()}

    def committed(
        self, groups: Mapping[str, Collection[Place] | None]
    ) -> dict[str, dict[Place, Committed] | Failure]:
        """What each group has committed of these partitions; of None, of all that it reads.

        What lies in an open transaction is not committed yet.
        """
        futures = {
            group: self._admin.list_consumer_group_offsets(
                [
                    ConsumerGroupTopicPartitions(
                        group, None if places is None else [TopicPartition(*p) for p in places]
                    )
                ],
                request_timeout=REQUEST_TIMEOUT_S,
            )[group]
            for group, places in groups.items()
        }
        return {group: _committed(future) for group, future in futures.items()}


def connect(settings: Settings) -> Broker:
    """Asks nothing yet. The client's own lines on stderr would say each failed attempt."""
    return Broker(AdminClient({**settings.kafka.as_librdkafka(), "log_level": "0"}))


def _ends(answers: list[Future[Any]]) -> Ends | Failure:
    try:
        start, stable, end = (future.result(ANSWER_TIMEOUT_S).offset for future in answers)
    except (KafkaException, TimeoutError) as error:
        return _failure(error)
    return Ends(start, stable, end)


def _committed(future: Future[Any]) -> dict[Place, Committed] | Failure:
    try:
        answer = future.result(ANSWER_TIMEOUT_S)
    except (KafkaException, TimeoutError) as error:
        return _failure(error)
    found = {}
    for at in answer.topic_partitions:
        if at.error is not None:
            return _failure(KafkaException(at.error))
        if at.offset >= 0:
            found[at.topic, at.partition] = Committed(at.offset, at.metadata or "")
    return found


def _failure(error: KafkaException | TimeoutError) -> Failure:
    if isinstance(error, TimeoutError):
        return Failure(f"no answer within {ANSWER_TIMEOUT_S:g} s", gone=False)
    cause = error.args[0]
    return Failure(cause.str(), gone=cause.code() in GONE)
