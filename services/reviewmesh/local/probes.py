"""Asks each process of an embedded mesh how it is: supervisord knows only that it lives."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException

from reviewmesh.local import broker, programs, registry
from reviewmesh.local.ports import HOST, is_free
from reviewmesh.local.state import StackInfo

TIMEOUT_S = 2.0
LONGEST_ANSWER = 64 * 1024


@dataclass(frozen=True)
class Health:
    """What a process says of itself."""

    ready: bool
    words: str
    """For people: `ready`, what it waits for, or that it hangs."""


READY = Health(True, "ready")
Check = Callable[[], Health]


def checks(info: StackInfo) -> dict[str, Check]:
    """How to ask each process; the backing ones first."""
    found: dict[str, Check] = {
        "broker": partial(_broker, info.ports["broker"], info.bootstrap_servers),
        "registry": partial(_registry, info.ports["registry"], info.registry_url),
    }
    if info.mesh:
        for name in (programs.WORKER, *programs.SERVICES):
            found[name] = partial(of_http, info.ports[name])
    return found


def of_http(port: int) -> Health:
    """A service or a worker, by its /healthz and /readyz."""
    if is_free(port):
        return Health(False, "does not listen yet")
    alive, words = _get(port, "/healthz")
    if alive is None:
        return Health(False, f"hangs: {words}")
    if not alive:
        return Health(False, f"hangs: its loop stands still; {words}".rstrip("; "))
    ready, words = _get(port, "/readyz")
    if ready is None:
        return Health(False, f"hangs: {words}")
    return READY if ready else Health(False, words or "not ready")


def _broker(port: int, bootstrap_servers: str) -> Health:
    if is_free(port):
        return Health(False, "does not listen yet")
    return _answering(broker.is_ready(bootstrap_servers, TIMEOUT_S))


def _registry(port: int, url: str) -> Health:
    if is_free(port):
        return Health(False, "does not listen yet")
    return _answering(registry.is_ready(url, TIMEOUT_S))


def _answering(answers: bool) -> Health:
    return READY if answers else Health(False, f"does not answer within {TIMEOUT_S:g} s")


def _get(port: int, path: str) -> tuple[bool | None, str]:
    """Whether the status is 200, and what the answer says; None where none came."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=TIMEOUT_S) as response:
            return response.status == 200, ""
    except urllib.error.HTTPError as error:
        with error:
            return False, _reason(error.read(LONGEST_ANSWER))
    except (OSError, HTTPException):
        return None, f"{path} does not answer within {TIMEOUT_S:g} s"


def _reason(body: bytes) -> str:
    """What the process waits for, in its own words."""
    try:
        answer = json.loads(body)
        return str(answer.get("waiting_for") or answer.get("state") or "")
    except (ValueError, AttributeError):
        return ""
