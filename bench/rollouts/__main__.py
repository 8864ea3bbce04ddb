"""`python -m bench.rollouts`: writes build/reports/rollouts.json; seven minutes on two
cores.

1,000 simulated rollouts of a candidate that is no worse: how many the judge rolls back. And
candidates that are 3 and 10 points worse: how many labelled texts show it, beside what a test with
a fixed number of them needs, looked at once.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from statistics import NormalDist, median
from typing import Any

from bench.report import FOLDER, machine
from bench.rollouts.simulated import Models, pairs_until_found, rolled_out
from reviewmesh.judge.bounds import Bounds

FILE = FOLDER / "rollouts.json"
ROLLOUTS = 1_000
AT_BOUNDS = 1_000
LONG = 2_000
SEARCHES = 500
PLANTED = (Models(worse=0.03, differ=0.10), Models(worse=0.10, differ=0.16))
POWERS = (0.8, 0.9)
AT_MOST = 6


def main() -> None:
    bounds = Bounds()
    with ProcessPoolExecutor() as processes:
        told = {
            name: rolled_back(name, judged, number, processes)
            for name, judged, number in (
                ("no worse", no_worse, ROLLOUTS),
                ("at every bound", at_every_bound, AT_BOUNDS),
            )
        }
        found = [search(models, bounds.alpha, processes) for models in PLANTED]
    for one in found:
        print(*one.pop("words"), sep="\n")
    content = {
        "machine": machine(),
        "alpha": bounds.alpha,
        "rolled_back": told,
        "planted": found,
    }
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(json.dumps(content, indent=2) + "\n")


def rolled_back(
    name: str, judged: Callable[[int], str], number: int, processes: Executor
) -> dict[str, Any]:
    """How many of so many rollouts were."""
    ended = Counter(filter(None, processes.map(judged, range(number), chunksize=10)))
    upper = upper_bound(ended.total(), number)
    print(f"{number:,} rollouts of a candidate that is {name}: {ended.total()} rolled back")
    print(f"  over {dict(ended)}; 95 % upper bound of the share {upper:.4f}")
    return {"rollouts": number, "rolled_back": dict(ended), "upper_95": upper}


def no_worse(seed: int) -> str:
    """What a candidate that is as good was rolled back over; empty where it was not."""
    decision = rolled_out(Models(), Bounds(), seed)
    return "" if decision is None else decision.metric


def at_every_bound(seed: int) -> str:
    """As `no_worse`: what is allowed it just does. It is never ready, and judged for long."""
    bounds = Bounds()
    models = Models(
        disagree=bounds.disagreement,
        fail_more=bounds.failures,
        slower=bounds.slower_times,
        dearer=bounds.dearer_times,
    )
    decision = rolled_out(models, bounds, seed, at_most=LONG)
    return "" if decision is None else decision.metric


def search(models: Models, alpha: float, processes: Executor) -> dict[str, Any]:
    at_most = AT_MOST * fixed_sample(models, alpha, POWERS[0])
    looking = partial(pairs_until_found, models, alpha, at_most=at_most)
    needed = list(processes.map(looking, range(SEARCHES), chunksize=10))
    power = sum(pairs is not None for pairs in needed) / SEARCHES
    middle = median(at_most if pairs is None else pairs for pairs in needed)
    words = [
        f"{models.worse:.0%} worse, one of both right about {models.differ:.0%} of the texts",
        f"  median of pairs {middle:,.0f}, found within {at_most:,}: {power:.1%}",
    ]
    told: dict[str, Any] = {"worse": models.worse, "median": middle, "found": power}
    for wanted in POWERS:
        fixed, own = fixed_sample(models, alpha, wanted), quantile(needed, wanted, at_most)
        words.append(
            f"  power {wanted:.0%}: a fixed sample needs {fixed:,}; the judge has found it by "
            f"{own:,}; median / fixed {middle / fixed:.2f}"
        )
        told[f"fixed_{wanted:g}"] = fixed
        told[f"judge_{wanted:g}"] = own
    return told | {"words": words}


def quantile(needed: Sequence[int | None], share: float, at_most: int) -> int:
    ordered = sorted(at_most if pairs is None else pairs for pairs in needed)
    return ordered[math.ceil(share * len(ordered)) - 1]


def fixed_sample(models: Models, alpha: float, power: float) -> int:
    """Pairs of a one-sided test of paired differences at all of alpha, by its normal
    approximation."""
    normal = NormalDist()
    variance = models.differ - models.worse**2
    reach = normal.inv_cdf(1 - alpha) + normal.inv_cdf(power)
    return math.ceil(variance * (reach / models.worse) ** 2)


def upper_bound(found: int, of: int, confidence: float = 0.95) -> float:
    """Clopper and Pearson's, one-sided: the share at which so few would come too seldom."""
    low, high = found / of, 1.0
    while high - low > 1e-6:
        share = (low + high) / 2
        few = math.fsum(
            math.comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(found + 1)
        )
        low, high = (share, high) if few > 1 - confidence else (low, share)
    return high


if __name__ == "__main__":
    main()
