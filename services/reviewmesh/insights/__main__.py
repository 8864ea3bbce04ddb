"""`python -m reviewmesh.insights`: builds the service from its settings and runs it."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from contextlib import suppress
from types import FrameType

import structlog

from reviewmesh.avro.contracts import Contracts
from reviewmesh.clock import wall_clock
from reviewmesh.insights.app import Insights
from reviewmesh.insights.broker import credentials
from reviewmesh.insights.topics import Topics
from reviewmesh.kafka.clients import check_options
from reviewmesh.loop.stalls import StandsStill
from reviewmesh.process.service import run_process
from reviewmesh.process.startup import Startup
from reviewmesh.settings import Settings
from reviewmesh_kit.exit_codes import FAILED, STANDS_STILL
from reviewmesh_schemas.names import ENRICHED, INSIGHTS

BEAT_S = 0.2


class InsightsService:
    """Insights as a process: first the startup that every service has, then Faust's event loop."""

    def __init__(self, settings: Settings, log: structlog.stdlib.BoundLogger) -> None:
        self._settings = settings
        self._log = log
        contracts = Contracts(settings)
        self._enriched_codec, self._insight_codec = map(contracts.codec, (ENRICHED, INSIGHTS))
        self._topics = Topics(settings)
        self._startup = Startup(settings, contracts, log, self._topics.problem)
        self._insights: Insights | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._beat = 0.0

    @property
    def heartbeat(self) -> float:
        return self._beat or self._startup.heartbeat

    @property
    def waiting_for(self) -> str:
        insights = self._insights
        return self._startup.readiness.waiting_for if insights is None else insights.state()

    @property
    def held_up_by(self) -> str:
        return ""

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Stop cleanly; what hangs is cancelled when the grace time is over."""
        self._startup.request_stop()
        self._end_within_grace(FAILED)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)

    def close(self) -> None:
        """Nothing is open before it runs."""

    def run(self) -> None:
        """Until a stop is requested; raises what made Faust fail."""
        self._startup.wait()
        try:
            asyncio.run(self._serve())
        # Faust's tasks may hang after a failure; none of them needs a clean end.
        except StandsStill:
            self._end_within_grace(STANDS_STILL)
            raise
        except Exception:
            self._end_within_grace(FAILED)
            raise

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        # Signals that came before this line set no event.
        if self._startup.stopping:
            return
        insights = self._insights = Insights(
            settings=self._settings,
            enriched_codec=self._enriched_codec,
            insight_codec=self._insight_codec,
            partitions=self._topics.partitions,
            clock=wall_clock,
            log=self._log,
        )
        starting = asyncio.ensure_future(insights.app.start())
        while not (self._stopping.is_set() or insights.app.crashed or _failed(starting)):
            self._beat = time.monotonic()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), BEAT_S)
        if not self._stopping.is_set():
            failure = starting.exception() if starting.done() else None
            raise insights.app.crash_reason or failure or RuntimeError("Faust stopped unexpectedly")
        await insights.stop()

    def _end_within_grace(self, code: int) -> None:
        cut = threading.Timer(self._settings.grace_s, os._exit, (code,))
        cut.daemon = True
        cut.start()


def _failed(starting: asyncio.Future[None]) -> bool:
    return starting.done() and starting.exception() is not None


def check_both_clients(settings: Settings) -> None:
    """Both clients must support the options. Raises BadOption."""
    check_options(settings)
    credentials(settings.kafka)


if __name__ == "__main__":
    sys.exit(run_process("insights", InsightsService, check_both_clients))
