"""Errors of commands, by exit code."""

from __future__ import annotations


class CommandFailed(Exception):
    """The work could not be done; the message says what was expected, what came, what to do."""
