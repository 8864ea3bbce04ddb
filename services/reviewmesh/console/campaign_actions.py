"""Commands for a campaign: the page says what one would do, then it is done.

A command is given for the state that the screen showed, so a second press, or one on an old page,
is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reviewmesh.console.acting import Acting, Facts, WrongChoice, form_of
from reviewmesh.console.campaigns import NEEDS, CampaignShown
from reviewmesh.console.kept import KeptReading
from reviewmesh.console.mesh import Mesh
from reviewmesh.console.moving import Templates
from reviewmesh.enrich.campaigns import CANCELLED, PAUSED, RUNNING
from reviewmesh.query.errors import NotCarriedOut, NotFound
from reviewmesh.query.steering import CANCEL, PAUSE, RESUME, send_rest, steer

EFFECTS = {
    PAUSE: "No further review is taken up; those that workers have already are completed.",
    RESUME: "It goes on. Requests that were not sent yet are sent, which takes minutes if the "
    "mesh holds many reviews.",
    CANCEL: "What is left is dropped, and what was published stays. It cannot go on again.",
}
STATES = (RUNNING, PAUSED, CANCELLED)
NAME_AT_MOST = 200


@dataclass(frozen=True, slots=True)
class CampaignCommand:
    """What was chosen, and the state that was looked at."""

    action: str
    campaign: str
    state: str

    @property
    def words(self) -> str:
        return f"{self.action.capitalize()} {self.campaign}"


def chosen(action: str, fields: Mapping[str, str]) -> CampaignCommand:
    """Raises WrongChoice."""
    campaign, state = fields.get("campaign", ""), fields.get("state", "")
    if not 0 < len(campaign) <= NAME_AT_MOST:
        raise WrongChoice(f"expected the name of a campaign, got {campaign!r:.80}")
    if state not in STATES:
        raise WrongChoice(
            f"expected the state that the campaign had on its page, one of {', '.join(STATES)}, "
            f"got {state!r:.80}"
        )
    return CampaignCommand(action, campaign, state)


class Steering:
    """Threads share it. One command at a time, so that a second press finds what the first did."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._lock = threading.Lock()
        self._sending: set[str] = set()

    def carry_out(self, command: CampaignCommand) -> Facts:
        """What came of it. Raises NotCarriedOut, NotFound, CannotReach and KafkaException."""
        name, resumes = command.campaign, command.action == RESUME
        with self._lock:
            if resumes and name in self._sending:
                raise NotCarriedOut(
                    f"the requests of {name} that were missing are being sent since it was "
                    "resumed; wait until they are"
                )
            connection = self._mesh.connection()
            campaign = steer(connection, name, command.action, command.state)
            if resumes:
                self._sending.add(name)
        if not resumes:
            return {"state": campaign.state}
        # Not within the lock: it takes long, and may be paused or cancelled meanwhile.
        try:
            return {"state": campaign.state, "sent": send_rest(connection, campaign)}
        finally:
            with self._lock:
                self._sending.discard(name)


def routes_of(
    mesh: Mesh, kept: KeptReading[list[CampaignShown]], acting: Acting, templates: Templates
) -> list[Route]:
    pages = _CampaignActions(Steering(mesh), kept, acting, templates)
    return [
        Route(f"/campaigns/{action}", partial(handle, action), methods=[method])
        for action in EFFECTS
        for method, handle in (("GET", pages.ask), ("POST", pages.act))
    ]


class _CampaignActions:
    def __init__(
        self,
        steering: Steering,
        kept: KeptReading[list[CampaignShown]],
        acting: Acting,
        templates: Templates,
    ) -> None:
        self._steering = steering
        self._kept = kept
        self._acting = acting
        self._page = templates.page

    async def ask(self, action: str, request: Request) -> Response:
        """What would be done; does nothing."""
        command = chosen(action, request.query_params)
        item = await run_in_threadpool(self._named, command.campaign)
        changed = item.is_over or item.campaign.state != command.state
        return self._answer(request, command, item=item, changed=changed)

    async def act(self, action: str, request: Request) -> Response:
        name = f"{action} campaign"
        if (refusal := self._acting.refusal(request, name, NEEDS)) is not None:
            return refusal
        command = chosen(action, await form_of(request))
        about: Facts = {"campaign": command.campaign}
        try:
            with self._acting.noted(request, name, about) as came_of:
                came_of |= await run_in_threadpool(self._carry_out, command)
        except NotCarriedOut as error:
            return self._answer(request, command, 409, refused=str(error))
        return self._answer(request, command, done=dict(came_of))

    def _carry_out(self, command: CampaignCommand) -> Facts:
        # A command for one that is over would only change how its end is told.
        if self._named(command.campaign).is_over:
            raise NotCarriedOut(f"{command.campaign} is over")
        return self._steering.carry_out(command)

    def _named(self, name: str) -> CampaignShown:
        """Raises NotFound, and CannotReach where nothing was read yet."""
        for item in self._kept.reading().needed("the campaigns"):
            if item.campaign.id == name:
                return item
        raise NotFound(f"no campaign is called {name!r:.80}")

    def _answer(
        self, request: Request, command: CampaignCommand, status: int = 200, **shown: Any
    ) -> Response:
        return self._page(
            request,
            "campaign_action.html",
            status,
            command=command,
            needs=NEEDS,
            effect=EFFECTS[command.action],
            instead=f"reviewmesh reprocess {command.action} {command.campaign}",
            **{"item": None, "changed": False, "refused": "", "done": None, **shown},
        )
