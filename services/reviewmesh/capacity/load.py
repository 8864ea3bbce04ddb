"""An open-loop load on one worker, through the enricher's own client.

When a review is sent is decided beforehand, and its latency counts from then on. So a worker that
answers late is neither asked less nor seen as faster than it is.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from reviewmesh.enrich.items import Answer, WorkItem
from reviewmesh_protos.inference.v1 import inference_pb2

SHARE = 0.95
POLL_S = 0.001
LEAD_S = 0.05
# A generator that is later than this share of the objective measures itself.
LATE_SHARE = 0.1
IDLE_TRIES = 5


class Silent(RuntimeError):
    """The worker does not answer; says why, as far as it is known."""


class Client(Protocol):
    """What is used of the enricher's client."""

    def submit(self, items: Sequence[WorkItem]) -> None: ...
    def completed(self) -> list[tuple[WorkItem, Answer]]: ...
    def cancel(self, withdrawn: Callable[[object], bool]) -> None: ...
    def waiting_for(self) -> str: ...


@dataclass(frozen=True)
class LoadStep:
    """A load at one rate, and what came of it."""

    rate: float
    offered: int
    answered: int
    failed: int
    failure: str
    """The first one's message."""
    p50_s: float
    """Of all that were offered; infinite if too few were answered."""
    p95_s: float
    generator_p95_s: float
    """How late they were sent: what the generator adds."""
    objective_s: float

    @property
    def holds(self) -> bool:
        return not self.failed and self.p95_s <= self.objective_s

    @property
    def is_generators(self) -> bool:
        """Whether the generator was too late to tell anything of the worker."""
        return self.generator_p95_s > LATE_SHARE * self.objective_s


def arrivals(rate: float, count: int, draw: random.Random) -> list[float]:
    """When to send, in seconds from the start: as a Poisson process with so many in count/rate."""
    return sorted(draw.uniform(0, count / rate) for _ in range(count))


class OpenLoop:
    """One load after the other. Used by one thread."""

    def __init__(
        self,
        client: Client,
        texts: Sequence[str],
        objective_s: float,
        draw: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._texts = itertools.cycle(texts)
        self.objective_s = objective_s
        self._draw = draw or random.Random(1)
        self._clock = clock
        self._sleep = sleep
        self._offsets = itertools.count()
        self.lineage: inference_pb2.Lineage | None = None

    def idle_s(self, within_s: float) -> float:
        """Seconds of an answer without other load, the median of IDLE_TRIES. Raises Silent."""
        return sorted(self._alone(within_s) for _ in range(IDLE_TRIES))[IDLE_TRIES // 2]

    def settle(self, within_s: float) -> None:
        """Wait until the worker answers one review alone within the objective. Raises Silent."""
        deadline = self._clock() + within_s
        while self._alone(within_s) > self.objective_s:
            if self._clock() >= deadline:
                raise Silent(f"one review alone takes over {self.objective_s:g} s after the load")

    def step(self, rate: float, count: int) -> LoadStep:
        """Offer so many; ends early once it is certain that the objective is not met."""
        run = _Run(arrivals(rate, count, self._draw), self.objective_s)
        first = next(self._offsets)
        items = list(self._items(first, count))
        self._offsets = itertools.count(first + count)
        begin = self._clock() + LEAD_S
        sent = 0
        while not run.is_over:
            for item, answer in self._client.completed():
                run.answered(item.offset - first, self._clock() - begin, answer)
                self.lineage = answer.lineage or self.lineage
            now = self._clock() - begin
            due = run.due_until(now, sent)
            if due > sent:
                self._client.submit(items[sent:due])
                run.sent(sent, due, now)
                sent = due
            run.look(now)
            pause = POLL_S if sent == count else min(POLL_S, run.due[sent] - now)
            self._sleep(max(0.0, pause))
        if run.is_broken:
            self._client.cancel(lambda token: token == first)
        return run.result(rate)

    def _items(self, first: int, count: int) -> Iterator[WorkItem]:
        for offset in range(first, first + count):
            yield WorkItem(
                token=first,
                partition=0,
                offset=offset,
                # Workers answer a text that they know from their cache.
                text=f"{next(self._texts)} ({offset})",
                language="",
                traceparent=None,
                business_id=None,
                accepted_s=time.time(),
            )

    def _alone(self, within_s: float) -> float:
        [item] = self._items(next(self._offsets), 1)
        began = self._clock()
        self._client.submit([item])
        while self._clock() - began < within_s:
            for done, answer in self._client.completed():
                if done.offset != item.offset:
                    continue
                if answer.error is not None:
                    raise Silent(f"the worker failed one review alone: {answer.error}")
                self.lineage = answer.lineage or self.lineage
                return self._clock() - began
            self._sleep(POLL_S)
        self._client.cancel(lambda token: token == item.token)
        raise Silent(self._client.waiting_for() or f"no answer to one review within {within_s:g} s")


class _Run:
    """The reviews of one step, by their number."""

    def __init__(self, due: list[float], objective_s: float) -> None:
        self.due = due
        self._objective_s = objective_s
        self._took: list[float | None] = [None] * len(due)
        self._generator: list[float] = []
        self._open = len(due)
        self._checked = 0
        self._late = 0
        self._may_be_late = len(due) - math.ceil(SHARE * len(due))
        self._failed = 0
        self._failure = ""

    @property
    def is_broken(self) -> bool:
        return self._late > self._may_be_late or self._failed > 0

    @property
    def is_over(self) -> bool:
        return self.is_broken or not self._open

    def due_until(self, now: float, sent: int) -> int:
        while sent < len(self.due) and self.due[sent] <= now:
            sent += 1
        return sent

    def sent(self, first: int, last: int, now: float) -> None:
        self._generator += [now - due for due in self.due[first:last]]

    def answered(self, number: int, now: float, answer: Answer) -> None:
        if not 0 <= number < len(self.due) or self._took[number] is not None:
            return
        self._open -= 1
        if answer.error is not None:
            self._failed += 1
            self._failure = self._failure or answer.error
            return
        self._took[number] = now - self.due[number]

    def look(self, now: float) -> None:
        """Count those whose time is over."""
        while self._checked < len(self.due) and self.due[self._checked] + self._objective_s <= now:
            took = self._took[self._checked]
            self._late += took is None or took > self._objective_s
            self._checked += 1

    def result(self, rate: float) -> LoadStep:
        took = sorted(seconds for seconds in self._took if seconds is not None)
        return LoadStep(
            rate=rate,
            offered=len(self.due),
            answered=len(took),
            failed=self._failed,
            failure=self._failure,
            p50_s=_share(took, len(self.due), 0.5),
            p95_s=_share(took, len(self.due), SHARE),
            generator_p95_s=_share(sorted(self._generator), len(self._generator), SHARE),
            objective_s=self._objective_s,
        )


def _share(ordered: Sequence[float], total: int, share: float) -> float:
    """So large a share of all is no more; those that are missing are infinite."""
    number = math.ceil(share * total) - 1
    return ordered[number] if 0 <= number < len(ordered) else math.inf
