"""Structured logs: one JSON object a line, or readable lines on a console."""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import Processor

from reviewmesh_kit.settings import LogSettings


def configure(
    settings: LogSettings, service: str, *processors: Processor
) -> structlog.stdlib.BoundLogger:
    """Set up logging for the process; returns its logger, bound to the service's name.

    `processors` see each event before it has its level and time.
    """
    readable = settings.format == "console"
    structlog.configure(
        processors=[
            *processors,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if readable else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level_of(settings)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    log: structlog.stdlib.BoundLogger = structlog.get_logger(service=service)
    return log


def level_of(settings: LogSettings) -> int:
    return logging.getLevelNamesMapping()[settings.level]
