"""Answers done again, of which there are none: for the enricher's stage, by hand."""

from __future__ import annotations

import structlog

from reviewmesh.avro.codec import Codec
from reviewmesh.avro.registry import SchemaRegistry
from reviewmesh.enrich.campaigns import Campaigns
from reviewmesh.enrich.client import InferenceClient
from reviewmesh.enrich.reprocess import ReprocessCodecs, Reprocessing
from reviewmesh.settings import Settings
from tests.mesh import PARTITIONS


def no_campaigns(registry: SchemaRegistry, prefix: str, task: str) -> Reprocessing:
    codecs = ReprocessCodecs(
        request=Codec(registry, f"{prefix}reviews.reprocess-value", "reprocess_request"),
        enriched=Codec(registry, f"{prefix}reviews.enriched-value", "enriched_review"),
        result=Codec(registry, f"{prefix}reviews.{task}-value", f"{task}_result"),
        answer=Codec(registry, f"{prefix}reviews.reprocessed-value", "reprocessed_answer"),
    )
    codec = Codec(registry, f"{prefix}reviews.campaigns-value", "campaign")
    return Reprocessing(
        task=task,
        codecs=codecs,
        campaigns=Campaigns(Settings(prefix=prefix), codec, PARTITIONS, structlog.get_logger()),
        make_client=lambda: InferenceClient(task, ["127.0.0.1:1"]),
        live_late_s=30,
        clock=lambda: 0.0,
        max_answer_bytes=1_000,
    )
