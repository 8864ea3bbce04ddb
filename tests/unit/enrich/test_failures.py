"""What a failed call means, by its status, its words and its trailing metadata."""

from __future__ import annotations

import grpc
import pytest

from reviewmesh.enrich.failures import FailureKind, failure_of
from reviewmesh_protos.metadata import NOT_STARTED, RETRY_AFTER_MS

Code = grpc.StatusCode
NO_CONNECTION = "failed to connect to all addresses; last error: Connection refused"


@pytest.mark.parametrize(
    ("code", "details", "trailing", "kind"),
    [
        (Code.RESOURCE_EXHAUSTED, "full", {RETRY_AFTER_MS: "250"}, FailureKind.FULL),
        (Code.RESOURCE_EXHAUSTED, "message larger than max", {}, FailureKind.TOO_LARGE),
        (Code.RESOURCE_EXHAUSTED, "full", {RETRY_AFTER_MS: "soon"}, FailureKind.TOO_LARGE),
        (Code.INVALID_ARGUMENT, "expected 1 to 512 items, got 0", {}, FailureKind.INVALID),
        (Code.UNAVAILABLE, "draining", {NOT_STARTED: "draining"}, FailureKind.NOT_STARTED),
        (Code.UNAVAILABLE, "loading", {NOT_STARTED: "loading"}, FailureKind.NOT_STARTED),
        (Code.UNAVAILABLE, NO_CONNECTION, {}, FailureKind.NOT_STARTED),
        (Code.UNAVAILABLE, "DNS resolution failed", {}, FailureKind.NOT_STARTED),
        (Code.UNAVAILABLE, "the engine died: no memory", {}, FailureKind.BROKEN),
        (Code.UNAVAILABLE, "Socket closed", {}, FailureKind.BROKEN),
        (Code.CANCELLED, "CANCELLED", {}, FailureKind.BROKEN),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", {}, FailureKind.TIMED_OUT),
        (Code.INTERNAL, "a bug", {}, FailureKind.FAILED),
        (Code.UNKNOWN, "", {}, FailureKind.FAILED),
    ],
)
def test_every_end_of_a_call_has_one_meaning(
    code: grpc.StatusCode, details: str, trailing: dict[str, str], kind: FailureKind
) -> None:
    error = grpc.aio.AioRpcError(
        code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing.items()), details=details
    )
    failure = failure_of(error)
    assert failure.kind is kind
    assert failure.reason == f"{code.name}: {details}"
    assert failure.retry_after_s == (0.25 if kind is FailureKind.FULL else 0)
