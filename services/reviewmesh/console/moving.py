"""A screen that shows what was read, and whose part is sent again whenever it is different."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reviewmesh.console.kept import EVERY_S

PING_S = 10


@dataclass(frozen=True, slots=True)
class Templates:
    """How templates become answers."""

    page: Callable[..., Response]
    """(request, template, **shown)"""
    part: Callable[..., str]
    """(request, template, **shown)"""


class MovingScreen:
    """`/NAME` from the template NAME.html, and `/events/NAME` from _NAME.html."""

    def __init__(
        self,
        name: str,
        templates: Templates,
        shown: Callable[[Mapping[str, str]], dict[str, Any]],
    ) -> None:
        """`shown`: what the templates show for a query, `reading` among it."""
        self._name = name
        self._templates = templates
        self._shown = shown

    def routes(self) -> list[Route]:
        return [
            Route(f"/{self._name}", self._page),
            Route(f"/events/{self._name}", self._events),
        ]

    async def _page(self, request: Request) -> Response:
        shown = await run_in_threadpool(self._now, request.query_params)
        return self._templates.page(request, f"{self._name}.html", **shown)

    async def _events(self, request: Request) -> Response:
        async def parts() -> AsyncIterator[ServerSentEvent]:
            while True:
                shown = await run_in_threadpool(self._now, request.query_params)
                part = await run_in_threadpool(self._part, request, shown)
                yield ServerSentEvent(part, event="part")
                await asyncio.sleep(EVERY_S)

        return EventSourceResponse(parts(), ping=PING_S)

    def _part(self, request: Request, shown: dict[str, Any]) -> str:
        return self._templates.part(request, f"_{self._name}.html", **shown)

    def _now(self, query: Mapping[str, str]) -> dict[str, Any]:
        shown = self._shown(query)
        now = time.time()
        return shown | {
            "now": now,
            "old": shown["reading"].is_old(now),
            "events": f"/events/{self._name}?{urlencode(list(query.items()))}",
        }
