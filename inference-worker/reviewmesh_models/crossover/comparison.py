"""Own GPUs by the hour against a provider by the token, for a month's reviews. Pure, and exact.

GPUs are bought whole: n of them answer up to n times what one does, and cost the same however many
of these reviews come. So the cost of owning is a staircase and that of a provider a line. The line
may cross the staircase several times: each step after the first crossing may make the provider
cheaper again, until the steps stay below the line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

HOURS_A_MONTH: Final = 730
"""A twelfth of 365 days."""
SECONDS_AN_HOUR: Final = 3_600


@dataclass(frozen=True)
class Owning:
    """Own GPUs, each rented or written off by the hour, whether it works or not."""

    rate: Fraction
    """Reviews a second that one GPU answers, all tasks of a review together."""
    gpu_hour: Fraction
    """US dollars for a GPU and hour."""
    utilisation: Fraction
    """The share of a month in which a GPU works at that rate; more than 0, at most 1."""
    staff: Fraction
    """US dollars a month for people, whatever the number of GPUs."""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.rate <= 0 or self.gpu_hour <= 0:
            raise ValueError("expected a rate and a price of a GPU above 0")
        if not 0 < self.utilisation <= 1:
            raise ValueError("expected a utilisation above 0 and at most 1")
        if self.staff < 0:
            raise ValueError("expected the cost of staff not below 0")

    @property
    def capacity(self) -> Fraction:
        """Reviews a month that one GPU answers."""
        return self.rate * SECONDS_AN_HOUR * HOURS_A_MONTH * self.utilisation

    @property
    def gpu_month(self) -> Fraction:
        return self.gpu_hour * HOURS_A_MONTH

    def gpus(self, reviews: Fraction) -> int:
        """GPUs for so many reviews a month; at least one."""
        return max(1, math.ceil(reviews / self.capacity))

    def cost(self, reviews: Fraction) -> Fraction:
        """US dollars a month."""
        return self.gpus(reviews) * self.gpu_month + self.staff


@dataclass(frozen=True)
class Buying:
    """A provider, paid by the token; tokens are a review's, all tasks together."""

    prompt_tokens: Fraction
    cached_tokens: Fraction
    """Of the prompt tokens, those that the provider bills as cached."""
    completion_tokens: Fraction
    input_price: Fraction
    """US dollars for a million tokens, as the two that follow."""
    cached_price: Fraction
    output_price: Fraction

    def __post_init__(self) -> None:
        """Raises ValueError."""
        prices = (self.input_price, self.cached_price, self.output_price)
        if min(*prices, self.cached_tokens, self.completion_tokens) < 0:
            raise ValueError("expected tokens and prices not below 0")
        if self.cached_tokens > self.prompt_tokens:
            raise ValueError("expected at most as many cached tokens as prompt tokens")

    @property
    def review(self) -> Fraction:
        """US dollars for one review."""
        fresh = self.prompt_tokens - self.cached_tokens
        dollars = (
            fresh * self.input_price
            + self.cached_tokens * self.cached_price
            + self.completion_tokens * self.output_price
        )
        return dollars / 1_000_000

    def cost(self, reviews: Fraction) -> Fraction:
        """US dollars a month."""
        return reviews * self.review


@dataclass(frozen=True)
class Crossover:
    """Reviews a month at which both cost the same."""

    first: Fraction
    """Below it the provider is cheaper."""
    last: Fraction
    """Above it owning never costs more. Between the two, a further GPU may make the provider
    cheaper again."""


def crossover_volume(owning: Owning, buying: Buying) -> Crossover | None:
    """None where owning is cheaper at no volume.

    Owning n GPUs costs n·g + s and answers n·c reviews, for which a provider takes n·c·p. The line
    meets step n if n·g + s <= n·c·p, at (n·g + s) / p. It stays above all later steps once
    (n + 1)·g + s <= n·c·p.
    """
    margin = owning.capacity * buying.review - owning.gpu_month
    if margin <= 0:
        return None
    first = max(1, math.ceil(owning.staff / margin))
    last = max(1, math.ceil((owning.staff + owning.gpu_month) / margin))
    return Crossover(
        first=(first * owning.gpu_month + owning.staff) / buying.review,
        last=(last * owning.gpu_month + owning.staff) / buying.review,
    )
