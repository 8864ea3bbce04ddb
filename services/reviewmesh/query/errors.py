"""Errors of queries."""

from __future__ import annotations


class CannotReach(Exception):
    """The mesh, or a part of it, does not answer."""


class NotFound(Exception):
    """Something does not exist; the message says what, and where to look."""


class NotCarriedOut(Exception):
    """A command for a rollout or a campaign is refused; the message says why and what to do."""
