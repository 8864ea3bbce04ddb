"""Logs of a service.

Libraries' logs, librdkafka's included, go the same way as the service's own. A repeated warning,
such as for every retry of a connection, is written at most every REPEAT_AFTER_S, with a count.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from reviewmesh_kit import logs
from reviewmesh_kit.settings import LogSettings

REPEAT_AFTER_S = 30.0
REMEMBERED_WARNINGS = 500
# `FAIL [rdkafka#consumer-1] [thrd:127.0.0.1:9092/bootstrap]: what happened`
LIBRDKAFKA_LINE = re.compile(r"(?P<code>\w+) \[[^\]]+\] \[thrd:.*?\]: (?P<error>.*)", re.DOTALL)
# The parts that differ between repetitions of a librdkafka message.
PASSING = re.compile(r"\s*\(after \d+ms.*|\d+ms", re.DOTALL)


def configure(settings: LogSettings, service: str) -> structlog.stdlib.BoundLogger:
    """Set up logging for the process; returns its logger, bound to the service's name."""
    log = logs.configure(settings, service, Throttle(time.monotonic))
    logging.basicConfig(level=logging.WARNING, handlers=[Bridge(log)], force=True)
    logging.getLogger("librdkafka").setLevel(logs.level_of(settings))
    return log


@dataclass(slots=True)
class Repeated:
    at: float
    repeats: int = 0


class Throttle:
    """Drops a warning that was written within the last REPEAT_AFTER_S; the next has the count.

    Also librdkafka's information messages, such as those on closed idle connections.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._written: OrderedDict[tuple[str, ...], Repeated] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(
        self, logger: object, method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        if method != "warning" and not (method == "info" and event.get("event") == "kafka"):
            return event
        key = tuple(sorted(f"{name}={value}" for name, value in identity_of(event).items()))
        now = self._clock()
        with self._lock:
            last = self._written.get(key)
            if last is not None and now - last.at < REPEAT_AFTER_S:
                last.repeats += 1
                raise structlog.DropEvent
            self._written[key] = Repeated(now)
            self._written.move_to_end(key)
            if len(self._written) > REMEMBERED_WARNINGS:
                self._written.popitem(last=False)
        if last is not None and last.repeats:
            event["repeated"] = last.repeats
        return event


def identity_of(event: structlog.typing.EventDict) -> dict[str, object]:
    """The identity of a warning: of librdkafka's, the text without changing figures.

    librdkafka reports a failure both in its log and, with another code, to the error callback.
    """
    if event.get("event") != "kafka":
        return dict(event)
    return {"event": "kafka", "error": lasting(str(event.get("error")))}


def lasting(error: str) -> str:
    """A librdkafka error without the figures that change."""
    return PASSING.sub("", error)


class Bridge(logging.Handler):
    """Forwards records of the standard library's loggers to structlog."""

    def __init__(self, log: structlog.stdlib.BoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        if record.name == "librdkafka":
            self._emit_librdkafka(record)
        else:
            level = record.levelno
            if level == logging.ERROR and record.name.partition(".")[0] == "aiokafka":
                # Like librdkafka, it retries by itself.
                level = logging.WARNING
            self._write(level, record.getMessage(), logger=record.name)

    def _emit_librdkafka(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        line = LIBRDKAFKA_LINE.fullmatch(text)
        level = record.levelno
        if level == logging.ERROR:
            # The client retries by itself; fatal errors are CRITICAL.
            level = logging.WARNING
        if line is None:
            self._write(level, "kafka", error=text)
            return
        if line["code"] == "CONFWARN" and "will be ignored by this" in line["error"]:
            # Consumers and producers get the same options.
            level = logging.DEBUG
        self._write(level, "kafka", code=line["code"], error=line["error"])

    def _write(self, level: int, event: str, **fields: str) -> None:
        self._log.log(min(level, logging.ERROR), event, **fields)
