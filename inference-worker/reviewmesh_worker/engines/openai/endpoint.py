"""Requests to the endpoint: within its limits, with a bounded number of retries."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from dataclasses import dataclass, replace
from typing import Any, Final

import httpx2
import openai
from openai.types.shared_params import ResponseFormatJSONSchema

from reviewmesh_worker.engines.interface import EngineLoadError, EngineUnavailable
from reviewmesh_worker.engines.lanes import Lane
from reviewmesh_worker.engines.openai.failures import ProviderFailure, failure_of
from reviewmesh_worker.engines.openai.http import StrangersClient
from reviewmesh_worker.engines.openai.limits import Places, Rate
from reviewmesh_worker.engines.settings import OpenAISettings

_LOG = logging.getLogger(__name__)
_CONNECT_S: Final = 5.0
_FIRST_BACKOFF_S: Final = 0.5
_LONGEST_BACKOFF_S: Final = 8.0
_LONGEST_PAUSE_S: Final = 30.0
# An endpoint may name any time; after this one it is asked again.
_LONGEST_ASKED_S: Final = 3_600.0
OUT_S: Final = 10.0
"""How long calls are refused once the endpoint is out of service; doubles while it stays so."""
_LONGEST_OUT_S: Final = 60.0
FAILED_IN_A_ROW: Final = 5
"""After so many reviews in a row without an answer, the endpoint is out of service."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A chat completion as it came, unchecked, or why there is none."""

    completion: Any | ProviderFailure
    requests: int
    queue_s: float
    """Seconds of everything but the last request."""


