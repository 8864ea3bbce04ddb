"""Runs one stage as a process: settings, logs, endpoints, signals, the loop."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

import structlog
from pydantic import ValidationError

from reviewmesh.runtime import health, logs
from reviewmesh.runtime.loop import ConsumerLoop
from reviewmesh.runtime.settings import Settings
from reviewmesh.runtime.stage import Stage

BuildStage = Callable[[Settings, structlog.stdlib.BoundLogger], Stage]


def run(service: str, build: BuildStage) -> int:
    """Returns the exit code: 0 after a graceful stop, 1 when the loop failed, 2 on bad settings."""
    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            name = "REVIEWMESH_" + "__".join(str(part).upper() for part in problem["loc"])
            print(f"{name}: {problem['msg']}")
        return 2
    log = logs.configure(settings.log, service)
    stage = build(settings, log)
    loop = ConsumerLoop(stage, settings, log)
    server = health.serve(
        settings.http,
        lambda: loop.heartbeat,
        lambda: loop.readiness.waiting_for or stage.waiting_for(),
    )

    def stop(number: int, frame: FrameType | None) -> None:
        loop.request_stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log.info("started", port=server.server_port, slot=settings.slot, prefix=settings.prefix)
    try:
        loop.run()
    except Exception:
        log.exception("the loop failed; a supervisor is expected to start this process again")
        return 1
    finally:
        server.shutdown()
    log.info("stopped")
    return 0
