"""The HTTP endpoints of a worker: /metrics, /healthz, /readyz."""

from __future__ import annotations

from collections.abc import Callable

from reviewmesh_kit import http_server
from reviewmesh_kit.http_server import BoundedServer, json_answer
from reviewmesh_kit.settings import HttpSettings


def serve(
    settings: HttpSettings, state: Callable[[], str], reason: Callable[[], str]
) -> BoundedServer:
    """Serve in a thread of its own; the caller shuts it down. Raises OSError.

    `state` returns loading, serving, draining or unavailable, `reason` why it is the last one.
    """

    def told() -> dict[str, str]:
        why = reason()
        return {"state": state()} | ({"reason": why} if why else {})

    return http_server.serve(
        settings,
        {
            "/healthz": lambda: json_answer(True, told()),
            "/readyz": lambda: json_answer(state() == "serving", told()),
        },
    )
