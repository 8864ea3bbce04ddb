"""Templates, and what each of them knows: who looks, and what they may see and do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from reviewmesh.console.people import Person, Role
from reviewmesh.query.values import iso
from reviewmesh.settings import ConsoleSettings
from reviewmesh_kit.printable import plain
from reviewmesh_kit.version import running_version
from reviewmesh_schemas.names import TASKS

HERE = Path(__file__).parent


class Rendering:
    def __init__(self, settings: ConsoleSettings) -> None:
        self._settings = settings
        self.templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters |= {
            "iso": iso,
            "duration": duration,
            "number": lambda value: f"{value:,.0f}",
            "rate": lambda value: f"{value:,.1f}",
            "plain": plain,
            "percent": lambda value: f"{100 * value:.0f} %",
        }
        self.templates.globals |= {
            "tasks": TASKS,
            "version": running_version(),
            "actions": settings.actions,
        }

    @property
    def has_actions(self) -> bool:
        return self._settings.actions

    def page(
        self, request: Request, template: str, status: int = 200, **shown: Any
    ) -> HTMLResponse:
        page = self.part(request, template, **shown)
        return HTMLResponse(page, status, headers={"cache-control": "no-store"})

    def part(self, request: Request, template: str, **shown: Any) -> str:
        """Of a screen that moves."""
        person: Person | None = getattr(request.state, "person", None)

        def may(needs: Role) -> bool:
            return person is not None and self.may_act(person, needs)

        return self.templates.get_template(template).render(
            path=request.url.path,
            person=person,
            may=may,
            acts=may(Role.OPERATOR),
            texts=person is not None and self.sees_text(person),
            **shown,
        )

    def may_act(self, person: Person, needs: Role) -> bool:
        return self.has_actions and person.role >= needs

    def sees_text(self, person: Person) -> bool:
        """What records hold, and what tells of it: messages of dead letters, filters."""
        return self._settings.viewers_see_text or person.role > Role.VIEWER


def duration(seconds: float | None) -> str:
    """In the unit that people would take."""
    if seconds is None or math.isnan(seconds):
        return "unknown"
    if math.isinf(seconds):
        return "nothing moves"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
