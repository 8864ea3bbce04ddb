"""The routes of the page. Each screen is a template; a stream sends its moving part again."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from confluent_kafka import KafkaException
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from reviewmesh.avro.registry import RegistryUnavailable
from reviewmesh.console import (
    budgets,
    campaign_actions,
    campaigns,
    insights,
    packages,
    reviews,
    rollout_actions,
    rollouts,
)
from reviewmesh.console.access import Guard
from reviewmesh.console.acting import Acting, Facts, WrongChoice, form_of
from reviewmesh.console.alerts import NEED_PROMETHEUS, Alerts
from reviewmesh.console.audit import Audit
from reviewmesh.console.budgets import SpentSoFar
from reviewmesh.console.campaigns import CampaignShown
from reviewmesh.console.indexing import Indexing
from reviewmesh.console.kept import KeptReading
from reviewmesh.console.mesh import Mesh
from reviewmesh.console.moving import Templates
from reviewmesh.console.packages import ModelRegistry
from reviewmesh.console.people import Role, person_of
from reviewmesh.console.places import PlaceIndex
from reviewmesh.console.redriving import Redriving, chosen
from reviewmesh.console.rendering import HERE, Rendering
from reviewmesh.console.reviews import Searching
from reviewmesh.console.rollouts import Epochs
from reviewmesh.console.signin import Gate, SignIn
from reviewmesh.console.story import Storyteller
from reviewmesh.console.tails import TailLine, Tails, TooManyTails, filter_of
from reviewmesh.console.watch import OLD_AFTER_S, Watch
from reviewmesh.loop.replays import PLACE
from reviewmesh.query.connection import topic_named
from reviewmesh.query.deadletters import DeadLetter, letter_placed, replayed_marks
from reviewmesh.query.errors import CannotReach, NotFound
from reviewmesh.query.search import occurrences_of
from reviewmesh.query.values import as_json, schema_of
from reviewmesh.query.where.errors import BadCondition
from reviewmesh_schemas.names import (
    ACCEPTED,
    DEAD_LETTER,
    ENRICHED,
    RAW,
    RESULT_OF,
    TASKS,
)

LETTERS_A_PAGE = 100
TAIL_TOPICS = (RAW, ACCEPTED, *RESULT_OF.values(), ENRICHED, DEAD_LETTER)
# A stream sends something at least so often, so that proxies keep it open.
PING_S = 10
TAIL_WAIT_S = 0.3
HEX_SHOWN = 2_000
FILTERS_TELL = "your role may not see what records hold, and a filter would tell it"
AWAY = (CannotReach, KafkaException, RegistryUnavailable)


@dataclass(frozen=True, slots=True)
class Screens:
    """What the screens show."""

    mesh: Mesh
    watch: Watch
    alerts: Alerts
    index: PlaceIndex
    indexing: Indexing
    stories: Storyteller
    tails: Tails
    redriving: Redriving
    searching: Searching
    rollouts: KeptReading[Epochs]
    campaigns: KeptReading[list[CampaignShown]]
    budgets: KeptReading[SpentSoFar]
    registry: KeptReading[ModelRegistry | None]


def application(
    screens: Screens, rendering: Rendering, sign_in: SignIn, audit: Audit, url: str
) -> Starlette:
    """`url`: by which people reach the page; empty: on this machine only."""
    acting = Acting(rendering, audit)
    pages = _Pages(screens, rendering, acting)
    templates = Templates(rendering.page, rendering.part)
    routes = [
        *sign_in.routes,
        Route("/", pages.overview),
        Route("/groups", pages.groups),
        Route("/workers", pages.workers),
        Route("/review", pages.review),
        Route("/live", pages.live),
        Route("/dead-letters", pages.letters),
        Route("/dead-letters/redrive", pages.redrive_plan, methods=["GET"]),
        Route("/dead-letters/redrive", pages.redrive, methods=["POST"]),
        Route("/dead-letters/{partition:int}/{offset:int}", pages.letter),
        *reviews.routes_of(screens.searching, templates),
        *insights.routes_of(screens.index, screens.indexing, templates),
        *rollouts.routes_of(screens.rollouts, templates),
        *rollout_actions.routes_of(screens.mesh, screens.rollouts, acting, templates),
        *campaigns.routes_of(screens.campaigns, lambda: screens.watch.picture, templates),
        *campaign_actions.routes_of(screens.mesh, screens.campaigns, acting, templates),
        *budgets.routes_of(screens.budgets, templates),
        *packages.routes_of(screens.registry, templates),
        Route("/events/{screen:str}", pages.events),
        Route("/tail", pages.tail),
        Mount("/static", StaticFiles(directory=HERE / "static")),
    ]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(Guard, url=url),
            Middleware(Gate, sign_in=sign_in, rendering=rendering),
            # Not of streams: each of their parts has to leave at once.
            Middleware(GZipMiddleware, minimum_size=1_000),
        ],
        exception_handlers={
            **{error: pages.away for error in AWAY},
            NotFound: pages.not_found,
            WrongChoice: pages.wrong,
        },
    )


MOVING = {"overview": "_overview.html", "groups": "_groups.html", "workers": "_workers.html"}


class _Pages:
    def __init__(self, screens: Screens, rendering: Rendering, acting: Acting) -> None:
        self._screens = screens
        self._rendering = rendering
        self._page = rendering.page
        self._acting = acting

    # -- what moves --------------------------------------------------------------------------

    async def overview(self, request: Request) -> Response:
        return self._page(request, "overview.html", **self._now())

    async def groups(self, request: Request) -> Response:
        return self._page(request, "groups.html", **self._now())

    async def workers(self, request: Request) -> Response:
        return self._page(request, "workers.html", **self._now())

    async def events(self, request: Request) -> Response:
        """Sends the moving part of a screen whenever there is a new picture."""
        screen = request.path_params["screen"]
        if screen not in MOVING:
            return HTMLResponse("no such screen", 404)

        async def parts() -> AsyncIterator[ServerSentEvent]:
            number = 0
            while True:
                picture = await run_in_threadpool(self._screens.watch.newer_than, number, 5.0)
                if picture is not None:
                    number = picture.number
                    part = self._rendering.part(request, MOVING[screen], **self._now())
                    yield ServerSentEvent(part, event="part")
                # Several parts of the mesh are asked at the same time.
                await asyncio.sleep(0.5)

        return EventSourceResponse(parts(), ping=PING_S)

    def _now(self) -> dict[str, Any]:
        picture, now = self._screens.watch.picture, time.time()
        return {
            "picture": picture,
            "flow": _flow(picture),
            "now": now,
            "old": not picture.measured_at or now - picture.measured_at > OLD_AFTER_S,
            "index_behind": self._screens.indexing.behind,
            "index_problem": self._screens.indexing.problem,
            "alerts": self._screens.alerts.shown,
            "alerts_since": self._screens.alerts.began_at,
            "not_judged": NEED_PROMETHEUS,
        }

    # -- one review --------------------------------------------------------------------------

    async def review(self, request: Request) -> Response:
        review_id = request.query_params.get("id", "")
        if not review_id:
            return self._page(request, "review.html", review_id="", story=None, everywhere=())
        story = await run_in_threadpool(self._screens.stories.story, review_id)
        everywhere = ()
        if request.query_params.get("everywhere"):
            everywhere = await run_in_threadpool(self._everywhere, review_id)
        return self._page(
            request,
            "review.html",
            review_id=review_id,
            story=story,
            everywhere=everywhere,
            indexing=self._screens.indexing,
        )

    def _everywhere(self, review_id: str) -> Any:
        return tuple(occurrences_of(self._screens.mesh.connection(), review_id))

    # -- a topic, live -----------------------------------------------------------------------

    async def live(self, request: Request) -> Response:
        return self._page(
            request, "live.html", topics=TAIL_TOPICS, wanted=_tail_wanted(request.query_params)
        )

    async def tail(self, request: Request) -> Response:
        wanted = _tail_wanted(request.query_params)
        texts = self._rendering.sees_text(person_of(request))
        if not texts and (wanted["where"] or wanted["containing"]):
            return EventSourceResponse(_once("refused", FILTERS_TELL))
        try:
            topic = topic_named(wanted["topic"])
            passes = filter_of(topic, wanted["where"], wanted["containing"])
            tail = self._screens.tails.open(topic, passes)
        except (BadCondition, ValueError, TooManyTails) as error:
            return EventSourceResponse(_once("refused", str(error)))

        async def lines() -> AsyncIterator[ServerSentEvent]:
            told = ""
            try:
                yield ServerSentEvent("", event="open")
                while True:
                    found = await run_in_threadpool(tail.lines, TAIL_WAIT_S)
                    if found:
                        yield ServerSentEvent(_as_json(found, texts), event="lines")
                    if tail.problem != told:
                        told = tail.problem
                        yield ServerSentEvent(told, event="problem")
                    if await request.is_disconnected():
                        return
            finally:
                tail.close()

        return EventSourceResponse(lines(), ping=PING_S)

    # -- dead letters ------------------------------------------------------------------------

    async def letters(self, request: Request) -> Response:
        wanted = {name: request.query_params.get(name, "") for name in FILTERS}
        after = _place(request.query_params.get("after", ""))
        index = self._screens.index
        groups = await run_in_threadpool(index.letter_groups)
        rows = await run_in_threadpool(
            partial(index.letters, **wanted, limit=LETTERS_A_PAGE, after=after)
        )
        return self._page(
            request,
            "letters.html",
            groups=groups,
            rows=rows,
            wanted=wanted,
            more=len(rows) == LETTERS_A_PAGE,
            indexing=self._screens.indexing,
        )

    async def letter(self, request: Request) -> Response:
        place = "{partition}/{offset}".format(**request.path_params)
        shown = await run_in_threadpool(self._letter, place)
        return self._page(request, "letter.html", place=place, **shown)

    def _letter(self, place: str) -> dict[str, Any]:
        connection = self._screens.mesh.connection()
        found = letter_placed(connection, place)
        return {
            "letter": found,
            "content": as_json(schema_of(DEAD_LETTER), found.content),
            "replayed": replayed_marks(connection).has(found.letter),
            **_shown_value(self._screens.mesh, found),
        }

    async def redrive_plan(self, request: Request) -> Response:
        """What would be sent; sends nothing."""
        wanted = chosen(request.query_params)
        planned = await run_in_threadpool(self._screens.redriving.plan, wanted)
        return self._page(request, "redrive.html", wanted=wanted, planned=planned, done=None)

    async def redrive(self, request: Request) -> Response:
        refusal = self._acting.refusal(request, "redrive", Role.OPERATOR)
        if refusal is not None:
            return refusal
        wanted = chosen(await form_of(request))
        about: Facts = {"place": wanted.place, "stage": wanted.stage, "cause": wanted.cause}
        with self._acting.noted(request, "redrive", about) as came_of:
            done = await run_in_threadpool(self._screens.redriving.redrive, wanted)
            came_of |= {"sent": len(done.sent), "failed": len(done.failures)}
        planned = await run_in_threadpool(self._screens.redriving.plan, wanted)
        return self._page(request, "redrive.html", wanted=wanted, planned=planned, done=done)

    # -- answers -----------------------------------------------------------------------------

    async def away(self, request: Request, error: Exception) -> Response:
        return self._page(request, "problem.html", 503, problem=str(error))

    async def wrong(self, request: Request, error: Exception) -> Response:
        return self._page(request, "problem.html", 400, problem=str(error))

    async def not_found(self, request: Request, error: Exception) -> Response:
        return self._page(request, "problem.html", 404, problem=str(error))


FILTERS = ("stage", "cause", "business")


def _tail_wanted(query: Mapping[str, str]) -> dict[str, str]:
    return {
        "topic": query.get("topic", ENRICHED),
        "where": query.get("where", ""),
        "containing": query.get("containing", ""),
    }


def _as_json(lines: list[TailLine], texts: bool) -> str:
    return json.dumps(
        [asdict(line if texts else replace(line, text="hidden from viewers")) for line in lines]
    )


async def _once(event: str, text: str) -> AsyncIterator[ServerSentEvent]:
    yield ServerSentEvent(text, event=event)


def _place(text: str) -> tuple[int, int] | None:
    match = PLACE.fullmatch(text)
    return None if match is None else (int(match[1]), int(match[2]))


def _shown_value(mesh: Mesh, found: DeadLetter) -> dict[str, Any]:
    """The record of a dead letter, decoded where it can be, else in hex."""
    value: bytes = found.content["value"] or b""
    topic = found.content["topic"]
    try:
        known = topic_named(topic)
        decoded = mesh.connection().codec(known).decode(value)
        text = json.dumps(as_json(schema_of(known), decoded), indent=2, ensure_ascii=False)
        return {"decoded": text, "hex": "", "undecodable": ""}
    # Any topic and any bytes may be in a dead letter.
    except (ValueError, RegistryUnavailable) as error:
        shown = value[:HEX_SHOWN].hex(" ", 4)
        return {"decoded": "", "hex": shown, "undecodable": str(error)}


@dataclass(frozen=True, slots=True)
class FlowStage:
    """A stage in the picture of the flow."""

    name: str
    ready: bool | None
    """None: it is not among the processes that are asked."""
    per_s: float | None
    backlog: int | None
    seconds: float | None


def _flow(picture: Any) -> list[FlowStage]:
    """Intake, an enricher per task, the joiner: how fast, and how far behind."""
    names = ("intake", *(f"enricher-{task}" for task in TASKS), "joiner")
    nodes = []
    for name in names:
        state = picture.process(name)
        mine = [row for row in picture.groups if row.group.endswith(f"reviewmesh-{name}")]
        read = None if state is None else state.rates.get("reviewmesh_records_read_total")
        nodes.append(
            FlowStage(
                name=name,
                ready=None if state is None else state.ready,
                per_s=read,
                backlog=max((row.backlog for row in mine), default=None),
                seconds=max((row.seconds for row in mine), default=None),
            )
        )
    return nodes
