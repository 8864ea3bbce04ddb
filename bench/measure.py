"""What is measured of one system: the rate that holds, what it costs, and latency at half of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.harness import HARNESS, Failed, Harness, Trial
from bench.reader import percentile

SEARCH_WINDOW_S = 8.0
SEARCH_LIMIT_S = 16.0
CONFIRM_LIMIT_FACTOR = 2.0
STEP_DOWN = 0.95
LAST_STEP_DOWN = 0.75
KEPT_SAMPLES = 240


@dataclass(frozen=True)
class Effort:
    """How long one system is measured; no further trial is begun when the budget is spent."""

    trials: int
    confirm_s: float
    half_load_s: float
    budget_s: float


def measure(harness: Harness, effort: Effort, tell: Callable[[str], None]) -> dict[str, Any]:
    """Find the highest rate that holds, confirm it with a longer run, go on at half of it."""
    until = time.monotonic() + effort.budget_s
    estimate = harness.growing_bursts(tell)
    trials = harness.find_rate(
        estimate, SEARCH_WINDOW_S, SEARCH_LIMIT_S, effort.trials, until, tell
    )
    confirmed = _confirm(harness, trials, effort.confirm_s, until, tell)
    half = harness.trial(
        confirmed.rate / 2, effort.half_load_s, effort.half_load_s * CONFIRM_LIMIT_FACTOR
    )
    tell(f"half load: {half.describe()}")
    return {
        "reviews_per_second": round(confirmed.rate, 1),
        "flat_for_s": confirmed.window_s,
        "cpu_seconds_per_1000_reviews": system_cpu(confirmed),
        "harness_cpu_seconds_per_1000_reviews": harness_cpu(confirmed),
        "cores_busy": round(confirmed.cores, 2),
        "cores_busy_by_others": round(confirmed.others_cores, 2),
        "latency_ms": latency(half),
        "latency_ms_at_full_rate": latency(confirmed),
        "memory_mb": {
            name: round(mb, 1)
            for name, mb in harness.meter.max_rss_mb.items()
            if name not in HARNESS
        },
        "trials": [summary(trial) for trial in (*trials, half)],
        "lag": {f"{trial.rate:.0f}": lag_series(trial) for trial in (*trials, half)},
    }


def _confirm(
    harness: Harness,
    trials: list[Trial],
    seconds: float,
    until: float,
    tell: Callable[[str], None],
) -> Trial:
    """A longer run at the rate that was found; a little lower each time that it does not hold.

    When the budget is spent before one held, one more is made at a much lower rate. Raises Failed
    when that does not hold either.
    """
    rate, step = max((trial.rate for trial in trials if trial.holds), default=0.0), STEP_DOWN
    if not rate:
        raise Failed("no rate held: the lag of every one grew, see the lines above")
    while True:
        last = time.monotonic() > until
        trial = harness.trial(rate, seconds, seconds * CONFIRM_LIMIT_FACTOR)
        trials.append(trial)
        tell(f"confirmation: {trial.describe()}")
        if trial.holds:
            return trial
        if last:
            raise Failed("no rate was confirmed in the time for it, see the lines above")
        rate *= LAST_STEP_DOWN if time.monotonic() > until else step
        step *= STEP_DOWN


def system_cpu(trial: Trial) -> dict[str, float]:
    return _rounded(trial.cpu_s_per_1000, lambda name: name not in HARNESS)


def harness_cpu(trial: Trial) -> dict[str, float]:
    return _rounded(trial.cpu_s_per_1000, lambda name: name in HARNESS)


def _rounded(values: Mapping[str, float], wanted: Callable[[str], bool]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items() if wanted(name)}


def latency(trial: Trial) -> dict[str, Any]:
    """Milliseconds from when a review was due to when a committed reader had it."""
    found = trial.latencies
    return {
        "rate": round(trial.rate, 1),
        "steady": trial.holds,
        **percentiles(found.seconds),
        "stages": {stage: percentiles(values) for stage, values in found.stages.items()},
        "reviews": len(found.seconds),
        "missing": found.missing,
        "twice": found.twice,
    }


def percentiles(ordered: Sequence[float]) -> dict[str, float]:
    """p50, p99 and the largest of ordered seconds, in milliseconds; nothing of nothing."""
    if not ordered:
        return {}
    shares = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    return {name: round(percentile(ordered, share) * 1000, 1) for name, share in shares.items()}


def summary(trial: Trial) -> dict[str, Any]:
    return {
        "rate": round(trial.rate, 1),
        "holds": trial.holds,
        "seconds": round(trial.samples[-1].at, 1),
        "lag_s": round(trial.trend.mean_s, 3),
        "lag_slope": round(trial.trend.slope, 4),
        "not_out_when_it_ended": trial.latencies.missing,
        "twice": trial.latencies.twice,
        "incomplete_in_sample": trial.latencies.incomplete,
        "cores_busy_by_others": round(trial.others_cores, 2),
    }


def lag_series(trial: Trial) -> list[tuple[float, float]]:
    """(second, lag in seconds) for the plot."""
    step = len(trial.samples) // KEPT_SAMPLES + 1
    return [
        (round(sample.at, 2), round(sample.lag_s(trial.rate), 3))
        for sample in trial.samples[::step]
    ]
