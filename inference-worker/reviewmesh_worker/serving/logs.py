"""Structured logs: one JSON object a line, or readable lines on a console."""

from __future__ import annotations

import logging
import sys

import structlog

from reviewmesh_worker.serving.settings import LogSettings


def configure(settings: LogSettings) -> structlog.stdlib.BoundLogger:
    """Set up logging for the process; returns its logger."""
    readable = settings.format == "console"
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if readable else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.level]
        ),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    return structlog.get_logger(service="worker")  # type: ignore[no-any-return]
