"""`python -m reviewmesh.enrich --task ner`: builds one task's enricher and runs it."""

from __future__ import annotations

import argparse
import sys

import structlog

from reviewmesh.avro.contracts import Contracts
from reviewmesh.clock import wall_clock
from reviewmesh.enrich.client import InferenceClient
from reviewmesh.enrich.stage import EnrichStage
from reviewmesh.loop.deadletter import DeadLetters
from reviewmesh.process.service import run
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import ACCEPTED, DEAD_LETTER, RESULT_OF, TASKS


def build(task: str, settings: Settings, contracts: Contracts) -> EnrichStage:
    endpoints = [
        endpoint.strip()
        for endpoint in getattr(settings.workers, task).split(",")
        if endpoint.strip()
    ]
    client = InferenceClient(task, endpoints)
    client.start()
    return EnrichStage(
        task=task,
        accepted_codec=contracts.codec(ACCEPTED),
        result_codec=contracts.codec(RESULT_OF[task]),
        dead_letters=DeadLetters(contracts.codec(DEAD_LETTER), wall_clock),
        client=client,
        clock=wall_clock,
        max_result_bytes=contracts.max_bytes(RESULT_OF[task]),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="Enrich accepted reviews with one task.")
    parser.add_argument("--task", required=True, choices=TASKS)
    task: str = parser.parse_args().task

    def build_task(
        settings: Settings, contracts: Contracts, log: structlog.stdlib.BoundLogger
    ) -> EnrichStage:
        return build(task, settings, contracts)

    return run(f"enricher-{task}", build_task)


if __name__ == "__main__":
    sys.exit(main())
