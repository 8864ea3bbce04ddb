"""The screen of reviews that match: a search by text, and the reviews behind a point of a plot."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reviewmesh.console.mesh import Mesh
from reviewmesh.console.moving import Templates
from reviewmesh.query.recent import FoundReview, FoundReviews, Sought, find_recent

AROUND = 120
LONGEST_TEXT = 500


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A stretch of the text around what was looked for."""

    before: str
    match: str
    after: str


class Searching:
    """One search at a time: each reads many records."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._lock = threading.Lock()

    def find(self, sought: Sought) -> FoundReviews:
        """Raises CannotReach and KafkaException."""
        with self._lock:
            return find_recent(self._mesh.connection(), sought)


def routes_of(searching: Searching, templates: Templates) -> list[Route]:
    async def reviews(request: Request) -> Response:
        sought, problem = sought_in(request.query_params)
        found = None
        if not problem and sought != Sought():
            found = await run_in_threadpool(searching.find, sought)
        excerpts = () if found is None else [excerpt_of(one, sought) for one in found.reviews]
        return templates.page(
            request,
            "reviews.html",
            sought=sought,
            problem=problem,
            found=found,
            rows=[] if found is None else list(zip(found.reviews, excerpts, strict=True)),
        )

    return [Route("/reviews", reviews)]


def sought_in(query: Mapping[str, str]) -> tuple[Sought, str]:
    """What an address asks for, and what is wrong with it."""
    text = query.get("text", "").strip()
    if len(text) > LONGEST_TEXT:
        return Sought(), f"expected a text of at most {LONGEST_TEXT} characters, got {len(text):,}"
    times: dict[str, Any] = {}
    for name in ("since_ms", "until_ms"):
        value = query.get(name, "")
        is_time = value.isascii() and value.isdigit() and len(value) < 16
        if value and not is_time:
            return Sought(), f"{name}: expected milliseconds since 1970, got {value!r:.60}"
        times[name] = int(value) if value else None
    return Sought(text, query.get("business"), query.get("topic", ""), **times), ""


def excerpt_of(found: FoundReview, sought: Sought) -> Excerpt:
    """What was looked for in the text, else in the title; without it how the text begins."""
    text, title = found.content["text"] or "", found.content["title"] or ""
    if sought.text:
        for body in (text, title):
            if (match := sought.pattern.search(body)) is not None:
                begin, end = match.span()
                first, last = max(0, begin - AROUND), end + AROUND
                return Excerpt(
                    ("…" if first else "") + body[first:begin],
                    match[0],
                    body[end:last] + ("…" if last < len(body) else ""),
                )
    shown = text or title
    return Excerpt(shown[: 2 * AROUND] + ("…" if len(shown) > 2 * AROUND else ""), "", "")
