"""Errors of the embedded stack, by exit code of the command line."""

from __future__ import annotations


class LocalStackError(Exception):
    """An operation of the embedded stack failed; the message says what to do."""


class AlreadyRunningError(LocalStackError):
    """A mesh already runs from this state folder."""


class UnreachableError(LocalStackError):
    """A download host, a broker or a registry did not answer."""
