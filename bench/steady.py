"""Whether a system keeps up with its load: lag in seconds stays flat. Pure.

Lag is what is due and not out, divided by the rate: how many seconds of load the system is behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# A lag that grows by 1 s in 100 s is a system that does 99 % of what is asked of it.
FLAT = 0.01


@dataclass(frozen=True)
class Sample:
    """At `at` seconds of the run, `out` reviews were out."""

    at: float
    out: int

    def lag_s(self, rate: float) -> float:
        return self.at - self.out / rate


@dataclass(frozen=True)
class Trend:
    """Of the lag over a window: its mean, and seconds that it grows by each second."""

    mean_s: float
    slope: float

    @property
    def is_flat(self) -> bool:
        return abs(self.slope) < FLAT


def trend(samples: Sequence[Sample], rate: float) -> Trend:
    """Least squares over the samples."""
    mean_at = sum(sample.at for sample in samples) / len(samples)
    mean_lag = sum(sample.lag_s(rate) for sample in samples) / len(samples)
    spread = sum((sample.at - mean_at) ** 2 for sample in samples)
    together = sum((sample.at - mean_at) * (sample.lag_s(rate) - mean_lag) for sample in samples)
    return Trend(mean_lag, together / spread if spread else 0.0)


def window(samples: Sequence[Sample], seconds: float) -> Sequence[Sample] | None:
    """The samples of the last so many seconds; None when the run is not that old yet."""
    if not samples or samples[-1].at - samples[0].at < seconds:
        return None
    since = samples[-1].at - seconds
    return [sample for sample in samples if sample.at >= since]