class Endpoint:
    """To be used from one event loop.

    An endpoint that refuses the key, cannot be reached or answered none of the last reviews is out
    of service for a while: calls go elsewhere. Then one review at a time tries it, until one is
    answered.
    """

    def __init__(self, settings: OpenAISettings) -> None:
        self._settings = settings
        self._key = read_key(settings)
        self._http = StrangersClient(settings.max_concurrency)
        self._client = self._connect()
        self._places = Places(settings.max_concurrency)
        self._rate = Rate(settings.requests_per_minute, settings.tokens_per_minute)
        self._at_endpoint = 0
        self._asked = 0
        self._too_many = 0
        self._failed = 0
        self._reason = ""
        self._out_s = 0.0
        self._out_until = 0.0
        self._trial = asyncio.Lock()

    @property
    def running(self) -> int:
        """Requests at the endpoint."""
        return self._at_endpoint

    @property
    def waiting(self) -> int:
        """Texts that wait for a place, for the rate limit or for a retry."""
        return self._asked - self._at_endpoint

    def unavailable(self) -> str:
        """Why calls are refused; empty once the next call may try."""
        return self._reason if time.monotonic() < self._out_until else ""

    async def ask(
        self, prompt: str, form: ResponseFormatJSONSchema, lane: Lane, max_requests: int
    ) -> Reply:
        """One review's answer. Raises EngineUnavailable where any review would be refused."""
        self._asked += 1
        try:
            if self._reason:
                async with self._trial:
                    if reason := self.unavailable():
                        raise EngineUnavailable(reason)
                    if self._reason:
                        return await self._within(prompt, form, lane, max_requests)
            return await self._within(prompt, form, lane, max_requests)
        finally:
            self._asked -= 1

    async def close(self) -> None:
        await self._http.aclose()

    def answered(self, tokens: int) -> None:
        """Note the tokens of an answer."""
        self._rate.answered(tokens)

    # -- one review ----------------------------------------------------------------------------

    async def _within(
        self, prompt: str, form: ResponseFormatJSONSchema, lane: Lane, max_requests: int
    ) -> Reply:
        """Within the time for one review. Raises EngineUnavailable."""
        began = time.monotonic()
        tries = _Tries(max_requests)
        try:
            async with asyncio.timeout(self._settings.give_up_s):
                outcome = await self._ask(prompt, form, lane, tries)
        except TimeoutError:
            last = tries.last or ProviderFailure("RESOURCE_EXHAUSTED", "no request was sent", True)
            message = f"gave up after {self._settings.give_up_s:g} s: {last.message}"
            outcome = replace(last, message=message, retryable=True)
        try:
            self._judge(outcome)
        except EngineUnavailable as error:
            error.requests = tries.made
            raise
        return Reply(outcome, tries.made, time.monotonic() - began - tries.seconds)

    async def _ask(
        self, prompt: str, form: ResponseFormatJSONSchema, lane: Lane, tries: _Tries
    ) -> Any | ProviderFailure:
        while True:
            async with self._places.place(lane):
                if (pause_s := self._rate.pause_s) > self._settings.give_up_s:
                    message = f"the endpoint wants no requests for {pause_s:.0f} s"
                    return ProviderFailure("RESOURCE_EXHAUSTED", message, retryable=True)
                await self._rate.turn(len(prompt.encode()))
                outcome = await self._send(prompt, form, tries)
            if not isinstance(outcome, ProviderFailure) or not outcome.retryable or tries.over:
                return outcome
            await asyncio.sleep(_backoff_s(tries.made, _LONGEST_BACKOFF_S))

    async def _send(
        self, prompt: str, form: ResponseFormatJSONSchema, tries: _Tries
    ) -> Any | ProviderFailure:
        settings = self._settings
        began = time.monotonic()
        tries.made += 1
        self._at_endpoint += 1
        try:
            # The client's own timeout is for each read, not for all of them.
            async with asyncio.timeout(settings.timeout_s):
                completion: Any = await self._client.chat.completions.create(
                    model=settings.model,
                    messages=[{"role": "user", "content": prompt}],
                    response_format=form,
                    max_completion_tokens=settings.max_completion_tokens,
                    temperature=_omitted_if_none(settings.temperature),
                )
        # The client may raise anything for a body that is not the API's.
        except Exception as error:  # noqa: BLE001
            tries.last = failure_of(error, self._key, time.time())
            self._wait_if_asked(tries.last)
            return tries.last
        else:
            self._too_many = 0
            return completion
        finally:
            self._at_endpoint -= 1
            tries.seconds = time.monotonic() - began

    def _wait_if_asked(self, failure: ProviderFailure) -> None:
        """All reviews wait after a 429, not only the one that got it."""
        pause_s = failure.pause_s
        if failure.code == "RESOURCE_EXHAUSTED":
            self._too_many += 1
            if pause_s is None:
                pause_s = _backoff_s(self._too_many, _LONGEST_PAUSE_S)
        if pause_s is not None:
            self._rate.pause(min(pause_s, _LONGEST_ASKED_S))

    # -- the endpoint --------------------------------------------------------------------------

    def _judge(self, outcome: Any | ProviderFailure) -> None:
        """Update the endpoint's state from a review's outcome. Raises EngineUnavailable."""
        if not isinstance(outcome, ProviderFailure) or outcome.code == "INVALID_ARGUMENT":
            self._answers()
        elif outcome.unavailable:
            self._out(outcome.message)
            self._read_key_again()
            raise EngineUnavailable(self._reason)
        elif outcome.code == "UNAVAILABLE":
            self._failed += 1
            if self._reason or self._failed >= FAILED_IN_A_ROW:
                # The attempt counts for this review: the endpoint may fail only on it.
                self._out(f"answers no more: {outcome.message}")

    def _out(self, why: str) -> None:
        reason = f"the endpoint {self._settings.base_url} {why}"
        if reason != self._reason:
            _LOG.warning("%s; calls go elsewhere until it answers", reason)
        # Reviews that were sent together fail together: count that as one failure.
        if time.monotonic() >= self._out_until:
            self._out_s = min(max(2 * self._out_s, OUT_S), _LONGEST_OUT_S)
            self._out_until = time.monotonic() + self._out_s
        self._reason = reason

    def _answers(self) -> None:
        if self._reason:
            _LOG.warning("the endpoint %s answers again", self._settings.base_url)
        self._failed = 0
        self._reason, self._out_s, self._out_until = "", 0.0, 0.0

    def _read_key_again(self) -> None:
        """A key in a file may have been replaced since."""
        try:
            key = read_key(self._settings)
        except EngineLoadError as error:
            _LOG.warning("the old key stays in use: %s", error)
            return
        if key != self._key:
            self._key = key
            self._client = self._connect()

    def _connect(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            # Your own server may need no key, but the client requires one.
            api_key=self._key or "none",
            base_url=self._settings.base_url,
            # Each request has to keep to the limits, and may be the only one allowed.
            max_retries=0,
            timeout=httpx2.Timeout(self._settings.timeout_s, connect=_CONNECT_S),
            http_client=self._http,
        )


@dataclass(slots=True)
class _Tries:
    """The requests of one review."""

    allowed: int
    made: int = 0
    seconds: float = 0.0
    """Seconds of the last request."""
    last: ProviderFailure | None = None

    @property
    def over(self) -> bool:
        return self.made >= self.allowed


def read_key(settings: OpenAISettings) -> str:
    """Empty where there is none. Raises EngineLoadError."""
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    file = settings.api_key_file
    if file is None:
        return ""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise EngineLoadError(
            f"expected the key in the file of REVIEWMESH_OPENAI__API_KEY_FILE, {file}: {reason}"
        ) from None


def _omitted_if_none(value: float | None) -> float | openai.Omit:
    return openai.omit if value is None else value


def _backoff_s(times: int, longest_s: float) -> float:
    """Doubles each time; half of it is random, so that not all retry at once."""
    doubled: float = _FIRST_BACKOFF_S * 2.0 ** min(times - 1, 16)
    return min(longest_s, doubled) * random.uniform(0.5, 1)
