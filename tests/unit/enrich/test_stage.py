"""The enricher's stage where it meets a registry that is away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from reviewmesh.avro.codec import Codec
from reviewmesh.avro.registry import SchemaRegistry
from reviewmesh.enrich.client import InferenceClient
from reviewmesh.enrich.stage import EnrichContract, EnrichStage
from reviewmesh.kafka.record import Unavailable
from reviewmesh.loop.deadletter import DeadLetters
from tests.no_campaigns import no_campaigns


@pytest.fixture
def client() -> Iterator[InferenceClient]:
    client = InferenceClient("ner", ["127.0.0.1:1"])
    client.start()
    yield client
    client.close()


class NoLedgers:
    """The enricher asks nothing of them."""

    def is_ahead(self, topic: str, partition: int, offset: int) -> bool:
        raise AssertionError

    def head(self, topic: str, partition: int) -> int:
        raise AssertionError

    position = head
    topic_id = head


def test_a_partition_is_not_opened_before_results_can_be_encoded(client: InferenceClient) -> None:
    registry = SchemaRegistry("http://127.0.0.1:1")
    stage = EnrichStage(
        "ner",
        EnrichContract(
            Codec(registry, "reviews.accepted-value", "accepted_review"),
            Codec(registry, "reviews.ner-value", "ner_result"),
            max_result_bytes=1_000,
        ),
        DeadLetters(Codec(registry, "reviews.dead-letter-value", "dead_letter"), lambda: 0.0),
        client,
        no_campaigns(registry, "", "ner"),
        lambda: 0.0,
    )
    with pytest.raises(
        Unavailable, match=r"schema registry at http://127\.0\.0\.1:1 does not answer"
    ):
        stage.load(0, {})
    assert "no worker for task ner reachable at 127.0.0.1:1" in stage.waiting_for()
