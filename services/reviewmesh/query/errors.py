"""What keeps a question from being answered."""

from __future__ import annotations


class CannotReach(Exception):
    """The mesh, or a part of it, does not answer."""


class NotFound(Exception):
    """What was asked for is not there; the message says what was looked for and where to look."""
