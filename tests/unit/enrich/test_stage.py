"""The enricher's stage where it meets a registry that is away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from reviewmesh.avro.codec import Codec
from reviewmesh.avro.registry import SchemaRegistry
from reviewmesh.enrich.campaigns import Campaigns
from reviewmesh.enrich.client import InferenceClient
from reviewmesh.enrich.reprocess import Codecs, Reprocessing
from reviewmesh.enrich.stage import EnrichStage
from reviewmesh.kafka.record import Unavailable
from reviewmesh.loop.deadletter import DeadLetters
from reviewmesh.settings import Settings


@pytest.fixture
def client() -> Iterator[InferenceClient]:
    client = InferenceClient("ner", ["127.0.0.1:1"])
    client.start()
    yield client
    client.close()


def no_campaigns(registry: SchemaRegistry, task: str) -> Reprocessing:
    """Answers done again, of which there are none."""
    codecs = Codecs(
        Codec(registry, "reviews.reprocess-value", "reprocess_request"),
        Codec(registry, "reviews.enriched-value", "enriched_review"),
        Codec(registry, f"reviews.{task}-value", f"{task}_result"),
        Codec(registry, "reviews.reprocessed-value", "reprocessed_answer"),
    )
    campaigns = Campaigns(
        Settings(),
        Codec(registry, "reviews.campaigns-value", "campaign"),
        6,
        structlog.get_logger(),
    )
    return Reprocessing(
        task, codecs, campaigns, lambda: InferenceClient(task, ["127.0.0.1:1"]), lambda: 0.0, 1_000
    )


class NoLedgers:
    """The enricher asks nothing of them."""

    def is_ahead(self, topic: str, partition: int, offset: int) -> bool:
        raise AssertionError

    def head(self, topic: str, partition: int) -> int:
        raise AssertionError

    position = head


def test_a_partition_is_not_opened_before_results_can_be_encoded(client: InferenceClient) -> None:
    registry = SchemaRegistry("http://127.0.0.1:1")
    stage = EnrichStage(
        "ner",
        Codec(registry, "reviews.accepted-value", "accepted_review"),
        Codec(registry, "reviews.ner-value", "ner_result"),
        DeadLetters(Codec(registry, "reviews.dead-letter-value", "dead_letter"), lambda: 0.0),
        client,
        no_campaigns(registry, "ner"),
        lambda: 0.0,
        1_000,
        30,
    )
    with pytest.raises(
        Unavailable, match=r"schema registry at http://127\.0\.0\.1:1 does not answer"
    ):
        stage.load(0, {})
    assert "no worker for task ner reachable at 127.0.0.1:1" in stage.waiting_for()
