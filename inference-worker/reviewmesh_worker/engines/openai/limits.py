"""What keeps requests within an account's limits: places, requests and tokens a minute, pauses."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiolimiter import AsyncLimiter

from reviewmesh_worker.engines.lanes import Lane, due

_SMOOTHING: Final = 0.1
_FIRST_ANSWER_TOKENS: Final = 64.0
_BYTES_PER_TOKEN: Final = 3
"""English has four bytes per token, Chinese three: the estimate is rather too high."""


class Places:
    """At most so many requests at once; waiting ones get a place in the order of `lanes`."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self.taken = 0

    @property
    def waiting(self) -> int:
        return sum(not future.done() for _, _, future in self._waiting)

    @asynccontextmanager
    async def place(self, lane: Lane) -> AsyncIterator[None]:
        if self.taken < self._places:
            self.taken += 1
        else:
            await self._wait(lane)
        try:
            yield
        finally:
            self._hand_on()

    async def _wait(self, lane: Lane) -> None:
        future = asyncio.get_running_loop().create_future()
        entry = (due(lane, time.monotonic()), next(self._numbers), future)
        heapq.heappush(self._waiting, entry)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._hand_on()
            raise

    def _hand_on(self) -> None:
        """Pass the place to the first in the queue, if any."""
        while self._waiting:
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():
                future.set_result(None)
                return
        self.taken -= 1


class Rate:
    """Requests and tokens a minute, and the pauses that the endpoint asks for.

    Whoever comes first goes first. To be used from one event loop.
    """

    def __init__(self, requests: float | None, tokens: float | None) -> None:
        self._requests = _limiter(requests)
        self._tokens = _limiter(tokens)
        self._turn = asyncio.Lock()
        self._open_at = -math.inf
        self._answer_tokens = _FIRST_ANSWER_TOKENS

    def pause(self, seconds: float) -> None:
        """No request before so many seconds are over."""
        self._open_at = max(self._open_at, time.monotonic() + seconds)

    @property
    def pause_s(self) -> float:
        """Seconds until requests may be sent again; 0 when they may."""
        return max(0.0, self._open_at - time.monotonic())

    async def turn(self, prompt_bytes: int) -> None:
        """Wait until a request with a prompt of this size may be sent."""
        async with self._turn:
            if self._requests is not None:
                await self._requests.acquire()
            if self._tokens is not None:
                tokens = prompt_bytes / _BYTES_PER_TOKEN + self._answer_tokens
                # The limiter never grants more than a minute's tokens at once.
                await self._tokens.acquire(min(tokens, self._tokens.max_rate))
            # It may be prolonged meanwhile.
            while self.pause_s > 0:  # noqa: ASYNC110 - time wakes nobody
                await asyncio.sleep(self.pause_s)

    def answered(self, tokens: int) -> None:
        """Note the tokens of an answer: the next may have as many."""
        self._answer_tokens += _SMOOTHING * (tokens - self._answer_tokens)


def _limiter(a_minute: float | None) -> AsyncLimiter | None:
    if a_minute is None:
        return None
    # Of less than one a minute, one in so many minutes: a limiter's rate may not be below one.
    return AsyncLimiter(a_minute, 60) if a_minute >= 1 else AsyncLimiter(1, 60 / a_minute)
