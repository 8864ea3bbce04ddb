"""Structured logs: one JSON object a line, or readable lines on a console."""

from __future__ import annotations

import logging
import sys

import structlog

from reviewmesh.runtime.settings import LogSettings


def configure(settings: LogSettings, service: str) -> structlog.stdlib.BoundLogger:
    """Set up logging for the process; returns its logger, bound to the service's name."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.level]
        ),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    return structlog.get_logger(service=service)  # type: ignore[no-any-return]
