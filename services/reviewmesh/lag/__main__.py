"""`python -m reviewmesh.lag`: builds the lag service from its settings and runs it."""

from __future__ import annotations

import sys

import structlog
from prometheus_client import REGISTRY

from reviewmesh.clock import wall_clock
from reviewmesh.lag.groups import watched_groups
from reviewmesh.lag.loop import LagLoop
from reviewmesh.lag.meter import LagMeter
from reviewmesh.lag.metrics import LagCollector
from reviewmesh.lag.offsets import Broker
from reviewmesh.process.service import run_process
from reviewmesh.settings import Settings


def make(settings: Settings, log: structlog.stdlib.BoundLogger) -> LagLoop:
    collector = LagCollector(wall_clock)
    REGISTRY.register(collector)
    meter = LagMeter(Broker(settings), watched_groups(settings), wall_clock)
    return LagLoop(meter, collector, log)


if __name__ == "__main__":
    sys.exit(run_process("lag", make))
