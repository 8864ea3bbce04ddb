"""The screen of campaigns: how far answers that are done again came, and when they are done."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import structlog
from starlette.routing import Route

from reviewmesh.console.acting import OfferedAction
from reviewmesh.console.kept import KeptReading
from reviewmesh.console.mesh import Mesh
from reviewmesh.console.moving import MovingScreen, Templates
from reviewmesh.console.people import Role
from reviewmesh.console.watch import Picture
from reviewmesh.enrich.campaigns import CANCELLED, PAUSED, RUNNING
from reviewmesh.query.campaign_progress import CampaignProgress
from reviewmesh.query.campaigns import Campaign, Status
from reviewmesh.query.steering import CANCEL, PAUSE, RESUME

# The pace is that of the last minute of looking.
PACE_S = 60.0
REASONS = ("published", "superseded", "failed", "unproven")

NEEDS = Role.OPERATOR

Found = list[tuple[Campaign, Status | None]]


@dataclass(slots=True)
class Pace:
    """How many answers a second, from what was seen at several moments."""

    seen: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, now: float, done: int) -> None:
        self.seen.append((now, done))
        while now - self.seen[0][0] > PACE_S:
            self.seen.popleft()

    @property
    def per_s(self) -> float | None:
        """None before it was looked at for a second."""
        (first, before), (last, after) = self.seen[0], self.seen[-1]
        return None if last - first < 1 else (after - before) / (last - first)


@dataclass(frozen=True, slots=True)
class CampaignShown:
    """A campaign as the page shows it."""

    campaign: Campaign
    status: Status | None
    """None: its requests have expired."""
    per_s: float | None

    @property
    def state(self) -> str:
        if self.status is not None:
            return self.status.state
        return "cancelled" if self.campaign.state == CANCELLED else "over: its records expired"

    @property
    def done(self) -> int:
        return 0 if self.status is None else self.status.published + self.status.dropped

    @property
    def share(self) -> float:
        return min(1.0, self.done / self.campaign.requests) if self.campaign.requests else 1.0

    @property
    def is_over(self) -> bool:
        return self.status is None or self.status.is_over

    @property
    def left_s(self) -> float | None:
        """Seconds until it is done at this pace; None while that is not known."""
        if self.is_over or self.per_s is None or self.campaign.state != RUNNING:
            return None
        left = self.campaign.requests - self.done
        return left / self.per_s if self.per_s > 0 else math.inf

    @property
    def commands(self) -> tuple[tuple[str, str], ...]:
        """What may be done with it, and the command."""
        if self.is_over or self.campaign.state == CANCELLED:
            return ()
        name = self.campaign.id
        going = (
            ("go on", f"reviewmesh reprocess resume {name}")
            if self.campaign.state == PAUSED
            else ("pause", f"reviewmesh reprocess pause {name}")
        )
        return going, ("cancel", f"reviewmesh reprocess cancel {name}")

    @property
    def offers(self) -> tuple[OfferedAction, ...]:
        """What may be done with it on the page."""
        if not self.commands:
            return ()
        # The state that this page shows: a command for another one is refused.
        query = urlencode({"campaign": self.campaign.id, "state": self.campaign.state})
        going = RESUME if self.campaign.state == PAUSED else PAUSE
        return tuple(
            OfferedAction(
                f"{action.capitalize()} {self.campaign.id}", f"/campaigns/{action}?{query}", NEEDS
            )
            for action in (going, CANCEL)
        )


class CampaignWatch:
    """Reads on, and measures the pace of each campaign. One thread at a time."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._progress = CampaignProgress()
        self._paces: dict[str, Pace] = {}

    def read(self) -> list[CampaignShown]:
        """Newest first. Raises CannotReach and KafkaException."""
        return self.seen(self._progress.statuses(self._mesh.connection()), time.monotonic())

    def seen(self, found: Found, now: float) -> list[CampaignShown]:
        shown = []
        for campaign, status in reversed(found):
            per_s = None
            if status is not None:
                pace = self._paces.setdefault(campaign.id, Pace())
                pace.add(now, status.published + status.dropped)
                per_s = pace.per_s
            shown.append(CampaignShown(campaign, status, per_s))
        self._paces = {
            campaign.id: self._paces[campaign.id]
            for campaign, status in found
            if status is not None
        }
        return shown


def kept_campaigns(
    mesh: Mesh, log: structlog.stdlib.BoundLogger
) -> KeptReading[list[CampaignShown]]:
    return KeptReading(CampaignWatch(mesh).read, log)


def routes_of(
    kept: KeptReading[list[CampaignShown]], picture: Callable[[], Picture], templates: Templates
) -> list[Route]:
    return MovingScreen(
        "campaigns", templates, lambda query: shown(kept, picture(), query)
    ).routes()


def shown(
    kept: KeptReading[list[CampaignShown]], picture: Picture, query: Mapping[str, str]
) -> dict[str, Any]:
    reading = kept.reading()
    wanted = query.get("campaign", "")
    found = reading.value or []
    return {
        "reading": reading,
        "campaign": wanted,
        "campaigns": [item for item in found if wanted in ("", item.campaign.id)],
        "outcomes": outcomes_of(picture),
    }


def outcomes_of(picture: Picture) -> list[tuple[str, Mapping[str, int]]]:
    """By task, what the joiners did with answers since they started, where there were any."""
    metric = "reviewmesh_reprocessed_answers_total"
    samples = [sample for state in picture.processes for sample in state.found(metric)]
    tasks = sorted({sample.labels.get("task", "") for sample in samples})

    def counts(task: str) -> dict[str, int]:
        return {
            reason: _sum(
                sample.value
                for sample in samples
                if (sample.labels.get("task"), sample.labels.get("outcome")) == (task, reason)
            )
            for reason in REASONS
        }

    found = [(task, counts(task)) for task in tasks]
    return [(task, counted) for task, counted in found if any(counted.values())]


def _sum(values: Iterable[float]) -> int:
    return int(sum(values))
