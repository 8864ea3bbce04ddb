"""A new consumer after a certificate was replaced, connected before the old one is closed.

librdkafka reads certificates when a client is created. The new client first connects in a thread,
so that a certificate that the broker rejects only causes a warning.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import KafkaException

from reviewmesh.kafka.clients import REFUSALS
from reviewmesh.settings import Settings

CONNECT_TIMEOUT_S = 5.0
TRY_AGAIN_S = 10.0


class ConsumerRenewal:
    """Used by the polling thread."""

    def __init__(
        self,
        settings: Settings,
        make_consumer: Callable[[], Any],
        topic: str,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`topic`: the name on the broker of a topic whose metadata tests the new connection."""
        self._files = settings.kafka.certificates
        self._used = self._files.current()
        self._make_consumer = make_consumer
        self._topic = topic
        self._log = log
        self._connecting: ConnectingConsumer | None = None
        self._not_before = 0.0

    def connected(self) -> Any:
        """A consumer that has connected with a replaced certificate, and is in no group yet; None
        without one."""
        if self._connecting is None:
            if self._files.current() is self._used or time.monotonic() < self._not_before:
                return None
            self._certificate = self._files.current()
            self._connecting = ConnectingConsumer(self._make_consumer, self._topic)
        if not self._connecting.ended:
            return None
        ended, self._connecting = self._connecting, None
        if ended.consumer is None:
            self._not_before = time.monotonic() + TRY_AGAIN_S
            self._log.warning(
                "no connection to Kafka with the renewed certificate: the old one stays in use",
                reason=ended.problem,
            )
            return None
        self._used = self._certificate
        return ended.consumer


class ConnectingConsumer:
    """Creates and connects a consumer in a thread."""

    def __init__(self, make_consumer: Callable[[], Any], topic: str) -> None:
        self._make_consumer = make_consumer
        self._topic = topic
        self.consumer: Any = None
        self.problem = ""
        self.ended = False
        threading.Thread(target=self._run, name="renewal", daemon=True).start()

    def _run(self) -> None:
        try:
            consumer = self._make_consumer()
            try:
                consumer.list_topics(self._topic, CONNECT_TIMEOUT_S)
            except KafkaException:
                consumer.close()
                raise
            self.consumer = consumer
        except REFUSALS as error:
            self.problem = str(error)
        finally:
            self.ended = True
