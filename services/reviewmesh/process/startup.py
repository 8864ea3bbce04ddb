"""Waits for what a service needs to start: the broker, its topics, and their schemas.

Reports what is missing, and continues by itself once it is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from reviewmesh.avro.contracts import Contracts
from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.avro.topics import shape_problem
from reviewmesh.kafka.clients import make_admin
from reviewmesh.loop.readiness import Readiness
from reviewmesh.process.logs import lasting
from reviewmesh.settings import Settings
from reviewmesh_kit.settings import variable

CALL_TIMEOUT_S = 2.0
RETRY_S = 1.0
STOP_SEEN_WITHIN_S = 0.1


class Startup:
    """Has the interface of the loop for health and signals; the loop follows once `wait`
    returns."""

    def __init__(
        self,
        settings: Settings,
        contracts: Contracts,
        log: structlog.stdlib.BoundLogger,
        own_problem: Callable[[AdminClient], str] = lambda admin: "",
    ) -> None:
        """`own_problem`: asked once all else is there, what a service still lacks of its own; may
        provide it, and may raise KafkaException."""
        self._own_problem = own_problem
        self._settings = settings
        self._contracts = contracts
        self._log = log
        self._last_error = ""
        self.stopping = False
        self.heartbeat = time.monotonic()
        self.readiness = Readiness()
        self.readiness.set_waiting("start", self._broker("not asked yet"))

    def request_stop(self) -> None:
        self.stopping = True

    def wait(self) -> None:
        """Returns once nothing is missing, or a stop was requested."""
        admin = make_admin(self._settings.kafka, self._on_error)
        while not self.stopping:
            self.heartbeat = time.monotonic()
            problem = self._problem(admin)
            if not problem:
                return
            self.readiness.set_waiting("start", problem)
            self._log.warning("waiting", waiting_for=problem)
            until = time.monotonic() + RETRY_S
            while time.monotonic() < until and not self.stopping:
                time.sleep(STOP_SEEN_WITHIN_S)

    def _problem(self, admin: AdminClient) -> str:
        """What is missing now, with what to do; empty when nothing is."""
        try:
            metadata = admin.list_topics(timeout=CALL_TIMEOUT_S)
        except KafkaException as error:
            # The exception has no cause; the error callback gets it.
            admin.poll(0)
            return self._broker(self._last_error or error.args[0].str())
        problems = self._topic_problems(metadata.topics)
        if problems:
            return "; ".join(problems)
        try:
            self._contracts.check_schemas()
        except RegistryUnavailable as error:
            return str(error)
        try:
            return self._own_problem(admin)
        except KafkaException as error:
            return self._broker(self._last_error or error.args[0].str())

    def _topic_problems(self, found: Mapping[str, object]) -> list[str]:
        prefix = self._settings.prefix
        used = self._contracts.used
        missing = [prefix + topic.name for topic in used if prefix + topic.name not in found]
        problems = [
            shape_problem(topic, prefix, found[prefix + topic.name])
            for topic in used
            if prefix + topic.name in found
        ]
        if missing:
            problems.append(
                f"topics missing: {', '.join(missing)}; run `reviewmesh topics apply`, and check "
                f"{variable('prefix')}"
            )
        return [problem for problem in problems if problem]

    def _broker(self, reason: str) -> str:
        return (
            f"the broker at {self._settings.kafka.bootstrap_servers} does not answer ({reason}); "
            f"check {variable('kafka', 'bootstrap_servers')} and that it is up"
        )

    def _on_error(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._last_error = lasting(error.str())
