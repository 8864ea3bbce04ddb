"""The highest rate at which one worker meets its objective, within bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable

from reviewmesh.capacity.load import LoadStep, OpenLoop
from reviewmesh.capacity.search import highest_rate

# Fewer reviews tell nothing of one in twenty; a slow worker is not waited for without end.
ENOUGH_REVIEWS = 200
FEWEST_REVIEWS = 20
LONGEST_STEPS = 6.0
IDLE_WITHIN_S = 60.0
CONFIRMED_FOR = 2


class Measuring:
    """One search. Used by one thread."""

    def __init__(
        self,
        loop: OpenLoop,
        step_s: float,
        within_s: float,
        tell: Callable[[LoadStep], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loop = loop
        self._step_s = step_s
        self._tell = tell
        self._clock = clock
        self._within_s = within_s
        self._ends_at = clock() + within_s
        self._steps: list[LoadStep] = []
        self._idle_s = 0.0

    def highest(self, first: float | None) -> LoadStep | None:
        """The step that confirmed it; None if no rate was confirmed. Raises Silent.

        `first`: the rate to begin with; without it, half of what one review after the other gives.
        """
        self._ends_at = self._clock() + self._within_s
        self._idle_s = self._loop.idle_s(IDLE_WITHIN_S)
        if self._idle_s > self._loop.objective_s:
            return None
        rate = highest_rate(
            first or 0.5 / self._idle_s,
            lambda rate: self._holds(rate, 1),
            lambda rate: self._holds(rate, CONFIRMED_FOR),
            lambda: self._clock() < self._ends_at,
            lowest=FEWEST_REVIEWS / (LONGEST_STEPS * self._step_s * CONFIRMED_FOR),
        )
        return self._steps[-1] if rate else None

    @property
    def best(self) -> LoadStep | None:
        """The fastest that held so far."""
        return max((s for s in self._steps if s.holds), key=lambda s: s.rate, default=None)

    @property
    def is_lower_bound(self) -> bool:
        return bool(self.why_bound())

    def why_bound(self) -> str:
        """Why the worker may do more than was found; empty if it does not."""
        failing = [step for step in self._steps if not step.holds]
        if not failing:
            return "the time was over before a rate did not hold; give --within-s more"
        if min(failing, key=lambda step: step.rate).is_generators:
            return "this machine could not send faster; measure from a faster one"
        return ""

    def why_not(self) -> str:
        """Why no rate was confirmed."""
        if self._steps and (failed := self._steps[-1].failure):
            return f"the worker fails reviews: {failed}"
        if self.best is not None:
            return (
                f"{self.best.rate:.1f} reviews/s held once and no longer try confirmed a rate "
                "in time; give --within-s more"
            )
        return (
            f"no rate met the objective; one review alone takes {self._idle_s:.3f} s, so give "
            "--objective-s more, or --within-s"
        )

    def _holds(self, rate: float, times: int) -> bool:
        steady = rate * self._step_s * times
        most = rate * self._step_s * LONGEST_STEPS
        count = round(max(FEWEST_REVIEWS, steady, min(ENOUGH_REVIEWS * times, most)))
        step = self._loop.step(rate, count)
        self._steps.append(step)
        self._tell(step)
        if not step.holds and not step.failed:
            self._loop.settle(IDLE_WITHIN_S)
        return step.holds
