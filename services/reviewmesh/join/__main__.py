"""`python -m reviewmesh.join`: builds the joiner from its settings and runs it."""

from __future__ import annotations

import sys

import structlog

from reviewmesh.avro.contracts import Contracts
from reviewmesh.clock import wall_clock
from reviewmesh.join.ends import EndOffsets
from reviewmesh.join.enrichers import EnricherLedgers
from reviewmesh.join.pipeline import Windows
from reviewmesh.join.stage import JoinStage
from reviewmesh.kafka.reader import PartitionReader
from reviewmesh.loop.deadletter import DeadLetters
from reviewmesh.process.service import run
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import (
    ACCEPTED,
    DEAD_LETTER,
    ENRICHED,
    PARTIAL,
    REPLAYED,
    REPROCESSED,
    RESULT_OF,
)


def build(settings: Settings, contracts: Contracts, log: structlog.stdlib.BoundLogger) -> JoinStage:
    return JoinStage(
        contracts.codec(ACCEPTED),
        {task: contracts.codec(topic) for task, topic in RESULT_OF.items()},
        contracts.codec(ENRICHED),
        contracts.codec(PARTIAL),
        contracts.codec(REPLAYED),
        contracts.codec(REPROCESSED),
        DeadLetters(contracts.codec(DEAD_LETTER), wall_clock),
        PartitionReader(settings),
        EndOffsets(settings, wall_clock),
        EnricherLedgers(settings, wall_clock),
        wall_clock,
        Windows(settings.join.max_wait_s, settings.join.straggler_s, settings.join.late_window_s),
        contracts.max_bytes(ACCEPTED),
        contracts.max_bytes(ENRICHED),
        log,
    )


if __name__ == "__main__":
    sys.exit(run("joiner", build))
