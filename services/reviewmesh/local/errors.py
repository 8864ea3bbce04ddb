"""What can go wrong with the embedded stack, by the exit code that the command line gives it."""

from __future__ import annotations


class LocalStackError(Exception):
    """The embedded stack could not do what was asked; the message says what to do."""


class AlreadyRunningError(LocalStackError):
    """A mesh already runs from this state folder."""


class UnreachableError(LocalStackError):
    """Something outside this process did not answer: a download host, a broker, a registry."""
