"""Runs one stage as a process: settings, logs, endpoints, signals, the loop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType

import structlog
from pydantic import ValidationError
from pydantic_settings import SettingsError

from reviewmesh.runtime import health, logs
from reviewmesh.runtime.contracts import Contracts
from reviewmesh.runtime.kafka import BadOption, check_options
from reviewmesh.runtime.loop import ConsumerLoop
from reviewmesh.runtime.settings import Settings, problems, variable
from reviewmesh.runtime.stage import Stage
from reviewmesh.runtime.startup import Startup

BuildStage = Callable[[Settings, Contracts, structlog.stdlib.BoundLogger], Stage]


def run(service: str, build: BuildStage) -> int:
    """Returns the exit code: 0 after a graceful stop, 1 when the loop failed, 2 on bad settings."""
    try:
        settings = Settings()
        check_options(settings)
    except (ValidationError, SettingsError) as error:
        print(*problems(error), sep="\n", file=sys.stderr)
        return 2
    except BadOption as error:
        print(error, file=sys.stderr)
        return 2
    log = logs.configure(settings.log, service)
    contracts = Contracts(settings)
    stage = build(settings, contracts, log)
    startup = Startup(settings, contracts, log)
    phase: Startup | ConsumerLoop = startup

    def stop(number: int, frame: FrameType | None) -> None:
        phase.request_stop()

    try:
        server = health.serve(
            settings.http, lambda: phase.heartbeat, lambda: phase.readiness.waiting_for or stage.waiting_for()
        )
    except OSError as error:
        at = f"{settings.http.host}:{settings.http.port}"
        log.error(f"{variable('http', 'port')}: cannot listen on {at}: {error}")
        stage.stop()
        return 1
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log.info("started", port=server.server_port, slot=settings.slot, prefix=settings.prefix)
    try:
        startup.wait()
        if startup.stopping:
            stage.stop()
        else:
            loop = ConsumerLoop(stage, settings, log)
            phase = loop
            # A signal may have come between the end of the wait and this line.
            if startup.stopping:
                loop.request_stop()
            loop.run()
    except Exception:
        log.exception("the loop failed; a supervisor is expected to start this process again")
        return 1
    finally:
        server.shutdown()
    log.info("stopped")
    return 0
