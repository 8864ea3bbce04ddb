"""Waits for a broker that does not answer, and notices when it answers again."""

from __future__ import annotations

import time
from typing import Any

import structlog
from confluent_kafka import KafkaException

from reviewmesh.kafka import clients as kafka
from reviewmesh.loop.readiness import Readiness
from reviewmesh.settings import Settings

ASK_EVERY_S = 1.0
# Blocks polling. Doubled while there is no answer: a broker may be far away.
ASK_TIMEOUT_S = 0.2
LONGEST_ASK_TIMEOUT_S = 1.6
NEW_CLIENT_AFTER_S = 10.0


class BrokerWait:
    """Used by the polling thread. Its state is the need "broker" of the readiness."""

    def __init__(
        self,
        settings: Settings,
        topic: str,
        readiness: Readiness,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`topic`: the one to ask about, as named on the broker."""
        self._settings = settings
        self._topic = topic
        self._readiness = readiness
        self._log = log
        self._brokers = settings.kafka.bootstrap_servers
        self._ask_at = 0.0
        self._timeout_s = ASK_TIMEOUT_S
        self._new_client_at = 0.0
        readiness.set_waiting("broker", f"the broker at {self._brokers}")

    @property
    def is_waiting(self) -> bool:
        return self._readiness.is_waiting_for("broker")

    def begin(self, error: str) -> None:
        """Wait for the broker: it gave this error, or no answer."""
        if not self.is_waiting:
            self._new_client_at = time.monotonic() + NEW_CLIENT_AFTER_S
        self._readiness.set_waiting("broker", f"the broker at {self._brokers}: {error}")
        self._log.warning(
            "waiting for the broker; check that it is up and REVIEWMESH_KAFKA__BOOTSTRAP_SERVERS",
            brokers=self._brokers,
            error=error,
        )

    def reached(self) -> None:
        """The producer reaches the broker. Whether the consumer does, too, is asked next.

        It may take a moment to connect again.
        """
        self._ask_at = 0.0
        self._new_client_at = time.monotonic() + NEW_CLIENT_AFTER_S

    def ask(self, consumer: Any) -> bool:
        """Ask once a second, because librdkafka has no event for a broker that answers again.

        True when it answers a new client but not this consumer, which then has to be replaced:
        a client may lose every address of a broker (librdkafka issue 5301).
        """
        now = time.monotonic()
        if now < self._ask_at:
            return False
        self._ask_at = now + ASK_EVERY_S
        try:
            consumer.list_topics(self._topic, self._timeout_s)
        except KafkaException:
            self._timeout_s = min(self._timeout_s * 2, LONGEST_ASK_TIMEOUT_S)
            if now <= self._new_client_at:
                return False
            self._new_client_at = now + NEW_CLIENT_AFTER_S
            return self._answers_a_new_client()
        self._timeout_s = ASK_TIMEOUT_S
        self._log.info("the broker answers", brokers=self._brokers)
        self._readiness.clear("broker")
        return False

    def _answers_a_new_client(self) -> bool:
        try:
            kafka.make_admin(self._settings.kafka).list_topics(self._topic, self._timeout_s)
        except KafkaException:
            return False
        self._log.warning("the broker answers, but not this consumer: replacing it")
        return True
