"""The HTTP endpoints of a service: /metrics, /healthz, /readyz, /version."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from reviewmesh_kit import http_server
from reviewmesh_kit.http_server import BoundedServer, HttpAnswer, json_answer
from reviewmesh_kit.settings import HttpSettings

STALLED_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class ReadyzState:
    """The content of /readyz. Only `waiting_for` makes a process unready. Records delayed from
    outside
    (`held_up_by`) do not, so that they do not block a rollout."""

    waiting_for: str
    held_up_by: str = ""

    def body(self) -> dict[str, object]:
        reasons = [reason for reason in (self.waiting_for, self.held_up_by) if reason]
        return {"ready": not self.waiting_for, "waiting_for": "; ".join(reasons)}


def serve(
    settings: HttpSettings, heartbeat: Callable[[], float], state: Callable[[], ReadyzState]
) -> BoundedServer:
    """Serve in a thread of its own; the caller shuts it down. Raises OSError.

    `heartbeat` gives the monotonic second of the loop's last turn.
    """

    def healthz() -> HttpAnswer:
        alive = time.monotonic() - heartbeat() < STALLED_AFTER_S
        return json_answer(alive, {"alive": alive, "waiting_for": state().body()["waiting_for"]})

    def readyz() -> HttpAnswer:
        now = state()
        return json_answer(not now.waiting_for, now.body())

    answers = {"/healthz": healthz, "/readyz": readyz}
    return http_server.serve(settings, answers)
