"""What calls to a worker tell beside gRPC's own status codes: trailing metadata, codes of items."""

from __future__ import annotations

from typing import Final

RETRY_AFTER_MS: Final = "retry-after-ms"
"""With RESOURCE_EXHAUSTED: when the worker expects to have room. Without it, gRPC itself refused a
message that is too large."""
NOT_STARTED: Final = "reviewmesh-not-started"
"""With UNAVAILABLE: the worker's state, such as loading or draining. It has not begun the call, so
sending the items elsewhere is no second attempt."""
OVER_BOUND: Final = "OVER_BOUND"
"""Code of an item's error: it might take more than the call allows, and was not sent to the
provider."""
