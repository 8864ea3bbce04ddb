"""`python -m reviewmesh.insights`: builds the service from its settings and runs it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from contextlib import suppress

import structlog
from pydantic import ValidationError
from pydantic_settings import SettingsError

from reviewmesh.avro.codec import Codec
from reviewmesh.avro.registry import registry_of
from reviewmesh.clock import wall_clock
from reviewmesh.insights.app import Insights, Names
from reviewmesh.insights.broker import UnusableOption, await_topics, credentials
from reviewmesh.process import health, logs
from reviewmesh.settings import Settings
from reviewmesh_kit.settings import problems, variable
from reviewmesh_schemas.names import ENRICHED, INSIGHTS

CHECK_EVERY_S = 0.5
SCHEMAS = {ENRICHED: "enriched_review", INSIGHTS: "review_insight"}


class Service:
    """The process: what it waits for, whether its event loop turns, whether it is to stop."""

    def __init__(self, settings: Settings, log: structlog.stdlib.BoundLogger) -> None:
        self._settings = settings
        self._log = log
        self._stopping = asyncio.Event()
        self.waiting_for = "the start"
        self._insights: Insights | None = None
        self.heartbeat = time.monotonic()

    def request_stop(self) -> None:
        """Stop in order; what hangs is cut off when the grace time is over."""
        self._stopping.set()
        cut = threading.Timer(self._settings.grace_s, os._exit, (1,))
        cut.daemon = True
        cut.start()

    async def run(self) -> None:
        """Until a stop is requested; raises what made Faust fail."""
        beating = asyncio.ensure_future(self._beat())
        waiting = asyncio.ensure_future(self._await_topics())
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            await self._serve(waiting.result())
        for task in (beating, waiting, stopping):
            task.cancel()

    async def _serve(self, partitions: int) -> None:
        insights = self._insights = self._build(partitions)
        starting = asyncio.ensure_future(insights.app.start())
        while not (self._stopping.is_set() or insights.app.crashed or _failed(starting)):
            insights.check()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), CHECK_EVERY_S)
        if not self._stopping.is_set():
            failure = starting.exception() if starting.done() else None
            raise insights.app.crash_reason or failure or RuntimeError("Faust ended by itself")
        await insights.stop()

    async def _await_topics(self) -> int:
        names = Names.of(self._settings)
        return await await_topics(
            self._settings.kafka,
            (names.enriched, names.insights),
            names.own(self._settings),
            self._wait_for,
        )

    def _wait_for(self, problem: str) -> None:
        if problem and problem != self.waiting_for:
            self._log.warning("waiting", waiting_for=problem)
        self.waiting_for = problem

    async def _beat(self) -> None:
        while True:
            self.heartbeat = time.monotonic()
            if self._insights is not None:
                self._wait_for(self._insights.state())
            await asyncio.sleep(0.2)

    def _build(self, partitions: int) -> Insights:
        client = registry_of(self._settings.registry)
        enriched, insight = (
            Codec(client, f"{self._settings.prefix}{topic}-value", schema)
            for topic, schema in SCHEMAS.items()
        )
        return Insights(
            settings=self._settings,
            enriched_codec=enriched,
            insight_codec=insight,
            partitions=partitions,
            clock=wall_clock,
            log=self._log,
        )


def _failed(starting: asyncio.Future[None]) -> bool:
    return starting.done() and starting.exception() is not None


def main() -> int:
    """Returns the exit code: 0 after an orderly stop, 1 on a failure, 2 on bad settings."""
    try:
        settings = Settings()
        credentials(settings.kafka)
    except (ValidationError, SettingsError) as error:
        print(*problems(error), sep="\n", file=sys.stderr)
        return 2
    except UnusableOption as error:
        print(error, file=sys.stderr)
        return 2
    log = logs.configure(settings.log, "insights")
    return asyncio.run(_run(settings, log))


async def _run(settings: Settings, log: structlog.stdlib.BoundLogger) -> int:
    service = Service(settings, log)
    try:
        server = health.serve(
            settings.http,
            lambda: service.heartbeat,
            lambda: health.State(service.waiting_for),
        )
    except OSError as error:
        at = f"{settings.http.host}:{settings.http.port}"
        log.error(f"{variable('http', 'port')}: cannot listen on {at}: {error}")
        return 1
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.request_stop)
    log.info("started", port=server.server_port, slot=settings.slot, prefix=settings.prefix)
    try:
        await service.run()
    except Exception:
        log.exception("the service failed; a supervisor is expected to start this process again")
        # Faust's threads may hang on after a failure; nothing here needs an orderly end.
        os._exit(1)
    finally:
        server.shutdown()
    log.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
