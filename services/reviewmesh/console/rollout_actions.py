"""Commands for a rollout: the page says what one would do, and the judge carries it out or refuses.

A command is given for the epoch that the screen showed. So a second press, or one on an old page,
is refused by the judge and changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from reviewmesh.console.acting import Acting, Facts, WrongChoice, form_of
from reviewmesh.console.kept import KeptReading
from reviewmesh.console.mesh import Mesh
from reviewmesh.console.moving import Templates
from reviewmesh.console.rollouts import NEEDS, Epochs, following_stage
from reviewmesh.enrich.rollouts import READY
from reviewmesh.judge.bounds import BoundsProblem
from reviewmesh.judge.rollout import ABORT, RolloutRecord
from reviewmesh.query.errors import NotCarriedOut
from reviewmesh.query.rollouts import give, standing
from reviewmesh_schemas.names import TASKS

EPOCH_DIGITS = 15


@dataclass(frozen=True, slots=True)
class RolloutCommand:
    """What was chosen, and the epoch that was looked at."""

    action: str
    task: str
    epoch: int

    @property
    def words(self) -> str:
        return f"{self.action.capitalize()} the rollout of {self.task}"


def chosen(action: str, fields: Mapping[str, str]) -> RolloutCommand:
    """Raises WrongChoice."""
    task, epoch = fields.get("task", ""), fields.get("epoch", "")
    if task not in TASKS:
        raise WrongChoice(f"expected task to be one of {', '.join(TASKS)}, got {task!r:.80}")
    if not (epoch.isascii() and epoch.isdigit() and len(epoch) <= EPOCH_DIGITS):
        raise WrongChoice(f"expected the epoch that the rollout had on its page, got {epoch!r:.80}")
    return RolloutCommand(action, task, int(epoch))


def effect_of(command: RolloutCommand, record: RolloutRecord) -> str:
    """What it would do to this rollout."""
    if command.action == ABORT:
        return (
            "The rollout ends: the candidate gets no more reviews, and the task's own workers "
            "answer all of them."
        )
    if record.state == READY:
        return (
            "The rollout ends: the candidate gets no more reviews. If it is to serve, promote it "
            "first."
        )
    try:
        following = following_stage(record, record.parsed_bounds())
    except BoundsProblem as error:
        return f"The judge would refuse it, because the bounds cannot be read: {error}"
    return f"The judge is not waited for. Next, {following}."


def routes_of(
    mesh: Mesh, kept: KeptReading[Epochs], acting: Acting, templates: Templates
) -> list[Route]:
    pages = _RolloutActions(mesh, kept, acting, templates)
    return [
        Route(f"/rollouts/{action}", partial(handle, action), methods=[method])
        for action in NEEDS
        for method, handle in (("GET", pages.ask), ("POST", pages.act))
    ]


class _RolloutActions:
    def __init__(
        self, mesh: Mesh, kept: KeptReading[Epochs], acting: Acting, templates: Templates
    ) -> None:
        self._mesh = mesh
        self._kept = kept
        self._acting = acting
        self._page = templates.page

    async def ask(self, action: str, request: Request) -> Response:
        """What would be done; does nothing."""
        command = chosen(action, request.query_params)
        record = await run_in_threadpool(self._last, command.task)
        changed = record.epoch != command.epoch or not record.is_running
        effect = effect_of(command, record)
        return self._answer(request, command, record, changed=changed, effect=effect)

    async def act(self, action: str, request: Request) -> Response:
        name, needs = f"{action} rollout", NEEDS[action]
        if (refusal := self._acting.refusal(request, name, needs)) is not None:
            return refusal
        command = chosen(action, await form_of(request))
        about: Facts = {"task": command.task, "epoch": command.epoch}
        try:
            with self._acting.noted(request, name, about) as came_of:
                record = await run_in_threadpool(self._give, command)
                came_of |= {"rollout": record.rollout, "state": record.state}
        except NotCarriedOut as error:
            return self._answer(request, command, None, 409, refused=str(error))
        return self._answer(request, command, record, done=True)

    def _give(self, command: RolloutCommand) -> RolloutRecord:
        return give(self._mesh.connection(), command.task, command.action, command.epoch)

    def _last(self, task: str) -> RolloutRecord:
        """Raises CannotReach where nothing was read yet."""
        epochs = self._kept.reading().needed("the rollouts").get(task)
        return epochs[-1] if epochs else RolloutRecord(task)

    def _answer(
        self,
        request: Request,
        command: RolloutCommand,
        record: RolloutRecord | None,
        status: int = 200,
        **shown: Any,
    ) -> Response:
        return self._page(
            request,
            "rollout_action.html",
            status,
            command=command,
            needs=NEEDS[command.action],
            instead=f"reviewmesh rollout {command.action} --task {command.task} "
            f"--epoch {command.epoch}",
            standing="" if record is None else standing(record),
            **{"changed": False, "effect": "", "refused": "", "done": False, **shown},
        )
