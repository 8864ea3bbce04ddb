"""`python -m reviewmesh.enrich --task ner`: builds one task's enricher and runs it."""

from __future__ import annotations

import argparse
import sys

import structlog

from reviewmesh.avro.contracts import Contracts
from reviewmesh.clock import wall_clock
from reviewmesh.enrich.campaigns import Campaigns
from reviewmesh.enrich.client import InferenceClient
from reviewmesh.enrich.reprocess import Codecs, Reprocessing
from reviewmesh.enrich.stage import EnrichStage
from reviewmesh.loop.deadletter import DeadLetters
from reviewmesh.process.service import run
from reviewmesh.settings import Settings
from reviewmesh_protos.inference.v1 import inference_pb2
from reviewmesh_schemas.names import (
    ACCEPTED,
    CAMPAIGNS,
    DEAD_LETTER,
    ENRICHED,
    REPROCESS,
    REPROCESSED,
    RESULT_OF,
    TASKS,
)


def build(
    task: str,
    settings: Settings,
    contracts: Contracts,
    log: structlog.stdlib.BoundLogger,
) -> EnrichStage:
    endpoints = [
        endpoint.strip()
        for endpoint in getattr(settings.workers, task).split(",")
        if endpoint.strip()
    ]
    client = InferenceClient(task, endpoints)
    client.start()
    campaigns = Campaigns(
        settings, contracts.codec(CAMPAIGNS), contracts.partitions(CAMPAIGNS), log
    )
    campaigns.start()
    codecs = Codecs(
        request=contracts.codec(REPROCESS),
        enriched=contracts.codec(ENRICHED),
        result=contracts.codec(RESULT_OF[task]),
        answer=contracts.codec(REPROCESSED),
    )
    return EnrichStage(
        task=task,
        accepted_codec=contracts.codec(ACCEPTED),
        result_codec=contracts.codec(RESULT_OF[task]),
        dead_letters=DeadLetters(contracts.codec(DEAD_LETTER), wall_clock),
        client=client,
        clock=wall_clock,
        max_result_bytes=contracts.max_bytes(RESULT_OF[task]),
        reprocessing=Reprocessing(
            task=task,
            codecs=codecs,
            campaigns=campaigns,
            make_client=lambda: InferenceClient(task, endpoints, lane=inference_pb2.LANE_BACKFILL),
            clock=wall_clock,
            max_answer_bytes=contracts.max_bytes(REPROCESSED),
        ),
        live_late_s=settings.reprocess.live_late_s,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Enrich accepted reviews with one task.")
    parser.add_argument("--task", required=True, choices=TASKS)
    task: str = parser.parse_args().task

    def build_task(
        settings: Settings, contracts: Contracts, log: structlog.stdlib.BoundLogger
    ) -> EnrichStage:
        return build(task, settings, contracts, log)

    return run(f"enricher-{task}", build_task)


if __name__ == "__main__":
    sys.exit(main())
