"""What a command raises, by the exit code it ends with."""

from __future__ import annotations


class CommandFailed(Exception):
    """The work could not be done; the message says what was expected, what came, what to do."""
