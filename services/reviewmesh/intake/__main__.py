"""`python -m reviewmesh.intake`: builds intake from its settings and runs it."""

from __future__ import annotations

import sys

import structlog

from reviewmesh.avro.contracts import Contracts
from reviewmesh.clock import wall_clock
from reviewmesh.intake.stage import Contract, IntakeStage
from reviewmesh.kafka.reader import PartitionReader
from reviewmesh.process.service import run
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import ACCEPTED, DEAD_LETTER, RAW, REPLAYED


def build(
    settings: Settings, contracts: Contracts, log: structlog.stdlib.BoundLogger
) -> IntakeStage:
    contract = Contract(
        raw=contracts.codec(RAW),
        accepted=contracts.codec(ACCEPTED),
        replayed=contracts.codec(REPLAYED),
        dead_letter=contracts.codec(DEAD_LETTER),
        partitions=contracts.partitions(RAW),
        max_raw_bytes=contracts.max_bytes(RAW),
        max_accepted_bytes=contracts.max_bytes(ACCEPTED),
    )
    return IntakeStage(
        contract, PartitionReader(settings), wall_clock, settings=settings.intake, log=log
    )


if __name__ == "__main__":
    sys.exit(run("intake", build))
