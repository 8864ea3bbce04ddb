"""A client that has lost every address of a broker that is back is replaced where it is used."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaException

from reviewmesh.join.ends import EndOffsets
from reviewmesh.kafka.partitions import BrokerPartition
from reviewmesh.kafka.topicids import TopicFinder
from reviewmesh.lag.offsets import RENEW_EVERY_S, Broker, Committed, RequestFailure
from reviewmesh.settings import KafkaSettings, Settings
from tests.broker import wait_until
from tests.scripted_kafka import Clock, Cluster

TOPIC = "reviews.ner"
PLACE = BrokerPartition(TOPIC, 0)
SETTINGS = Settings(kafka=KafkaSettings(bootstrap_servers="broker.invalid:9092"))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    cluster = Cluster(Clock())
    cluster.create(TOPIC, 1)
    cluster.append(TOPIC, 0, b"a")
    cluster.install(monkeypatch)
    return cluster


def passes(cluster: Cluster, seconds: float) -> None:
    assert cluster.clock is not None
    cluster.clock.advance(seconds)


def test_topics_are_found_with_a_new_client_after_one_that_failed(cluster: Cluster) -> None:
    finder = TopicFinder(SETTINGS.kafka)
    assert finder.find([TOPIC], 1.0)[TOPIC].partitions == 1
    cluster.lose_addresses()
    with pytest.raises(KafkaException):
        finder.find([TOPIC], 1.0)
    assert finder.find([TOPIC], 1.0)[TOPIC].partitions == 1


def test_lag_s_clients_are_renewed_but_not_at_every_failure(cluster: Cluster) -> None:
    """The broker may just be away: each renewal costs a connection."""
    cluster.groups["group"].committed[TOPIC, 0] = (1, "")
    broker = Broker(SETTINGS)
    wanted = {"group": [PLACE]}
    known = {"group": {PLACE: Committed(1, "")}}
    assert broker.committed(wanted) == known
    assert not isinstance(broker.ends([PLACE])[PLACE], RequestFailure)
    cluster.lose_addresses()
    broker.renew()
    assert isinstance(broker.committed(wanted)["group"], RequestFailure)
    passes(cluster, RENEW_EVERY_S + 1)
    broker.renew()
    assert broker.committed(wanted) == known
    # The finder replaces its own client once that has failed.
    broker.ends([PLACE])
    found = broker.ends([PLACE])[PLACE]
    assert not isinstance(found, RequestFailure)
    assert (found.start, found.stable, found.end) == (0, 1, 1)
    broker.close()


def test_the_joiner_asks_for_ends_with_a_new_client_after_one_that_failed(
    cluster: Cluster,
) -> None:
    ends = EndOffsets(SETTINGS, lambda: 5.0)

    def reached() -> list[tuple[str, float]]:
        ends.ask(TOPIC, 0)
        return ends.reached(0, lambda topic, partition: 1)

    wait_until(lambda: reached() == [(TOPIC, 5.0)], 30, "the end is known")
    cluster.lose_addresses()
    before = len(cluster.clients)
    wait_until(lambda: reached() == [(TOPIC, 5.0)], 30, "the end is known again")
    assert len(cluster.clients) > before
