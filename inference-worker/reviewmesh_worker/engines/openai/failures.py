"""What a failed request means: for the review, for the next request, for the whole endpoint. Pure.

What a provider writes may hold a part of the key or of the review: of a refused key only the status
is told, of other errors the first words, without the key.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

import httpx2
import openai

_TRANSIENT: Final = frozenset({408, 409, 425, 429})
_MAX_MESSAGE: Final = 300
_OVER_QUOTA: Final = "insufficient_quota"
_NO_CONNECTION: Final = (httpx2.ConnectError, httpx2.ConnectTimeout)
# There is no such path or model, or not for a POST, or no longer.
_NOT_THERE: Final = frozenset({404, 405, 410})


@dataclass(frozen=True, slots=True)
class ProviderFailure:
    code: str
    message: str
    retryable: bool
    """Whether another request may succeed."""
    unavailable: bool = False
    """Whether the endpoint would refuse any review, or cannot be reached."""
    pause_s: float | None = None
    """How long the endpoint wants no requests."""


def failure_of(error: Exception, key: str, now: float) -> ProviderFailure:
    """`now` is the time in seconds since the epoch."""
    if isinstance(error, openai.APIStatusError):
        return _of_status(error, key, now)
    if isinstance(error.__cause__, _NO_CONNECTION):
        cause = type(error.__cause__).__name__
        return ProviderFailure("UNAVAILABLE", f"cannot be reached: {cause}", True, unavailable=True)
    if isinstance(error, (openai.APITimeoutError, TimeoutError)):
        return ProviderFailure(
            "UNAVAILABLE", "no answer within the request's timeout", retryable=True
        )
    # A connection that broke, or a body that is not the API's.
    cause = type(error.__cause__ or error).__name__
    return ProviderFailure("UNAVAILABLE", f"no whole answer: {cause}", retryable=True)


def _of_status(error: openai.APIStatusError, key: str, now: float) -> ProviderFailure:
    status = error.status_code
    if status in (401, 403):
        message = f"refuses the key: status {status}; check REVIEWMESH_OPENAI__API_KEY"
        return ProviderFailure("UNAVAILABLE", message, False, unavailable=True)
    said = _said(error, key)
    if error.code == _OVER_QUOTA or error.type == _OVER_QUOTA or status == 402:
        return ProviderFailure(
            "UNAVAILABLE", f"the account's quota is used up: {said}", False, True
        )
    if 300 <= status < 400:
        # It is not followed: the text would go to a host that nobody named.
        message = f"sends requests elsewhere: status {status}; check REVIEWMESH_OPENAI__BASE_URL"
        return ProviderFailure("UNAVAILABLE", message, False, unavailable=True)
    if status in _NOT_THERE:
        message = f"does not have the model or the path: {said}"
        return ProviderFailure("UNAVAILABLE", message, False, unavailable=True)
    if status in _TRANSIENT or status >= 500:
        code = "RESOURCE_EXHAUSTED" if status == 429 else "UNAVAILABLE"
        pause = retry_after_s(error.response.headers.get("retry-after", ""), now)
        return ProviderFailure(code, said, True, pause_s=pause)
    if (asked := _setting_refused(error)) is not None:
        message = f"does not take {asked}, which every request has: {said}"
        return ProviderFailure("UNAVAILABLE", message, False, unavailable=True)
    return ProviderFailure("INVALID_ARGUMENT", said, retryable=False)


def _setting_refused(error: openai.APIStatusError) -> str | None:
    """The parameter of every request that the endpoint does not support."""
    ours = ("response_format", "json_schema", "max_completion_tokens", "temperature")
    told = f"{error.param or ''} {error.message}"
    return next((name for name in ours if name in told), None)


def retry_after_s(header: str, now: float) -> float | None:
    """Seconds until the time that `Retry-After` gives, as seconds or as a date (RFC 9110)."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - now
        except ValueError:
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _said(error: openai.APIStatusError, key: str) -> str:
    words = " ".join(error.message.split())
    if key:
        words = words.replace(key, "…")
    return f"status {error.status_code}, {encodable(words[:_MAX_MESSAGE])}"


def encodable(words: str) -> str:
    """JSON can name halves of surrogate pairs, which no message of the worker can hold."""
    return words.encode("utf-8", "backslashreplace").decode()
