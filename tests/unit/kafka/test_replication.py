"""How many replicas topics are asked for, and which are named because they have too few."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from reviewmesh.kafka.replication import create_topics, shortcomings


class ClusterInWords:
    """Admin client of a cluster with so many brokers, of which some do not answer now."""

    def __init__(self, registered: int, away: int = 0) -> None:
        self.registered = registered
        self.brokers = {node: None for node in range(registered - away)}
        self.topics: dict[str, int] = {}
        self.options: dict[str, dict[str, str]] = {}

    def list_topics(self, timeout: float) -> Any:
        topics = {
            name: SimpleNamespace(
                partitions={0: SimpleNamespace(replicas=range(replicas), isrs=range(replicas))}
            )
            for name, replicas in self.topics.items()
        }
        return SimpleNamespace(brokers=self.brokers, topics=topics)

    def create_topics(self, asked: Sequence[Any], operation_timeout: float) -> dict[str, Any]:
        return {new.topic: self._create(new) for new in asked}

    def _create(self, new: Any) -> Future[None]:
        answer: Future[None] = Future()
        if new.topic in self.topics:
            answer.set_exception(KafkaException(KafkaError(KafkaError.TOPIC_ALREADY_EXISTS)))
        elif new.replication_factor > self.registered:
            answer.set_exception(KafkaException(KafkaError(KafkaError.INVALID_REPLICATION_FACTOR)))
        else:
            self.topics[new.topic] = new.replication_factor
            self.options[new.topic] = new.config
            answer.set_result(None)
        return answer

    def describe_configs(self, resources: Sequence[Any]) -> dict[Any, Any]:
        found = {}
        for resource in resources:
            found[resource] = Future[Any]()
            options = self.options.get(resource.name)
            if options is None:
                refused = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
                found[resource].set_exception(KafkaException(refused))
            else:
                found[resource].set_result(
                    {name: SimpleNamespace(value=value) for name, value in options.items()}
                )
        return found


@pytest.mark.parametrize(
    ("registered", "away", "replicas", "in_sync"),
    [(1, 0, 1, "1"), (2, 0, 2, "1"), (3, 0, 3, "2"), (3, 1, 3, "2"), (5, 2, 3, "2")],
)
def test_up_to_three_also_while_one_is_away(
    registered: int, away: int, replicas: int, in_sync: str
) -> None:
    cluster = ClusterInWords(registered, away)
    created = create_topics(cluster, {"t": 6, "u": 6}, {"t": {"a": "b"}, "u": {}}, 1)  # type: ignore[arg-type]
    assert sorted(created) == ["t", "u"]
    assert cluster.topics == {"t": replicas, "u": replicas}
    assert cluster.options["t"] == {"a": "b", "min.insync.replicas": in_sync}


def test_a_topic_that_somebody_else_created_is_left_as_it_is() -> None:
    cluster = ClusterInWords(1)
    cluster.topics["t"] = 1
    assert create_topics(cluster, {"t": 6, "u": 6}, {"t": {}, "u": {}}, 1) == ["u"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("registered", "away", "topics", "said"),
    [
        (1, 0, {"t": 1, "__consumer_offsets": 1}, []),
        (3, 0, {"t": 3}, []),
        (3, 0, {"t": 1}, ["t: 1 replica, not 3"]),
        (3, 1, {"t": 1, "other": 3}, ["t: 1 replica, not 3"]),
        (3, 0, {"t": 3, "__transaction_state": 1}, ["__transaction_state: 1 replica, not 3"]),
        # Without the right to see its options nothing is said of them.
        (3, 0, {"t": 3, "__consumer_offsets": 3}, []),
    ],
)
def test_what_has_fewer_replicas_than_there_are_brokers_is_named(
    registered: int, away: int, topics: dict[str, int], said: list[str]
) -> None:
    cluster = ClusterInWords(registered, away)
    cluster.topics = topics
    assert shortcomings(cluster, ["t", "absent"], 1) == said  # type: ignore[arg-type]


def test_offsets_that_one_broker_alone_may_acknowledge_are_named() -> None:
    cluster = ClusterInWords(3)
    cluster.topics["__consumer_offsets"] = 3
    cluster.options["__consumer_offsets"] = {"min.insync.replicas": "1"}
    [line] = shortcomings(cluster, [], 1)  # type: ignore[arg-type]
    assert line == "__consumer_offsets: min.insync.replicas is 1, not 2"
