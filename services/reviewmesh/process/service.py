"""Runs a service as a process: settings, logs, endpoints, signals."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Protocol

import structlog
from pydantic import ValidationError
from pydantic_settings import SettingsError

from reviewmesh import metrics
from reviewmesh.avro.contracts import Contracts
from reviewmesh.kafka.clients import BadOption, check_options
from reviewmesh.loop.loop import ConsumerLoop
from reviewmesh.loop.stage import Stage
from reviewmesh.loop.stalls import StandsStill
from reviewmesh.loop.watchdog import Watchdog
from reviewmesh.process import health, logs
from reviewmesh.process.startup import Startup
from reviewmesh.settings import Settings, WrongSetting
from reviewmesh_kit.exit_codes import DONE, FAILED, STANDS_STILL, USAGE
from reviewmesh_kit.settings import problems, variable

BuildStage = Callable[[Settings, Contracts, structlog.stdlib.BoundLogger], Stage]


class Process(Protocol):
    """A process, for the HTTP endpoints and signal handlers."""

    @property
    def heartbeat(self) -> float: ...

    @property
    def waiting_for(self) -> str:
        """What keeps the process from working; empty when nothing does."""
        ...

    @property
    def held_up_by(self) -> str:
        """What delays records from outside, while the process itself works."""
        ...

    def stop(self, number: int, frame: FrameType | None) -> None:
        """A signal's handler."""
        ...

    def run(self) -> None:
        """Returns after a stop."""
        ...

    def close(self) -> None:
        """Release resources when `run` will not be called."""
        ...


class Service:
    """A stage as a process: first its startup, then its loop."""

    def __init__(self, startup: Startup, stage: Stage, make_loop: Callable[[], ConsumerLoop]):
        self._startup = startup
        self._stage = stage
        self._make_loop = make_loop
        self._phase: Startup | ConsumerLoop = startup

    @property
    def heartbeat(self) -> float:
        return self._phase.heartbeat

    @property
    def waiting_for(self) -> str:
        return self._phase.readiness.waiting_for

    @property
    def held_up_by(self) -> str:
        reasons = (self._stage.waiting_for(), self._phase.readiness.held_up)
        return "; ".join(reason for reason in reasons if reason)

    def stop(self, number: int, frame: FrameType | None) -> None:
        self._phase.request_stop()

    def run(self) -> None:
        """Returns after a stop; raises what the loop raises."""
        self._startup.wait()
        if self._startup.stopping:
            self._stage.stop()
            return
        loop = self._make_loop()
        self._phase = loop
        # A signal may have come between the end of the wait and this line.
        if self._startup.stopping:
            loop.request_stop()
        loop.run()

    def close(self) -> None:
        self._stage.stop()


def run(name: str, build: BuildStage) -> int:
    """Runs a stage; returns the exit code of `run_process`."""

    def make(settings: Settings, log: structlog.stdlib.BoundLogger) -> Service:
        contracts = Contracts(settings)
        stage = build(settings, contracts, log)
        startup = Startup(settings, contracts, log)
        topics = [topic.name for topic in contracts.used]
        return Service(startup, stage, lambda: ConsumerLoop(stage, settings, topics, log))

    return run_process(name, make)


def run_process(
    name: str,
    make: Callable[[Settings, structlog.stdlib.BoundLogger], Process],
    check: Callable[[Settings], None] = check_options,
) -> int:
    """Returns the exit code: 0 after a graceful stop, 1 when the work failed, 2 on bad settings,
    STANDS_STILL when a partition stood still and reopening it did not help.

    `check` raises BadOption on an option of Kafka that the process cannot follow.
    """
    settings = read_settings(check)
    if settings is None:
        return USAGE
    log = logs.configure(settings.log, name)
    try:
        service = make(settings, log)
    except WrongSetting as error:
        print(error, file=sys.stderr)
        return USAGE
    _show_certificates(settings)
    watchdog = Watchdog(lambda: service.heartbeat, log)

    def state() -> health.ReadyzState:
        return health.ReadyzState(watchdog.problem or service.waiting_for, service.held_up_by)

    try:
        server = health.serve(settings.http, lambda: service.heartbeat, state)
    except OSError as error:
        at = f"{settings.http.host}:{settings.http.port}"
        log.error(f"{variable('http', 'port')}: cannot listen on {at}: {error}")
        service.close()
        return FAILED
    signal.signal(signal.SIGTERM, service.stop)
    signal.signal(signal.SIGINT, service.stop)
    log.info("started", port=server.server_port, slot=settings.slot, prefix=settings.prefix)
    watchdog.start()
    try:
        service.run()
    except StandsStill as error:
        log.critical(
            "stands still: this process ends, for a supervisor to start it again",
            reason=str(error),
        )
        return STANDS_STILL
    except Exception:
        log.exception("the loop failed; a supervisor is expected to start this process again")
        return FAILED
    finally:
        watchdog.stop()
        server.shutdown()
    log.info("stopped")
    return DONE


def _show_certificates(settings: Settings) -> None:
    for hop, files in (
        ("kafka", settings.kafka.certificates),
        ("registry", settings.registry.certificates),
    ):
        if files.current().not_after is not None:
            metrics.CERTIFICATE_NOT_BEFORE.labels(hop).set_function(files.not_before)
            metrics.CERTIFICATE_NOT_AFTER.labels(hop).set_function(files.not_after)


def read_settings(check: Callable[[Settings], None]) -> Settings | None:
    """None when they are invalid, which is then printed on stderr."""
    try:
        settings = Settings()
        check(settings)
    except (ValidationError, SettingsError) as error:
        print(*problems(error), sep="\n", file=sys.stderr)
        return None
    except BadOption as error:
        print(error, file=sys.stderr)
        return None
    return settings
