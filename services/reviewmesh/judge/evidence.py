"""Tests and confidence sequences for a mean that stay valid at every look. Pure.

Observations are bounded. A gambler bets a fixed share of the capital on each of them being larger
than a bound. If their mean is not larger, the capital is a nonnegative supermartingale that begins
at 1, and Ville's inequality says that it ever reaches 1/alpha with probability alpha at most: one
may look after every observation, and stop whenever one likes (Waudby-Smith and Ramdas, "Estimating
means of bounded random variables by betting", JRSS B 86(1), 2024). The best share depends on what
is not known, so the capital is divided over several shares (the method of mixtures: Robbins,
Annals of Mathematical Statistics 41(5), 1970; over constant bets: Orabona and Jun, "Tight
concentrations and confidence sequences from the regret of universal portfolio", IEEE Transactions
on Information Theory 70(1), 2024). The bounds that are not refuted make a confidence sequence.

The shares do not change, so that all of it depends on how often each value came, not on the order.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

# Bets, as shares of the largest possible loss. They suit differences of the mean from 0.005 to 1.
BETS = tuple(0.96 * 0.72**power for power in range(16))
PRECISION = 1e-4


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float


@dataclass(slots=True)
class Observations:
    """Counts of each value; `low` and `high` are the smallest and largest possible ones."""

    low: float = 0.0
    high: float = 1.0
    counts: Counter[float] = field(default_factory=Counter)

    def add(self, value: float) -> None:
        self.counts[value] += 1

    @property
    def number(self) -> int:
        return self.counts.total()

    @property
    def mean(self) -> float:
        """The mean; 0 without observations."""
        return sum(value * count for value, count in self.counts.items()) / max(1, self.number)

    def shows_above(self, bound: float, alpha: float) -> bool:
        """Whether the mean is proven larger; wrong at any look with probability alpha at most."""
        if self.mean <= bound:
            # The logarithm is concave, so no bet has gained.
            return False
        return log_capital(self.counts, bound, self.low) >= -math.log(alpha)

    def shows_below(self, bound: float, alpha: float) -> bool:
        """Whether the mean is proven smaller; wrong at any look with probability alpha at most."""
        if self.mean >= bound:
            return False
        return log_capital(_mirrored(self.counts), -bound, -self.high) >= -math.log(alpha)

    def interval(self, alpha: float) -> Interval:
        """A confidence sequence: each end bounds the mean at all looks with probability 1 - alpha.

        So `shows_above` a bound is true as soon as the whole interval is above the bound.
        """
        if not self.number:
            return Interval(self.low, self.high)
        return Interval(
            _refuted_up_to(self.counts, self.low, self.mean, alpha),
            -_refuted_up_to(_mirrored(self.counts), -self.high, -self.mean, alpha),
        )


def log_capital(counts: Counter[float], bound: float, low: float) -> float:
    """Log of the capital of a gambler who bets on a mean above `bound`.

    `low`: the smallest possible value.
    """
    at_stake = bound - low
    if at_stake <= 0:
        # The bound is the smallest possible mean, so nothing is at stake.
        return 0.0
    gains = [0.0] * len(BETS)
    for value, count in counts.items():
        won = (value - bound) / at_stake
        for number, bet in enumerate(BETS):
            gains[number] += count * math.log1p(bet * won)
    best = max(gains)
    return best + math.log(sum(math.exp(gain - best) for gain in gains) / len(BETS))


def _refuted_up_to(counts: Counter[float], low: float, mean: float, alpha: float) -> float:
    """The largest bound that the observations refute, by bisection.

    Bisection works because the evidence falls as the bound rises towards the mean.
    """
    wanted = -math.log(alpha)
    refuted, kept = low, mean
    while kept - refuted > PRECISION:
        middle = (refuted + kept) / 2
        if log_capital(counts, middle, low) >= wanted:
            refuted = middle
        else:
            kept = middle
    return refuted


def _mirrored(counts: Counter[float]) -> Counter[float]:
    return Counter({-value: count for value, count in counts.items()})
