"""The judge as a process: waits for the broker, then runs sessions one after the other."""

from __future__ import annotations

import time

import structlog
from confluent_kafka import KafkaException

from reviewmesh.avro.contracts import Contracts
from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.enrich.connection import worker_certificates
from reviewmesh.judge.session import Session
from reviewmesh.kafka.record import Unavailable
from reviewmesh.process.own_work import OwnWork
from reviewmesh.process.startup import Startup
from reviewmesh.settings import Settings
from reviewmesh_schemas.names import COMMANDS, CONTROL, RESULT_OF, SHADOW_OF

RUN_EVERY_S = 0.5
RETRY_AFTER_S = 2.0


class JudgeService(OwnWork):
    """Runs until it is stopped."""

    def __init__(self, settings: Settings, log: structlog.stdlib.BoundLogger) -> None:
        """Raises WrongSetting."""
        self._settings = settings
        self._log = log
        self._tls = worker_certificates(settings)
        self._contracts = Contracts(settings)
        for topic in (CONTROL, COMMANDS, *RESULT_OF.values(), *SHADOW_OF.values()):
            self._contracts.codec(topic)
        super().__init__(
            Startup(settings, self._contracts, log),
            "reading the state of rollouts from reviews.control",
        )

    def close(self) -> None:
        """Nothing is open before `run`."""

    def _work(self) -> None:
        while not self._stop.is_set():
            self._heartbeat = time.monotonic()
            try:
                self._run_session()
            except (KafkaException, Unavailable, RegistryUnavailable) as error:
                reason = error.args[0].str() if isinstance(error, KafkaException) else str(error)
                self._problem = reason
                self._log.warning("the judge's session failed, starting a new one", reason=reason)
                self._stop.wait(RETRY_AFTER_S)

    def _run_session(self) -> None:
        """Run until a stop or a new certificate. Raises KafkaException, Unavailable and
        RegistryUnavailable."""
        replaced = self._settings.kafka.certificates.changes()
        session = Session(self._settings, self._contracts, self._log, self._tls)
        try:
            while not self._stop.is_set() and not replaced.found():
                self._heartbeat = time.monotonic()
                session.run_once()
                self._problem = session.waiting_for
                self._stop.wait(RUN_EVERY_S)
        finally:
            session.close()
