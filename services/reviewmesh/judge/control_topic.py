"""Writes `reviews.control`. All judges share a transactional id, so that a new one fences others.

After a failed write the judge reads the topic again: it may be fenced, or the record may be
written.
"""

from __future__ import annotations

from typing import Any

from confluent_kafka import Producer

from reviewmesh.avro.codec import Codec
from reviewmesh.judge.rollout import RolloutRecord
from reviewmesh.kafka import clients as kafka
from reviewmesh.kafka.partitioning import partition_of
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import CONTROL, JUDGE

CALL_TIMEOUT_S = 10.0


class ControlTopic:
    """Raises KafkaException, after which the object must be replaced."""

    def __init__(self, settings: Settings, codec: Codec, partitions: int) -> None:
        self._name = settings.prefix + CONTROL
        self._codec = codec
        self._partitions = partitions
        options = kafka.producer_options(settings, settings.prefix + JUDGE)
        options["transactional.id"] = settings.prefix + JUDGE
        self._producer: Producer = kafka.make_producer(options, lambda error: None)
        self._producer.init_transactions(CALL_TIMEOUT_S)

    def write(self, record: RolloutRecord) -> None:
        key = record.task.encode()
        value: Any = self._codec.encode(record.content())
        self._producer.begin_transaction()
        self._producer.produce(
            self._name, key=key, value=value, partition=partition_of(key, self._partitions)
        )
        self._producer.commit_transaction(CALL_TIMEOUT_S)
