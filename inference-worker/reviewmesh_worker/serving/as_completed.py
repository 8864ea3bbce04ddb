"""Yields results in groups as they complete; each group waits briefly for more to join it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from functools import partial
from typing import TypeVar

T = TypeVar("T")

# A message costs the same whatever its size. Waiting for this share of the time that has passed
# keeps messages few and delays no result by more than that share.
PATIENCE = 0.2


async def groups_as_completed(
    awaitables: Sequence[Awaitable[T]],
) -> AsyncIterator[list[tuple[int, T]]]:
    """(position, result) of those that completed. Closing the iterator cancels the others.

    Raises what an awaitable raises.
    """
    started = time.monotonic()
    ready: list[int] = []
    some = asyncio.Event()

    def note(position: int, task: asyncio.Future[T]) -> None:
        ready.append(position)
        some.set()

    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    for position, task in enumerate(tasks):
        task.add_done_callback(partial(note, position))
    left = len(tasks)
    try:
        while left:
            await some.wait()
            if len(ready) < left:
                await asyncio.sleep(PATIENCE * (time.monotonic() - started))
            some.clear()
            group = [(position, tasks[position].result()) for position in ready]
            ready.clear()
            left -= len(group)
            yield group
    finally:
        for task in tasks:
            task.cancel()
