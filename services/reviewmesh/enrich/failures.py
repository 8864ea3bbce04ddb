"""Classifies failed calls by their gRPC status. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import grpc

from reviewmesh_protos.metadata import NOT_STARTED, RETRY_AFTER_MS

# A failed and a broken connection have the same status code, so the message decides.
NO_CONNECTION = ("failed to connect", "name resolution", "dns")


class FailureKind(Enum):
    """Kinds of failed calls, one for each way to handle them."""

    FULL = "the worker has no room"
    TOO_LARGE = "the message is larger than gRPC takes"
    INVALID = "the worker refuses an item"
    NOT_STARTED = "no worker has begun the call"
    BROKEN = "the call broke in flight"
    TIMED_OUT = "the deadline came first"
    FAILED = "the call failed as a whole"


@dataclass(frozen=True, slots=True)
class CallFailure:
    kind: FailureKind
    reason: str
    retry_after_s: float = 0.0
    """For FULL: when the worker expects to have room."""


def failure_of(error: grpc.aio.AioRpcError) -> CallFailure:
    code, details = error.code(), error.details() or ""
    trailing = {key: str(value) for key, value in error.trailing_metadata() or ()}
    reason = f"{code.name}: {details}"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        seconds = _retry_after_s(trailing)
        kind = FailureKind.TOO_LARGE if seconds is None else FailureKind.FULL
        return CallFailure(kind, reason, seconds or 0.0)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return CallFailure(FailureKind.INVALID, reason)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        no_connection = any(words in details.lower() for words in NO_CONNECTION)
        not_started = NOT_STARTED in trailing or no_connection
        return CallFailure(FailureKind.NOT_STARTED if not_started else FailureKind.BROKEN, reason)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return CallFailure(FailureKind.TIMED_OUT, reason)
    return CallFailure(FailureKind.FAILED, reason)


def _retry_after_s(trailing: dict[str, str]) -> float | None:
    try:
        return max(0.01, int(trailing[RETRY_AFTER_MS]) / 1000)
    except (KeyError, ValueError):
        return None
