"""`python -m reviewmesh.join`: builds the joiner from its settings and runs it."""

from __future__ import annotations

import sys

import structlog

from reviewmesh.avro.contracts import Contracts
from reviewmesh.clock import wall_clock
from reviewmesh.join.ends import EndOffsets
from reviewmesh.join.enrichers import EnricherLedgers
from reviewmesh.join.stage import JoinContract, JoinStage, Queries
from reviewmesh.join.state import JoinWindows
from reviewmesh.kafka.exemplars import Exemplars
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
    contract = JoinContract(
        accepted=contracts.codec(ACCEPTED),
        results={task: contracts.codec(topic) for task, topic in RESULT_OF.items()},
        enriched=contracts.codec(ENRICHED),
        partial=contracts.codec(PARTIAL),
        replayed=contracts.codec(REPLAYED),
        reprocessed=contracts.codec(REPROCESSED),
        max_accepted_bytes=contracts.max_bytes(ACCEPTED),
        max_enriched_bytes=contracts.max_bytes(ENRICHED),
    )
    queries = Queries(
        PartitionReader(settings),
        EndOffsets(settings, wall_clock),
        EnricherLedgers(settings, wall_clock),
    )
    windows = JoinWindows(
        settings.join.max_wait_s, settings.join.straggler_s, settings.join.late_window_s
    )
    dead_letters = DeadLetters(contracts.codec(DEAD_LETTER), wall_clock)
    return JoinStage(
        contract,
        queries,
        dead_letters,
        windows=windows,
        clock=wall_clock,
        log=log,
        exemplars=Exemplars(settings.traces),
    )


if __name__ == "__main__":
    sys.exit(run("joiner", build))
