"""Commands for a campaign that was begun: pause, resume, cancel.

The command line and the console give them, maybe at the same time.
"""

from __future__ import annotations

from reviewmesh.clock import milliseconds, wall_clock
from reviewmesh.enrich.campaigns import CANCELLED, PAUSED, RUNNING
from reviewmesh.query.campaigns import (
    Campaign,
    Matches,
    campaign_named,
    change,
    send_missing,
    unfinished_of_others,
)
from reviewmesh.query.connection import Connection
from reviewmesh.query.errors import NotCarriedOut
from reviewmesh.query.where.errors import BadCondition
from reviewmesh.query.where.matching import matcher
from reviewmesh.query.where.reading import read_condition

PAUSE, RESUME, CANCEL = "pause", "resume", "cancel"
LEADS_TO = {PAUSE: PAUSED, RESUME: RUNNING, CANCEL: CANCELLED}
"""By command, the state of the campaign after it."""


def steer(connection: Connection, name: str, command: str, seen: str | None = None) -> Campaign:
    """Carry out a command; after a resume, `send_rest` sends what was not sent.

    `seen`: the state that somebody looked at before; None: any is fine. Raises NotCarriedOut,
    NotFound and CannotReach.
    """
    campaign = campaign_named(connection, name)
    if campaign.state == CANCELLED:
        raise NotCarriedOut(
            f"{name} is cancelled; begin a new one"
            if command == RESUME
            else f"{name} is cancelled already"
        )
    if seen not in (None, campaign.state):
        raise NotCarriedOut(
            f"{name} is {campaign.state.lower()}, and the command was given for one that is "
            f"{seen.lower()}: it changed meanwhile; look at it again and decide again"
        )
    if command == RESUME:
        refuse_beside_others(connection, campaign.task)
        # One that cannot be read leaves the campaign as it is.
        _matches(campaign)
    return change(connection, campaign, LEADS_TO[command])


def send_rest(connection: Connection, campaign: Campaign) -> int:
    """Send the requests that are not there yet, after a resume; returns how many.

    It takes long, and comes after the change of state: what somebody else commands meanwhile is
    newer. Raises CannotReach.
    """
    return send_missing(connection, campaign, _matches(campaign))


def refuse_beside_others(connection: Connection, task: str) -> None:
    """Raises NotCarriedOut while a campaign of another task goes on."""
    if (other := unfinished_of_others(connection, task)) is not None:
        raise NotCarriedOut(
            f"campaign {other.id} is not over: two at once drop each other's answers where they "
            "have the same reviews; wait for it (`reviewmesh reprocess status`), or cancel it with "
            f"`reviewmesh reprocess cancel {other.id}`"
        )


def _matches(campaign: Campaign) -> Matches:
    try:
        # Relative times in it became absolute ones when it was begun.
        condition = read_condition(campaign.where, campaign.task, milliseconds(wall_clock()))
    except BadCondition as error:
        raise NotCarriedOut(f"the condition of {campaign.id}: {error}") from error
    return matcher(condition)
