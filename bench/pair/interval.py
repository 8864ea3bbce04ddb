"""The ratio of two costs that were measured in pairs, with its confidence interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

# Student's t, 97.5 %, by degrees of freedom; beyond the table the last value is a little too wide.
T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)


@dataclass(frozen=True)
class Ratio:
    """After divided by before: above 1 it became dearer. `low` to `high` is the 95 % interval."""

    middle: float
    low: float
    high: float

    def words(self) -> str:
        return f"{self.middle:.3f} times ({self.low:.3f} to {self.high:.3f})"


def ratio(before: Sequence[float], after: Sequence[float]) -> Ratio:
    """Of positive costs, pair by pair; the mean is that of logarithms, so both ways count alike.

    Raises ValueError for fewer than two pairs.
    """
    if len(before) != len(after) or len(before) < 2:
        raise ValueError(f"expected two pairs or more, got {len(before)} and {len(after)} costs")
    logs = [math.log(new / old) for old, new in zip(before, after, strict=True)]
    middle = fmean(logs)
    t = T_975[min(len(logs) - 1, len(T_975)) - 1]
    half = t * stdev(logs) / math.sqrt(len(logs))
    return Ratio(math.exp(middle), math.exp(middle - half), math.exp(middle + half))
