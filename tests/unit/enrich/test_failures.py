"""What a failed call means, by its status, its words and its trailing metadata."""

from __future__ import annotations

import grpc
import pytest

from reviewmesh.enrich.failures import Kind, failure_of
from reviewmesh_protos.metadata import NOT_STARTED, RETRY_AFTER_MS

Code = grpc.StatusCode
NO_CONNECTION = "failed to connect to all addresses; last error: Connection refused"


@pytest.mark.parametrize(
    ("code", "details", "trailing", "kind"),
    [
        (Code.RESOURCE_EXHAUSTED, "full", {RETRY_AFTER_MS: "250"}, Kind.FULL),
        (Code.RESOURCE_EXHAUSTED, "message larger than max", {}, Kind.TOO_LARGE),
        (Code.RESOURCE_EXHAUSTED, "full", {RETRY_AFTER_MS: "soon"}, Kind.TOO_LARGE),
        (Code.INVALID_ARGUMENT, "expected 1 to 512 items, got 0", {}, Kind.INVALID),
        (Code.UNAVAILABLE, "draining", {NOT_STARTED: "draining"}, Kind.NOT_STARTED),
        (Code.UNAVAILABLE, "loading", {NOT_STARTED: "loading"}, Kind.NOT_STARTED),
        (Code.UNAVAILABLE, NO_CONNECTION, {}, Kind.NOT_STARTED),
        (Code.UNAVAILABLE, "DNS resolution failed", {}, Kind.NOT_STARTED),
        (Code.UNAVAILABLE, "the engine died: no memory", {}, Kind.BROKEN),
        (Code.UNAVAILABLE, "Socket closed", {}, Kind.BROKEN),
        (Code.CANCELLED, "CANCELLED", {}, Kind.BROKEN),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", {}, Kind.NOT_ANSWERED),
        (Code.INTERNAL, "a bug", {}, Kind.FAILED),
        (Code.UNKNOWN, "", {}, Kind.FAILED),
    ],
)
def test_every_end_of_a_call_has_one_meaning(
    code: grpc.StatusCode, details: str, trailing: dict[str, str], kind: Kind
) -> None:
    error = grpc.aio.AioRpcError(
        code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing.items()), details=details
    )
    failure = failure_of(error)
    assert failure.kind is kind
    assert failure.reason == f"{code.name}: {details}"
    assert failure.retry_after_s == (0.25 if kind is Kind.FULL else 0)
