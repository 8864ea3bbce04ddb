"""The screen of insights: windows of a business as plots, and as the table that says the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reviewmesh.console.indexing import Indexing
from reviewmesh.console.moving import Templates
from reviewmesh.console.places import PlaceIndex
from reviewmesh_kit.printable import plain

WINDOWS_SHOWN = 200
BUSINESSES_SHOWN = 500
TOPICS_PLOTTED = 5
TOPICS_A_WINDOW = 5
NAME_SHOWN = 40

Window = Mapping[str, Any]
"""A record of reviews.insights."""


@dataclass(frozen=True, slots=True)
class WindowRow:
    """A window, with the addresses of the reviews behind it."""

    window: Window
    link: str
    topics: tuple[tuple[str, int, str], ...]
    """Name, reviews and address; most reviews first."""


def routes_of(index: PlaceIndex, indexing: Indexing, templates: Templates) -> list[Route]:
    async def insights(request: Request) -> Response:
        business = request.query_params.get("business", "")
        businesses = await run_in_threadpool(index.businesses, BUSINESSES_SHOWN)
        found = await run_in_threadpool(index.windows, business, WINDOWS_SHOWN)
        windows = [json.loads(content) for _, content in found]
        return templates.page(
            request,
            "insights.html",
            business=business,
            businesses=businesses,
            rows=[row_of(window) for window in reversed(windows)],
            plots=plots_of(windows),
            changed_ms=max((window["updated_at"] or 0 for window in windows), default=0),
            indexing=indexing,
        )

    return [Route("/insights", insights)]


def link_of(window: Window, topic: str = "") -> str:
    """The address of the reviews behind a window."""
    wanted = {
        "business": window["business_id"] or "",
        "since_ms": window["window_start"],
        "until_ms": window["window_end"],
    }
    return f"/reviews?{urlencode(wanted | ({'topic': topic} if topic else {}))}"


def row_of(window: Window) -> WindowRow:
    most = sorted(window["topics"], key=lambda topic: -topic["reviews"])[:TOPICS_A_WINDOW]
    return WindowRow(
        window,
        link_of(window),
        tuple((topic["id"], topic["reviews"], link_of(window, topic["id"])) for topic in most),
    )


def plots_of(windows: Sequence[Window]) -> dict[str, Any]:
    """For plots.js: times in seconds, and plots of series with a value and an address for each.

    `windows`: oldest first.
    """
    points = list(_with_gaps(windows))
    moods = sorted({label for window in windows for label in window["sentiment"]})
    reviews_of: Counter[str] = Counter()
    for window in windows:
        for topic in window["topics"]:
            reviews_of[topic["id"]] += topic["reviews"]
    topics = [name for name, _ in reviews_of.most_common(TOPICS_PLOTTED)]
    plots = [
        _plot("Reviews", points, {"reviews": lambda window: window["reviews"]}, gap=0),
        _plot("Mood, in percent", points, {mood: _share_of(mood) for mood in moods}, gap=None),
        _plot("Mean stars", points, {"stars": lambda window: window["mean_stars"]}, gap=None),
        _plot("Reviews by topic", points, {name: _about(name) for name in topics}, gap=0),
    ]
    for series, name in zip(plots[-1]["series"], topics, strict=True):
        series["links"] = [link_of(window, name) if window else "" for _, window in points]
    return {
        "at": [at / 1000 for at, _ in points],
        "links": [link_of(window) if window else "" for _, window in points],
        "plots": [plot for plot in plots if plot["series"]],
    }


def _with_gaps(windows: Sequence[Window]) -> Any:
    """Each window by its start; where none follows at once, a moment without one on either side."""
    before: Window | None = None
    for window in windows:
        if before is not None and before["window_end"] < window["window_start"]:
            length = window["window_end"] - window["window_start"]
            begin, end = before["window_end"], window["window_start"] - length
            yield begin, None
            if end > begin:
                yield end, None
        yield window["window_start"], window
        before = window


def _plot(title: str, points: Any, series: Mapping[str, Any], gap: int | None) -> dict[str, Any]:
    found = [
        {
            "name": _short(name),
            "values": [gap if window is None else value_of(window) for _, window in points],
        }
        for name, value_of in series.items()
    ]
    known = [one for one in found if any(value is not None for value in one["values"])]
    return {"title": title, "series": known}


def _share_of(mood: str) -> Any:
    def share(window: Window) -> float | None:
        of = sum(window["sentiment"].values())
        return 100 * window["sentiment"].get(mood, 0) / of if of else None

    return share


def _about(topic: str) -> Any:
    return lambda window: sum(
        found["reviews"] for found in window["topics"] if found["id"] == topic
    )


def _short(name: str) -> str:
    """Names of topics come from records."""
    shown = plain(name)
    return shown if len(shown) <= NAME_SHOWN else f"{shown[: NAME_SHOWN - 1]}…"
