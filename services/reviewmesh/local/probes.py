"""Checks the health of each process of an embedded mesh; supervisord knows only that it lives."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException

from reviewmesh.local import broker, programs, registry
from reviewmesh.local.ports import HOST, listens
from reviewmesh.local.state import StackInfo
from reviewmesh.settings import RegistrySettings

TIMEOUT_S = 2.0
LONGEST_ANSWER = 64 * 1024


@dataclass(frozen=True)
class Health:
    """The health that a process reports."""

    ready: bool
    words: str
    """For people: `ready`, what it waits for, or that it hangs."""


# States of a worker, in words.
STATES = {"loading": "loads its model", "draining": "finishes its work and ends"}
HealthCheck = Callable[[], Health]


def checks(info: StackInfo) -> dict[str, HealthCheck]:
    """A check for each process; brokers and registry first."""
    found: dict[str, HealthCheck] = {
        name: partial(_broker, info.ports[name], info.kafka())
        for name in programs.brokers_of(info.ports)
    }
    found["registry"] = partial(_registry, info.ports["registry"], info.registry())
    if info.mesh:
        watched = (programs.TRACER, programs.INSIGHTS, programs.CONSOLE)
        for name in (programs.WORKER, *programs.SERVICES, *watched):
            for each in programs.replicas_of(info.ports, name):
                found[each] = partial(of_http, info.ports[each])
    return found


def of_http(port: int) -> Health:
    """A service or a worker, by its /healthz and /readyz."""
    if not listens(port, TIMEOUT_S):
        return Health(False, "does not listen")
    alive, words = _get(port, "/healthz")
    if not alive:
        return Health(False, f"hangs: {words}" if words else "hangs: its loop stands still")
    ready, words = _get(port, "/readyz")
    if ready:
        # Ready, but something outside delays its records.
        return Health(True, f"ready; {words}" if words else "ready")
    return Health(False, words or "not ready")


def _broker(port: int, client: Mapping[str, str]) -> Health:
    return _answering(port, lambda: broker.is_ready(f"{HOST}:{port}", client, TIMEOUT_S))


def _registry(port: int, settings: RegistrySettings) -> Health:
    return _answering(port, lambda: registry.is_ready(settings, TIMEOUT_S))


def _answering(port: int, answers: Callable[[], bool]) -> Health:
    if not listens(port, TIMEOUT_S):
        return Health(False, "does not listen")
    return Health(True, "ready") if answers() else Health(False, f"no answer in {TIMEOUT_S:g} s")


def _get(port: int, path: str) -> tuple[bool, str]:
    """Whether the status is 200, and what the process waits for."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=TIMEOUT_S) as response:
            return True, _waiting_for(response.read(LONGEST_ANSWER))
    except urllib.error.HTTPError as error:
        with error:
            return False, _waiting_for(error.read(LONGEST_ANSWER))
    except (OSError, HTTPException):
        return False, f"{path} gives no answer in {TIMEOUT_S:g} s"


def _waiting_for(body: bytes) -> str:
    """From a service's `waiting_for`, or a worker's `state`."""
    try:
        answer = json.loads(body)
        return str(answer.get("waiting_for") or STATES.get(answer.get("state"), ""))
    except (ValueError, AttributeError):
        return ""
