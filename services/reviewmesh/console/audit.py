"""A line in the log for each action and each sign-in: who, with which role, what came of it."""

from __future__ import annotations

import structlog
from starlette.requests import Request

from reviewmesh.console.people import Person


class Audit:
    """Lines with the event `audit`; they are written at INFO."""

    def __init__(self, log: structlog.stdlib.BoundLogger) -> None:
        self._log = log

    def note(
        self,
        request: Request,
        person: Person | None,
        action: str,
        outcome: str,
        **facts: str | int | None,
    ) -> None:
        """`person`: None while it is not known who it is."""
        self._log.info(
            "audit",
            action=action,
            outcome=outcome,
            who=None if person is None else person.name,
            subject=None if person is None else person.subject,
            role=None if person is None else person.role.words,
            address=address_of(request),
            **facts,
        )


def address_of(request: Request) -> str:
    return "unknown" if request.client is None else request.client.host
