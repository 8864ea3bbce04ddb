"""Actions of people: who may take them and how often, their forms, a line of audit for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from reviewmesh.console.audit import Audit
from reviewmesh.console.limits import RateLimit
from reviewmesh.console.people import Role, person_of
from reviewmesh.console.rendering import Rendering
from reviewmesh.query.errors import NotCarriedOut
from reviewmesh_kit.settings import variable

LARGEST_FORM = 64 * 1024
FIELDS_AT_MOST = 8
ACTIONS, WITHIN_S = 30, 60.0

Facts = dict[str, str | int | None]


class WrongChoice(ValueError):
    """What was chosen cannot be; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class OfferedAction:
    """A link on a screen to the page that asks before an action."""

    words: str
    address: str
    needs: Role


class Acting:
    """One for all screens, so that its limit counts all actions of a person."""

    def __init__(self, rendering: Rendering, audit: Audit) -> None:
        self._rendering = rendering
        self._audit = audit
        self._limit = RateLimit(ACTIONS, WITHIN_S)

    def refusal(self, request: Request, action: str, needs: Role) -> Response | None:
        """The answer to somebody who may not act now; it is in the audit."""
        found = self._refused(request, needs)
        if found is None:
            return None
        status, problem = found
        self._audit.note(request, person_of(request), action, "refused", reason=problem)
        return self._rendering.page(request, "problem.html", status, problem=problem)

    def _refused(self, request: Request, needs: Role) -> tuple[int, str] | None:
        """The status and the reason."""
        person = person_of(request)
        if not self._rendering.has_actions:
            return 403, f"expected {variable('console', 'actions')} to be on; it is off"
        if not self._rendering.may_act(person, needs):
            return 403, f"expected {needs.at_least}; your role is {person.role.words}"
        if not self._limit.allows(person.subject):
            return 429, f"expected at most {ACTIONS} actions in {WITHIN_S:.0f} s; try again later"
        return None

    @contextmanager
    def noted(self, request: Request, action: str, about: Facts) -> Iterator[Facts]:
        """What is done within is in the audit, with what it puts into the facts."""
        person, came_of = person_of(request), Facts()
        try:
            yield came_of
        except NotCarriedOut as error:
            self._audit.note(request, person, action, "refused", **about, reason=str(error))
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            self._audit.note(request, person, action, "failed", **about, reason=reason)
            raise
        self._audit.note(request, person, action, "done", **about, **came_of)


async def form_of(request: Request) -> dict[str, str]:
    """Raises WrongChoice for one that this page did not send."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_FORM:
            raise WrongChoice(f"expected a form of at most {LARGEST_FORM:,} bytes")
    try:
        return dict(parse_qsl(body.decode(), max_num_fields=FIELDS_AT_MOST))
    except ValueError as error:
        raise WrongChoice(f"expected the form of this page: {error}") from error
